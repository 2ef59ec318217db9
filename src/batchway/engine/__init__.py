"""Durable work: a coroutine over an id that, once started, runs to its end though processes come and go.

What it promises:
- `ensure(name, key)` that returned is not forgotten: the body runs until it returns or raises, here or elsewhere.
- Two calls with one key start one run; a key is free again when its run has ended.
- Work of a process that died is taken over within its lease (15 s) and a beat (3 s); with an exclusive lock (the
  embedded database), at the next launch.
- A process that may have been declared dead knows: `alive()` is False from half a lease after its last renewal, and
  becomes True again only when nothing that ran before is running any more.

What it does not promise, and bodies must see to: **a body may run more than once, and for a moment twice at once**
(the frozen one that has not noticed yet, and its successor). So bodies are idempotent, look into the database for what
is done, ask `alive()` before each paid request, and commit results only in statements that check a token of their own
(a chunk's token, a job's status), which the successor has changed. The engine fences its own record: only the run that
holds the last claim can end the work.

A body that raises ends its work as failed; whoever watches over the rows may `ensure` it again. A body that is
cancelled (its loop ends, the engine closes) has not ended: its work goes back into the queue.
"""

from __future__ import annotations

from batchway.engine.run import Engine
from batchway.engine.work import Body

__all__ = ["Body", "Engine"]
