"""The collected answers of a job, in input order: written by collect, read by account, finalize and results.

Not a stage. The form is that of `core/answers.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from batchway.core.answers import Stored, unpack
from batchway.core.textlines import lines
from batchway.storage import Storage

MAX_ANSWER_BYTES = 256 << 20
WINDOW = 1 << 18  # bytes read at a time: a few milliseconds of the event loop


async def read_answers(storage: Storage, key: str) -> AsyncIterator[list[Stored]]:
    """The answers of one stored object, a window at a time."""
    async for window in lines(storage.read(key, chunk=WINDOW), limit=MAX_ANSWER_BYTES):
        yield [unpack(raw) for raw in window]
