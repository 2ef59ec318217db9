CREATE TABLE audit (
    id VARCHAR NOT NULL,
    at DOUBLE NOT NULL,
    key_id VARCHAR NOT NULL,
    action VARCHAR NOT NULL,
    target VARCHAR NOT NULL,
    details JSON NOT NULL,
    request_id VARCHAR NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX audit_by_age ON audit (at, id);

CREATE TABLE batches (
    id VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    key_id VARCHAR NOT NULL,
    private BOOLEAN NOT NULL,
    endpoint VARCHAR NOT NULL,
    input_file_id VARCHAR NOT NULL,
    completion_window VARCHAR NOT NULL,
    window_seconds INTEGER NOT NULL,
    metadata JSON,
    model VARCHAR,
    provider VARCHAR,
    priority INTEGER NOT NULL,
    extra JSON,
    policies JSON,
    input_tokens BIGINT NOT NULL,
    traceparent VARCHAR,
    pause JSON,
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
    created_at DOUBLE NOT NULL,
    expires_at DOUBLE NOT NULL,
    paused_at DOUBLE,
    failed_at DOUBLE,
    in_progress_at DOUBLE,
    finalizing_at DOUBLE,
    completed_at DOUBLE,
    expired_at DOUBLE,
    cancelling_at DOUBLE,
    cancelled_at DOUBLE,
    tidied_at DOUBLE,
    prepared_at DOUBLE,
    not_before DOUBLE NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT status_known CHECK (status IN ('validating', 'paused', 'failed', 'in_progress', 'finalizing', 'completed', 'expired', 'cancelling', 'cancelled')),
    CONSTRAINT failed_has_time CHECK (status <> 'failed' OR failed_at IS NOT NULL),
    CONSTRAINT completed_has_time CHECK (status <> 'completed' OR completed_at IS NOT NULL),
    CONSTRAINT expired_has_time CHECK (status <> 'expired' OR expired_at IS NOT NULL),
    CONSTRAINT cancelled_has_time CHECK (status <> 'cancelled' OR cancelled_at IS NOT NULL)
);

CREATE INDEX batches_by_age ON batches (project, created_at, id);

CREATE INDEX batches_by_deadline ON batches (status, expires_at);

CREATE INDEX batches_by_input ON batches (input_file_id);

CREATE INDEX batches_by_key ON batches (key_id, status);

CREATE INDEX batches_due ON batches (status, not_before);

CREATE TABLE budgets (
    owner VARCHAR NOT NULL,
    amount BIGINT NOT NULL,
    period VARCHAR NOT NULL,
    starts_at DOUBLE NOT NULL,
    held BIGINT NOT NULL,
    settled BIGINT NOT NULL,
    told INTEGER NOT NULL,
    PRIMARY KEY (owner)
);

CREATE TABLE costs (
    day INTEGER NOT NULL,
    tag VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    key_id VARCHAR NOT NULL,
    account VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    lane VARCHAR NOT NULL,
    private BOOLEAN NOT NULL,
    entries BIGINT NOT NULL,
    unknown BIGINT NOT NULL,
    lines BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    cached_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    audio_input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    audio_output_tokens BIGINT NOT NULL,
    image_output_tokens BIGINT NOT NULL,
    milliseconds BIGINT NOT NULL,
    amount BIGINT NOT NULL,
    PRIMARY KEY (day, tag, project, key_id, account, model, lane, private)
)
 WITHOUT ROWID;

CREATE TABLE dead_letters (
    receiver VARCHAR NOT NULL,
    event_id VARCHAR NOT NULL,
    event JSON NOT NULL,
    error TEXT NOT NULL,
    died_at DOUBLE NOT NULL,
    again_at DOUBLE,
    PRIMARY KEY (receiver, event_id)
);

CREATE TABLE deliveries (
    id VARCHAR NOT NULL,
    webhook_id VARCHAR NOT NULL,
    event_id VARCHAR NOT NULL,
    position BIGINT NOT NULL,
    subject VARCHAR NOT NULL,
    event JSON NOT NULL,
    status VARCHAR NOT NULL,
    attempts INTEGER NOT NULL,
    not_before DOUBLE NOT NULL,
    answer INTEGER,
    error TEXT,
    created_at DOUBLE NOT NULL,
    ended_at DOUBLE,
    PRIMARY KEY (id),
    UNIQUE (webhook_id, event_id)
);

CREATE INDEX deliveries_by_position ON deliveries (webhook_id, position);

CREATE INDEX deliveries_due ON deliveries (webhook_id, status, not_before);

CREATE INDEX deliveries_ended ON deliveries (status, ended_at);

CREATE INDEX deliveries_in_order ON deliveries (webhook_id, subject, status, position);

CREATE TABLE files (
    id VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    key_id VARCHAR NOT NULL,
    private BOOLEAN NOT NULL,
    purpose VARCHAR NOT NULL,
    filename VARCHAR NOT NULL,
    bytes BIGINT NOT NULL,
    sha256 VARCHAR NOT NULL,
    storage_key VARCHAR NOT NULL,
    created_at DOUBLE NOT NULL,
    expires_at DOUBLE,
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
    created_at DOUBLE NOT NULL,
    PRIMARY KEY (key_id, idempotency_key)
);

CREATE INDEX ix_idempotency_created_at ON idempotency (created_at);

CREATE TABLE keys (
    id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    scopes JSON NOT NULL,
    private BOOLEAN NOT NULL,
    models JSON,
    providers JSON,
    cidrs JSON,
    limits JSON,
    on_budget VARCHAR NOT NULL,
    created_at DOUBLE NOT NULL,
    expires_at DOUBLE,
    disabled_at DOUBLE,
    deleted_at DOUBLE,
    PRIMARY KEY (id)
);

CREATE INDEX keys_by_age ON keys (created_at, id);

CREATE TABLE leases (
    name VARCHAR NOT NULL,
    holder VARCHAR NOT NULL,
    expires_at DOUBLE NOT NULL,
    PRIMARY KEY (name)
);

CREATE TABLE ledger (
    id INTEGER NOT NULL,
    batch_id VARCHAR NOT NULL,
    job_id VARCHAR NOT NULL,
    first_line BIGINT NOT NULL,
    last_line BIGINT NOT NULL,
    kind VARCHAR NOT NULL,
    reference VARCHAR NOT NULL,
    note TEXT,
    project VARCHAR NOT NULL,
    key_id VARCHAR NOT NULL,
    account VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    lane VARCHAR NOT NULL,
    lines BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    cached_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    audio_input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    audio_output_tokens BIGINT NOT NULL,
    image_output_tokens BIGINT NOT NULL,
    milliseconds BIGINT NOT NULL,
    amount BIGINT,
    price_source VARCHAR,
    created_at DOUBLE NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (batch_id, job_id, first_line, kind, model, reference)
);

CREATE INDEX ix_ledger_batch_id ON ledger (batch_id);

CREATE INDEX ix_ledger_created_at ON ledger (created_at);

CREATE INDEX ledger_of_project ON ledger (project, created_at);

CREATE TABLE outbox (
    seq INTEGER NOT NULL,
    position BIGINT,
    id VARCHAR NOT NULL,
    type VARCHAR NOT NULL,
    subject VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    key_id VARCHAR NOT NULL,
    data JSON NOT NULL,
    created_at DOUBLE NOT NULL,
    PRIMARY KEY (seq),
    UNIQUE (position),
    UNIQUE (id)
);

CREATE INDEX ix_outbox_subject ON outbox (subject);

CREATE INDEX outbox_by_age ON outbox (created_at);

CREATE INDEX outbox_new ON outbox (seq) WHERE position IS NULL;

CREATE TABLE projects (
    name VARCHAR NOT NULL,
    sharing BOOLEAN NOT NULL,
    redaction VARCHAR NOT NULL,
    models JSON,
    providers JSON,
    limits JSON,
    created_at DOUBLE NOT NULL,
    deleted_at DOUBLE,
    PRIMARY KEY (name)
);

CREATE TABLE receivers (
    name VARCHAR NOT NULL,
    position BIGINT NOT NULL,
    lines_told BIGINT NOT NULL,
    failures INTEGER NOT NULL,
    failing_since DOUBLE,
    not_before DOUBLE NOT NULL,
    last_error TEXT,
    told_at DOUBLE,
    PRIMARY KEY (name)
);

CREATE TABLE segments (
    id INTEGER NOT NULL,
    batch_id VARCHAR NOT NULL,
    seq BIGINT NOT NULL,
    job_id VARCHAR NOT NULL,
    chunk_id VARCHAR,
    storage_key VARCHAR NOT NULL,
    bytes BIGINT NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    numbers BLOB,
    PRIMARY KEY (id),
    UNIQUE (batch_id, seq)
);

CREATE INDEX ix_segments_chunk_id ON segments (chunk_id);

CREATE INDEX ix_segments_job_id ON segments (job_id);

CREATE TABLE tallies (
    name VARCHAR NOT NULL,
    starts_at DOUBLE NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (name, starts_at)
);

CREATE TABLE uploads (
    id VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    key_id VARCHAR NOT NULL,
    private BOOLEAN NOT NULL,
    filename VARCHAR NOT NULL,
    purpose VARCHAR NOT NULL,
    mime_type VARCHAR NOT NULL,
    bytes BIGINT NOT NULL,
    expires_after INTEGER,
    status VARCHAR NOT NULL,
    created_at DOUBLE NOT NULL,
    expires_at DOUBLE NOT NULL,
    file_id VARCHAR,
    PRIMARY KEY (id)
);

CREATE TABLE webhooks (
    id VARCHAR NOT NULL,
    project VARCHAR,
    batch_id VARCHAR,
    key_id VARCHAR NOT NULL,
    url TEXT NOT NULL,
    secret TEXT NOT NULL,
    events JSON NOT NULL,
    allow_private BOOLEAN NOT NULL,
    admin BOOLEAN NOT NULL,
    private BOOLEAN NOT NULL,
    receiver VARCHAR,
    created_at DOUBLE NOT NULL,
    disabled_at DOUBLE,
    deleted_at DOUBLE,
    failures INTEGER NOT NULL,
    not_before DOUBLE,
    paused_until DOUBLE NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (receiver)
);

CREATE INDEX ix_webhooks_batch_id ON webhooks (batch_id);

CREATE INDEX webhooks_due ON webhooks (not_before);

CREATE INDEX webhooks_of_project ON webhooks (project);

CREATE TABLE file_faults (
    file_id VARCHAR NOT NULL,
    faults JSON NOT NULL,
    PRIMARY KEY (file_id),
    FOREIGN KEY(file_id) REFERENCES files (id) ON DELETE CASCADE
);

CREATE TABLE holds (
    batch_id VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    key_id VARCHAR NOT NULL,
    amount BIGINT,
    opened_at DOUBLE NOT NULL,
    settled_at DOUBLE,
    settled_amount BIGINT,
    PRIMARY KEY (batch_id),
    FOREIGN KEY(batch_id) REFERENCES batches (id) ON DELETE CASCADE
);

CREATE INDEX holds_by_age ON holds (opened_at);

CREATE INDEX holds_of_key ON holds (key_id, opened_at);

CREATE INDEX holds_of_project ON holds (project, opened_at);

CREATE INDEX holds_open ON holds (opened_at) WHERE settled_at IS NULL;

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
    deadline DOUBLE NOT NULL,
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
    price JSON,
    planned_at DOUBLE,
    submitting_at DOUBLE,
    running_at DOUBLE,
    ended_at DOUBLE,
    collected_at DOUBLE,
    accounted_at DOUBLE,
    cancel_at DOUBLE,
    poll_at DOUBLE NOT NULL,
    not_before DOUBLE NOT NULL,
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

CREATE INDEX jobs_by_route ON jobs (account, model, ended_at);

CREATE INDEX jobs_due ON jobs (status, not_before);

CREATE INDEX jobs_to_poll ON jobs (status, poll_at);

CREATE TABLE key_secrets (
    hash VARCHAR NOT NULL,
    key_id VARCHAR NOT NULL,
    created_at DOUBLE NOT NULL,
    valid_until DOUBLE,
    PRIMARY KEY (hash),
    FOREIGN KEY(key_id) REFERENCES keys (id) ON DELETE CASCADE
);

CREATE INDEX ix_key_secrets_key_id ON key_secrets (key_id);

CREATE TABLE upload_parts (
    id VARCHAR NOT NULL,
    upload_id VARCHAR NOT NULL,
    bytes BIGINT NOT NULL,
    storage_key VARCHAR NOT NULL,
    created_at DOUBLE NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(upload_id) REFERENCES uploads (id) ON DELETE CASCADE
);

CREATE INDEX ix_upload_parts_upload_id ON upload_parts (upload_id);

CREATE TABLE chunks (
    id VARCHAR NOT NULL,
    job_id VARCHAR NOT NULL,
    ordinal INTEGER NOT NULL,
    account VARCHAR NOT NULL,
    deadline DOUBLE NOT NULL,
    priority INTEGER NOT NULL,
    span_start BIGINT NOT NULL,
    span_end BIGINT NOT NULL,
    first_line BIGINT NOT NULL,
    lines INTEGER NOT NULL,
    token INTEGER NOT NULL,
    answered INTEGER NOT NULL,
    spent BIGINT NOT NULL,
    queued_at DOUBLE,
    stop_at DOUBLE,
    done_at DOUBLE,
    not_before DOUBLE NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (job_id, ordinal),
    FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);

CREATE INDEX chunks_of_job ON chunks (job_id, done_at, queued_at, ordinal);

CREATE INDEX chunks_waiting ON chunks (done_at, queued_at, account, deadline);

