"""Our batch engine for endpoints without one: the lines of a job become single requests, and their answers segments.

- `chunks` plans: a job becomes chunks of at most 256 lines, the durable unit of work.
- `dispatcher` keeps the engine supplied with a few chunks, and hears of stops asked for in other processes.
- `run` carries one chunk out; `segments` is the form its answers are stored in.
- `limits` holds an account's requests in flight, shared by all its chunks; `send` is one attempt; `retry` says which
  attempts are repeated.
- `service` puts them together: `Executor`.

What holds: each line of a job has at most one stored answer, whoever runs its chunk and however often; a line with a
stored answer is never sent again; so what may be paid twice is what was in flight or not yet stored at a crash. A line
that fails takes no neighbour along. A line never sent has no answer.
"""

from __future__ import annotations

from batchway.executor.send import Endpoint
from batchway.executor.service import Executor
from batchway.executor.tuning import Tuning

__all__ = ["Endpoint", "Executor", "Tuning"]
