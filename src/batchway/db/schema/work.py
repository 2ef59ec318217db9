"""What is carried: files, uploads, batches, jobs, chunks, segments, and what keeps processes apart."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from batchway.core.states import BATCH_STEPS, BatchState, JobState, Outcome
from batchway.db.schema.shared import Serial, final_has_time, metadata, reference, words

meta = Table("meta", metadata, Column("key", String, primary_key=True), Column("value", Text, nullable=False))

files = Table(
    "files",
    metadata,
    Column("id", String, primary_key=True),
    Column("project", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("private", Boolean, nullable=False, default=False),
    Column("purpose", String, nullable=False),
    Column("filename", String, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String, nullable=False),
    Column("storage_key", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("lines", BigInteger, nullable=False, default=0),
    Column("models", JSON),  # model -> {"lines", "bytes", "input_tokens", "output_limit", "unlimited"}
    Column("urls", JSON),  # url -> lines
    Column("fault_count", Integer, nullable=False, default=0),
    Column("batch_id", String),  # the batch that produced it
    Index("files_by_age", "project", "created_at", "id"),
    Index("files_by_expiry", "expires_at"),
)

file_faults = Table(
    "file_faults",
    metadata,
    reference("file_id", "files.id", primary_key=True),
    Column("faults", JSON, nullable=False),  # the first 10,000, as LineFault
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String, primary_key=True),
    Column("project", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("private", Boolean, nullable=False, default=False),
    Column("filename", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("mime_type", String, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("expires_after", Integer),  # seconds, of the finished file
    Column("status", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("file_id", String),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("id", String, primary_key=True),
    reference("upload_id", "uploads.id", index=True),
    Column("bytes", BigInteger, nullable=False),
    Column("storage_key", String, nullable=False),
    Column("created_at", Double, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String, primary_key=True),
    Column("project", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("private", Boolean, nullable=False, default=False),
    Column("endpoint", String, nullable=False),
    Column("input_file_id", String, nullable=False),
    Column("completion_window", String, nullable=False),
    Column("window_seconds", Integer, nullable=False),
    Column("metadata", JSON),
    Column("model", String),  # overrides the lines' own
    Column("provider", String),  # forced account or kind
    Column("priority", Integer, nullable=False, default=0),
    Column("extra", JSON),
    Column("policies", JSON),  # the key's and its project's at creation: which models and providers lines may use
    Column("input_tokens", BigInteger, nullable=False, default=0),  # estimated; what a live batch has enqueued
    Column("traceparent", String),  # the caller's trace
    Column("pause", JSON),  # while paused: {"reason", "message"}
    Column("output_expires_after", Integer),  # seconds
    Column("status", String, nullable=False),
    Column("expiring", Boolean, nullable=False, default=False),  # its window closed: jobs are being ended
    Column("errors", JSON),
    Column("total", BigInteger, nullable=False, default=0),
    Column("completed", BigInteger, nullable=False, default=0),  # final counts; live ones are summed over jobs
    Column("failed", BigInteger, nullable=False, default=0),
    Column("segment_seq", BigInteger, nullable=False, default=0),
    Column("output_file_id", String),  # drawn when finalizing begins, so that a repeat writes the same files
    Column("error_file_id", String),
    Column("usage", JSON),
    Column("amount", BigInteger),
    Column("amount_known", Boolean, nullable=False, default=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    *(
        Column(f"{state}_at", Double)
        for state in BatchState
        if state is not BatchState.VALIDATING  # that is created_at
    ),
    Column("tidied_at", Double),  # its segments and what its jobs left elsewhere are deleted
    Column("prepared_at", Double),  # its lines are split into jobs, or found faulty
    Column("not_before", Double, nullable=False, default=0),
    Column("attempts", Integer, nullable=False, default=0),
    words("status", BatchState),
    *(final_has_time(state) for state, after in BATCH_STEPS.items() if not after),
    Index("batches_by_age", "project", "created_at", "id"),
    Index("batches_due", "status", "not_before"),
    Index("batches_by_deadline", "status", "expires_at"),
    Index("batches_by_input", "input_file_id"),
    Index("batches_by_key", "key_id", "status"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String, primary_key=True),
    reference("batch_id", "batches.id"),
    Column("ordinal", Integer, nullable=False),
    Column("token", String, nullable=False, unique=True),
    Column("account", String, nullable=False),
    Column("model", String, nullable=False),  # the provider's name for it
    Column("lane", String, nullable=False),
    Column("models", JSON, nullable=False),  # the names in the lines that belong to this job; [] means every line
    Column("alternatives", JSON),  # routes to try when this one refuses the whole job: [account, model, lane] each
    Column("endpoint", String, nullable=False),
    Column("file_key", String, nullable=False),
    Column("span_start", BigInteger, nullable=False),
    Column("span_end", BigInteger, nullable=False),
    Column("first_line", BigInteger, nullable=False),
    Column("lines", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("window_seconds", Integer, nullable=False),
    Column("deadline", Double, nullable=False),
    Column("priority", Integer, nullable=False, default=0),
    Column("status", String, nullable=False),
    Column("outcome", String),
    Column("remote_id", String),
    Column("remote_status", String),
    Column("results", JSON),  # where the answers are, in the provider's own terms
    Column("code", String),
    Column("message", Text),
    Column("completed", BigInteger, nullable=False, default=0),
    Column("failed", BigInteger, nullable=False, default=0),
    Column("answers_key", String),  # the collected answers, in input order
    Column("usage", JSON),
    Column("amount", BigInteger),
    Column("price", JSON),  # what its tokens were accounted at, so that a later price never changes a line's amount
    *(Column(f"{state}_at", Double) for state in JobState),
    Column("cancel_at", Double),  # set when the provider was asked to stop
    Column("poll_at", Double, nullable=False, default=0),
    Column("not_before", Double, nullable=False, default=0),
    Column("attempts", Integer, nullable=False, default=0),
    words("status", JobState),
    words("outcome", Outcome),
    CheckConstraint(
        "status NOT IN ('ended', 'collected', 'accounted') OR outcome IS NOT NULL", name="ended_has_outcome"
    ),
    CheckConstraint("status <> 'accounted' OR accounted_at IS NOT NULL", name="accounted_has_time"),
    CheckConstraint("status <> 'running' OR remote_id IS NOT NULL", name="running_has_remote_id"),
    UniqueConstraint("batch_id", "ordinal"),
    Index("jobs_due", "status", "not_before"),
    Index("jobs_to_poll", "status", "poll_at"),
    Index("jobs_by_remote_id", "account", "remote_id"),
    Index("jobs_by_route", "account", "model", "ended_at"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("id", String, primary_key=True),
    reference("job_id", "jobs.id"),
    Column("ordinal", Integer, nullable=False),
    Column("account", String, nullable=False),
    Column("deadline", Double, nullable=False),
    Column("priority", Integer, nullable=False, default=0),
    Column("span_start", BigInteger, nullable=False),
    Column("span_end", BigInteger, nullable=False),
    Column("first_line", BigInteger, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("token", Integer, nullable=False, default=0),  # whoever raised it last owns the chunk
    Column("answered", Integer, nullable=False, default=0),
    Column("spent", BigInteger, nullable=False, default=0),  # pico-dollars of its answers, as far as prices are known
    Column("queued_at", Double),
    Column("stop_at", Double),  # set when its job was asked to stop
    Column("done_at", Double),
    Column("not_before", Double, nullable=False, default=0),
    Column("attempts", Integer, nullable=False, default=0),  # runs of it that failed
    UniqueConstraint("job_id", "ordinal"),
    Index("chunks_waiting", "done_at", "queued_at", "account", "deadline"),
    Index("chunks_of_job", "job_id", "done_at", "queued_at", "ordinal"),
)

segments = Table(
    "segments",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("batch_id", String, nullable=False),
    Column("seq", BigInteger, nullable=False),  # in commit order within the batch: the cursor of /results
    Column("job_id", String, nullable=False, index=True),
    Column("chunk_id", String, index=True),
    Column("storage_key", String, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("numbers", LargeBinary),  # the line numbers it holds, packed little-endian u32
    UniqueConstraint("batch_id", "seq"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key_id", String, primary_key=True),
    Column("idempotency_key", String, primary_key=True),
    Column("fingerprint", String, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", Double, nullable=False, index=True),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("expires_at", Double, nullable=False),
)
