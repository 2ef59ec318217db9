"""What a provider is to the pipeline: five calls over jobs. Behaviour of one provider lives in that provider's folder.

A provider is a job API, not a form of bodies (that is a dialect). Every call takes the job as a value, may be repeated,
and raises ProviderError only. The token of a job travels to the provider where it allows one, so that `find` can tell
after a crash whether a submit happened.

A provider's folder holds `provider.py` with

    KIND: str                                   the word for it in batchway.yaml
    class Options(msgspec.Struct, ...)          what an entry may say; unknown fields are refused with the nearest name
    def from_environment(env) -> dict | None    the entry that the provider's usual variables make
    def open_account(name, options, tools) -> Account
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol, runtime_checkable

import msgspec

from batchway.core.jobs import JobSpec, Limits, Look
from batchway.core.spans import Line
from batchway.executor.send import Endpoint
from batchway.http import Http
from batchway.storage import Storage

Source = Callable[[], AsyncIterator[list[Line]]]
"""Opens the job's lines from the start, a window at a time; called again for a repeated upload."""


class Answer(msgspec.Struct, gc=False):
    """One answered line: OpenAI's output line as raw JSON (no newline), whatever the provider's own form was.

    `milliseconds` are those that the endpoint of an executed line was busy with it; native lines have none.
    """

    custom_id: str
    ok: bool
    line: bytes
    milliseconds: int = 0


class Provider(Protocol):
    """A job API."""

    def limits(self, model: str) -> Limits:
        """What one job for this model may hold."""
        ...

    async def submit(self, job: JobSpec, source: Source) -> str:
        """Starts the job at the provider and answers its id there. ProviderError `lost` when the outcome is unknown."""
        ...

    async def find(self, job: JobSpec) -> str | None:
        """The id of the provider's job that carries our token, or None when the provider surely has none."""
        ...

    async def look(self, job: JobSpec) -> Look:
        """The job as it is now. Unknown words of the provider are reported as running, never as an error."""
        ...

    async def cancel(self, job: JobSpec) -> None:
        """Asks the job to stop; one that has ended is left as it is."""
        ...

    def answers(self, job: JobSpec, look: Look, source: Source) -> AsyncIterator[list[Answer]]:
        """Every answer there is, in any order, a window at a time. Lines without one are simply absent.

        `source` opens the job's lines again: for providers that do not echo a line's custom_id, and for lines that were
        never sent because the provider's dialect cannot express them (each is answered by its own error).
        """
        ...

    async def clean(self, job: JobSpec, look: Look) -> None:
        """Deletes what the job left at the provider; absent things are fine."""
        ...


@runtime_checkable
class Adoptable(Provider, Protocol):
    """A provider whose foreign jobs can be taken in."""

    def fetch_input(self, look: Look) -> AsyncIterator[bytes]:
        """The bytes of the job's input file."""
        ...


@dataclass(frozen=True, kw_only=True)
class Account:
    """A configured entry of `providers`: its native lane, its endpoint for executed lines, or both."""

    name: str
    kind: str
    native: Provider | None = None
    endpoint: Endpoint | None = None
    models: tuple[str, ...] = ()  # as configured
    priced_as: Callable[[str], str] = lambda model: model  # the name under which prices know a model of this account
    known: Callable[[str], bool] = lambda _model: False  # whether a bare model name is this provider's
    list_models: Callable[[], Awaitable[list[str]]] | None = None  # asks the provider


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What `open_account` may use."""

    http: Http
    storage: Storage
    clock: Callable[[], float]
    random: Random
