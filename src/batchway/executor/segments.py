"""Where segments lie, and how they are read. Their form is that of `core/answers.py`."""

from __future__ import annotations

from batchway.core.answers import Stored, unpack
from batchway.storage import Storage


def key_of(batch_id: str, job_id: str, name: str) -> str:
    """Where a segment of a job lies."""
    return f"{folder_of(batch_id, job_id)}/{name}.jsonl"


def folder_of(batch_id: str, job_id: str) -> str:
    """The folder of all segments of a job, also of those whose row was never committed."""
    return f"segments/{batch_id}/{job_id}"


async def read_segment(storage: Storage, key: str) -> list[Stored]:
    """The answers of the segment at `key`; StorageMissing when there is none."""
    data = await storage.get(key)
    return [unpack(raw) for raw in data.split(b"\n") if raw]
