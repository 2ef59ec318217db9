CREATE TABLE batches (
    id VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    key_id VARCHAR NOT NULL,
    endpoint VARCHAR NOT NULL,
    input_file_id VARCHAR NOT NULL,
    completion_window VARCHAR NOT NULL,
    window_seconds INTEGER NOT NULL,
    metadata JSON,
    model VARCHAR,
    provider VARCHAR,
    priority INTEGER NOT NULL,
    extra JSON,
    output_expires_after INTEGER,
    status VARCHAR NOT NULL,
    expiring BOOLEAN NOT NULL,
    errors JSON,
    total BIGINT NOT NULL,
    completed BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    segment_seq BIGINT NOT NULL,
    output_file_id VARCHAR,
    error_file_id VARCHAR,
    usage JSON,
    amount BIGINT,
    amount_known BOOLEAN NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL,
    failed_at DOUBLE PRECISION,
    in_progress_at DOUBLE PRECISION,
    finalizing_at DOUBLE PRECISION,
    completed_at DOUBLE PRECISION,
    expired_at DOUBLE PRECISION,
    cancelling_at DOUBLE PRECISION,
    cancelled_at DOUBLE PRECISION,
    tidied_at DOUBLE PRECISION,
    prepared_at DOUBLE PRECISION,
    not_before DOUBLE PRECISION NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT status_known CHECK (status IN ('validating', 'failed', 'in_progress', 'finalizing', 'completed', 'expired', 'cancelling', 'cancelled')),
    CONSTRAINT failed_has_time CHECK (status <> 'failed' OR failed_at IS NOT NULL),
    CONSTRAINT completed_has_time CHECK (status <> 'completed' OR completed_at IS NOT NULL),
    CONSTRAINT expired_has_time CHECK (status <> 'expired' OR expired_at IS NOT NULL),
    CONSTRAINT cancelled_has_time CHECK (status <> 'cancelled' OR cancelled_at IS NOT NULL)
);

CREATE INDEX batches_by_age ON batches (project, created_at, id);

CREATE INDEX batches_by_deadline ON batches (status, expires_at);

CREATE INDEX batches_by_input ON batches (input_file_id);

CREATE INDEX batches_due ON batches (status, not_before);

CREATE TABLE files (
    id VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    key_id VARCHAR NOT NULL,
    purpose VARCHAR NOT NULL,
    filename VARCHAR NOT NULL,
    bytes BIGINT NOT NULL,
    sha256 VARCHAR NOT NULL,
    storage_key VARCHAR NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION,
    lines BIGINT NOT NULL,
    models JSON,
    urls JSON,
    fault_count INTEGER NOT NULL,
    batch_id VARCHAR,
    PRIMARY KEY (id)
);

CREATE INDEX files_by_age ON files (project, created_at, id);

CREATE INDEX files_by_expiry ON files (expires_at);

CREATE TABLE idempotency (
    key_id VARCHAR NOT NULL,
    idempotency_key VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,
    body TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (key_id, idempotency_key)
);

CREATE INDEX ix_idempotency_created_at ON idempotency (created_at);

CREATE TABLE keys (
    id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    hash VARCHAR NOT NULL,
    admin BOOLEAN NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    deleted_at DOUBLE PRECISION,
    PRIMARY KEY (id),
    UNIQUE (hash)
);

CREATE TABLE leases (
    name VARCHAR NOT NULL,
    holder VARCHAR NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (name)
);

CREATE TABLE ledger (
    id BIGSERIAL NOT NULL,
    job_id VARCHAR NOT NULL,
    batch_id VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    key_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    account VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    lane VARCHAR NOT NULL,
    lines BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    cached_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    amount BIGINT,
    price_source VARCHAR,
    created_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (job_id, kind, model)
);

CREATE INDEX ix_ledger_batch_id ON ledger (batch_id);

CREATE TABLE meta (
    key VARCHAR NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (key)
);

CREATE TABLE outbox (
    seq BIGSERIAL NOT NULL,
    id VARCHAR NOT NULL,
    type VARCHAR NOT NULL,
    subject VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    data JSON NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    told_at DOUBLE PRECISION,
    PRIMARY KEY (seq),
    UNIQUE (id)
);

CREATE INDEX ix_outbox_subject ON outbox (subject);

CREATE INDEX outbox_waiting ON outbox (told_at, seq);

CREATE TABLE segments (
    id BIGSERIAL NOT NULL,
    batch_id VARCHAR NOT NULL,
    seq BIGINT NOT NULL,
    job_id VARCHAR NOT NULL,
    chunk_id VARCHAR,
    storage_key VARCHAR NOT NULL,
    bytes BIGINT NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    numbers BYTEA,
    PRIMARY KEY (id),
    UNIQUE (batch_id, seq)
);

