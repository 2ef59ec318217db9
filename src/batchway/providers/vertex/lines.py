"""The lines of a job on their way out as rows, and the rows on their way back as answers; memory stays flat.

Out: each line becomes one row, or several (embeddings), or none when the dialect refuses it. Back: a row is joined with
its line, which is kept in a scratch file; the rows of one line are held in another until they are complete.
A row that fails fails its line, and no other.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import IO, Any

import msgspec

from batchway.core.errors import Fault, ProviderError
from batchway.core.jobs import JobSpec, Limits
from batchway.core.spans import Line
from batchway.core.textlines import lines
from batchway.dialects.protocol import Refused
from batchway.providers.protocol import Answer, Source
from batchway.providers.shared.translated import IN_MEMORY, KeptLines, answered, failed, refused
from batchway.providers.vertex import rows
from batchway.providers.vertex.families import Family, Sent, family
from batchway.wire.lines import InputLine

log = logging.getLogger(__name__)

MAX_ROWS = 1_000_000  # of embeddings a job, as Vertex says; other families have one row a line
LONGEST_ROW = 256 << 20
AT_ONCE = 64  # lines translated before other work of the event loop has its turn

Outputs = Callable[[], AsyncIterator[AsyncIterator[bytes]]]

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def family_of(job: JobSpec) -> Family:
    """The family of the job's model; ProviderError when there is none."""
    found = family(job.route.model)
    if found is None:
        raise ProviderError(f"no known form of rows for {job.route.model}", fault=Fault.REJECTED, code="invalid_model")
    return found


async def sendable(job: JobSpec, source: Source, limits: Limits) -> AsyncIterator[bytes]:
    """The rows of every line that can be sent, a few at a time; ProviderError when they outgrow the job's limits."""
    model = family_of(job)
    count = size = 0
    async for window in source():
        for first in range(0, len(window), AT_ONCE):
            sent = [row for line in window[first : first + AT_ONCE] for _, _, row in _translated(model, job, line)]
            if sent:
                data = b"\n".join(sent) + b"\n"
                count, size = count + len(sent), size + len(data)
                _check(count, size, limits)
                yield data
            await asyncio.sleep(0)


def _check(count: int, size: int, limits: Limits) -> None:
    allowed = max(MAX_ROWS, limits.lines)
    if count > allowed or size > limits.bytes:
        message = f"the translated lines are more than a job may hold ({allowed} rows, {limits.bytes} bytes)"
        raise ProviderError(message, fault=Fault.REJECTED, code="job_too_large")


def _translated(model: Family, job: JobSpec, line: Line) -> list[Sent]:
    try:
        return model.to_rows(line.number, job.endpoint, _decode(line.request.body), job.route.model)
    except Refused:
        return []


async def answers(job: JobSpec, source: Source, outputs: Outputs) -> AsyncIterator[list[Answer]]:
    """First an error for each line that was never sent, then an answer for each line whose rows are complete."""
    with KeptLines() as kept, tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as scratch:
        async for window in source():
            if found := [error for error in [_keep(job, line, kept) for line in window] if error]:
                yield found
            await asyncio.sleep(0)
        back = _Back(job, kept, scratch)
        async for output in outputs():
            async for window in lines(output, limit=LONGEST_ROW):
                for first in range(0, len(window), AT_ONCE):
                    read = [rows.read(raw) for raw in window[first : first + AT_ONCE] if raw.strip()]
                    if back.echoes is None and any(row.place is None for row in read):
                        back.echoes = await _echoes(job, source)
                    if answers := [answer for answer in map(back.take, read) if answer]:
                        yield answers
                    await asyncio.sleep(0)
        back.finish()


def _keep(job: JobSpec, line: Line, kept: KeptLines) -> Answer | None:
    """Keeps a line for its answer, or answers at once that it was refused."""
    try:
        family_of(job).to_rows(line.number, job.endpoint, _decode(line.request.body), job.route.model)
    except Refused as why:
        return refused(line, why)
    kept.add(line)
    return None


async def _echoes(job: JobSpec, source: Source) -> rows.Echoes:
    """What was sent for each place: made only when some row does not say where it belongs."""
    log.warning("%s: rows without the names that were sent are matched by their requests", job.id)
    found, model = rows.Echoes(), family_of(job)
    async for window in source():
        for line in window:
            found.add((place, request) for place, request, _ in _translated(model, job, line))
        await asyncio.sleep(0)
    return found


class _Back:
    """Rows in any order in, answers out; `echoes` is set when rows have to be matched by what they echo."""

    def __init__(self, job: JobSpec, kept: KeptLines, scratch: IO[bytes]) -> None:
        self.echoes: rows.Echoes | None = None
        self._job = job
        self._family = family_of(job)
        self._kept = kept
        self._scratch = scratch
        self._parts: dict[int, dict[int, tuple[int, int]]] = {}  # number -> part -> place in the scratch file
        self._failed: set[int] = set()
        self._strays = 0

    def take(self, row: rows.Row) -> Answer | None:
        """The answer that this row completes."""
        place = row.place or (self.echoes.take(row.echo) if self.echoes else None)
        line = self._kept.get(place.number) if place else None
        if place is None or line is None:
            self._strays += 1
            return None
        if place.number in self._failed:
            return None  # another row of a line that has failed
        if row.failure is not None:
            self._failed.add(place.number)
            status, name, message = row.failure
            self._parts.pop(place.number, None)
            return failed(place.number, line.custom_id, status, name.lower(), message)
        body = _decode(line.body)
        needed = self._family.row_count(body)
        responses = [row.response] if needed == 1 else self._joined(place, row.response, needed)
        return self._answer(place.number, line, body, responses) if responses else None

    def finish(self) -> None:
        """Tells what belonged nowhere; lines of which rows are missing have no answer."""
        if self._strays:
            log.warning("%s: %d rows belong to no line of this job", self._job.id, self._strays)

    def _joined(self, place: rows.Place, response: dict[str, Any], needed: int) -> list[dict[str, Any]] | None:
        """All answers of a line once the last has come."""
        parts = self._parts.setdefault(place.number, {})
        start = self._scratch.seek(0, 2)
        parts[place.part] = (start, self._scratch.write(msgspec.json.encode(response)))
        if len(parts) < needed:
            return None
        del self._parts[place.number]
        return [self._read(*parts[part]) for part in sorted(parts)]

    def _read(self, start: int, length: int) -> dict[str, Any]:
        self._scratch.seek(start)
        return _decode(self._scratch.read(length))

    def _answer(self, number: int, line: InputLine, body: dict[str, Any], responses: list[dict[str, Any]]) -> Answer:
        try:
            said = self._family.from_rows(self._job.endpoint, responses, body, self._job.route.model)
        except (LookupError, TypeError, ValueError, AttributeError):
            log.exception("%s: an answer of %s has a form that is not known", self._job.id, self._job.route.model)
            return failed(number, line.custom_id, 500, "unreadable_answer", "The provider's answer is unreadable.")
        request_id = responses[0].get("responseId") or responses[0].get("id") or ""
        return answered(number, line.custom_id, said, request_id=str(request_id))
