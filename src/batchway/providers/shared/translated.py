"""What providers need whose dialect is not OpenAI's: the lines again by number, and answers in OpenAI's line form.

Answers come back in any order, and turning one into OpenAI's form takes the request it answers. So the lines of the job
are kept in a scratch file with 16 bytes of index each: memory is bounded by the provider's limit of lines a job.
"""

from __future__ import annotations

import tempfile
from array import array
from bisect import bisect_left
from types import TracebackType
from typing import Any, Self

import msgspec

from batchway.core.spans import Line
from batchway.dialects.protocol import Refused
from batchway.providers.protocol import Answer
from batchway.wire.lines import InputLine, LineResponse, OutputLine, encode, input_line

IN_MEMORY = 4 << 20  # bytes of lines held before a scratch file is opened


class KeptLines:
    """Lines of one job, added in input order, read by their number."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed by __exit__
        self._numbers = array("q")
        self._starts = array("q")
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, line: Line) -> None:
        self._numbers.append(line.number)
        self._starts.append(self._end)
        self._end += len(line.raw)
        self._file.write(line.raw)

    def get(self, number: int) -> InputLine | None:
        """The line with this number; None when it is not of this job."""
        place = bisect_left(self._numbers, number)
        if place == len(self._numbers) or self._numbers[place] != number:
            return None
        end = self._starts[place + 1] if place + 1 < len(self._starts) else self._end
        self._file.seek(self._starts[place])
        found = input_line.decode(self._file.read(end - self._starts[place]))
        self._file.seek(0, 2)
        return found


def answered(number: int, custom_id: str, body: Any, *, status: int = 200, request_id: str = "") -> Answer:
    """An answer to the line with this number, out of the body that OpenAI would have sent with this status."""
    response = LineResponse(status_code=status, request_id=request_id, body=msgspec.Raw(encode(body)))
    line = OutputLine(id=f"batch_req_{number}", custom_id=custom_id, response=response)
    return Answer(custom_id, line.ok, encode(line))


def failed(number: int, custom_id: str, status: int, code: str, message: str) -> Answer:
    """An error line as OpenAI words it: the request was sent, and answered with this status."""
    kind = "rate_limit_error" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return answered(number, custom_id, {"error": error}, status=status)


def refused(line: Line, why: Refused) -> Answer:
    """The error line of a request that was never sent, because the dialect cannot express it."""
    message = f"{why.message} (line {line.number})"
    error = {"message": message, "type": "invalid_request_error", "param": why.param, "code": why.code}
    return answered(line.number, line.request.custom_id, {"error": error}, status=400)