CREATE INDEX ix_segments_chunk_id ON segments (chunk_id);

CREATE INDEX ix_segments_job_id ON segments (job_id);

CREATE TABLE uploads (
    id VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    key_id VARCHAR NOT NULL,
    filename VARCHAR NOT NULL,
    purpose VARCHAR NOT NULL,
    mime_type VARCHAR NOT NULL,
    bytes BIGINT NOT NULL,
    expires_after INTEGER,
    status VARCHAR NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL,
    file_id VARCHAR,
    PRIMARY KEY (id)
);

CREATE TABLE file_faults (
    file_id VARCHAR NOT NULL,
    faults JSON NOT NULL,
    PRIMARY KEY (file_id),
    FOREIGN KEY(file_id) REFERENCES files (id) ON DELETE CASCADE
);

CREATE TABLE holds (
    batch_id VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    amount BIGINT,
    opened_at DOUBLE PRECISION NOT NULL,
    settled_at DOUBLE PRECISION,
    settled_amount BIGINT,
    PRIMARY KEY (batch_id),
    FOREIGN KEY(batch_id) REFERENCES batches (id) ON DELETE CASCADE
);

CREATE TABLE jobs (
    id VARCHAR NOT NULL,
    batch_id VARCHAR NOT NULL,
    ordinal INTEGER NOT NULL,
    token VARCHAR NOT NULL,
    account VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    lane VARCHAR NOT NULL,
    models JSON NOT NULL,
    alternatives JSON,
    endpoint VARCHAR NOT NULL,
    file_key VARCHAR NOT NULL,
    span_start BIGINT NOT NULL,
    span_end BIGINT NOT NULL,
    first_line BIGINT NOT NULL,
    lines BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    window_seconds INTEGER NOT NULL,
    deadline DOUBLE PRECISION NOT NULL,
    priority INTEGER NOT NULL,
    status VARCHAR NOT NULL,
    outcome VARCHAR,
    remote_id VARCHAR,
    remote_status VARCHAR,
    results JSON,
    code VARCHAR,
    message TEXT,
    completed BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    answers_key VARCHAR,
    usage JSON,
    amount BIGINT,
    planned_at DOUBLE PRECISION,
    submitting_at DOUBLE PRECISION,
    running_at DOUBLE PRECISION,
    ended_at DOUBLE PRECISION,
    collected_at DOUBLE PRECISION,
    accounted_at DOUBLE PRECISION,
    cancel_at DOUBLE PRECISION,
    poll_at DOUBLE PRECISION NOT NULL,
    not_before DOUBLE PRECISION NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT status_known CHECK (status IN ('planned', 'submitting', 'running', 'ended', 'collected', 'accounted')),
    CONSTRAINT outcome_known CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'expired', 'rejected')),
    CONSTRAINT ended_has_outcome CHECK (status NOT IN ('ended', 'collected', 'accounted') OR outcome IS NOT NULL),
    CONSTRAINT accounted_has_time CHECK (status <> 'accounted' OR accounted_at IS NOT NULL),
    CONSTRAINT running_has_remote_id CHECK (status <> 'running' OR remote_id IS NOT NULL),
    UNIQUE (batch_id, ordinal),
    FOREIGN KEY(batch_id) REFERENCES batches (id) ON DELETE CASCADE,
    UNIQUE (token)
);

CREATE INDEX jobs_by_remote_id ON jobs (account, remote_id);

CREATE INDEX jobs_due ON jobs (status, not_before);

CREATE INDEX jobs_to_poll ON jobs (status, poll_at);

CREATE TABLE upload_parts (
    id VARCHAR NOT NULL,
    upload_id VARCHAR NOT NULL,
    bytes BIGINT NOT NULL,
    storage_key VARCHAR NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(upload_id) REFERENCES uploads (id) ON DELETE CASCADE
);

CREATE INDEX ix_upload_parts_upload_id ON upload_parts (upload_id);

CREATE TABLE chunks (
    id VARCHAR NOT NULL,
    job_id VARCHAR NOT NULL,
    ordinal INTEGER NOT NULL,
    account VARCHAR NOT NULL,
    deadline DOUBLE PRECISION NOT NULL,
    priority INTEGER NOT NULL,
    span_start BIGINT NOT NULL,
    span_end BIGINT NOT NULL,
    first_line BIGINT NOT NULL,
    lines INTEGER NOT NULL,
    token INTEGER NOT NULL,
    answered INTEGER NOT NULL,
    queued_at DOUBLE PRECISION,
    stop_at DOUBLE PRECISION,
    done_at DOUBLE PRECISION,
    not_before DOUBLE PRECISION NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (job_id, ordinal),
    FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);

CREATE INDEX chunks_waiting ON chunks (done_at, queued_at, account, deadline);
