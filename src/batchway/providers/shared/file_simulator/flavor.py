"""In what the providers of this shape differ. The defaults are those of the API that the others are made after.

A flavor holds settings and no state: what it needs to remember about a batch it keeps in `Batch.extra`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Scope

from batchway.providers.shared.file_simulator.answers import ENDPOINTS, Json
from batchway.providers.shared.file_simulator.errors import ApiError
from batchway.providers.shared.file_simulator.settings import SimulatorSettings
from batchway.providers.shared.file_simulator.store import Batch, File


class Flavor(ABC):
    """One provider's way. `name` is its word in a gateway's settings, `title` what it calls itself."""

    name: str
    title: str
    roots: tuple[str, ...] = ("/v1",)
    endpoints: tuple[str, ...] = ENDPOINTS  # of batches
    expiry: tuple[int, int] = (3_600, 2_592_000)  # seconds that a client may name
    codes: Mapping[str, str] = {"too_many_tasks": "invalid_request"}  # our words for faults -> the provider's
    line_ids = True  # whether a result line has an `id` of its own
    empty_error_files = False  # whether a completed batch without failures has one
    expires = True  # whether a batch ends with its window
    batch_faults: tuple[str, ...] = ("fail_batch", "token_limit")  # drawn faults that fail a whole batch

    def __init__(self, settings: SimulatorSettings) -> None:
        del settings

    @abstractmethod
    def config(self, settings: SimulatorSettings) -> dict[str, Any]:
        """The provider entry that points a gateway at the simulator."""
        ...

    @abstractmethod
    def url(self, settings: SimulatorSettings) -> str:
        """What a client is pointed at."""
        ...

    def routes(self) -> list[Route]:
        """Routes of its own; they come before those that all share."""
        return []

    def refusal(self, settings: SimulatorSettings, scope: Scope, now: float) -> ApiError | None:
        """Why a request may not come in, by its key; `now` is real unix time."""
        given = header(scope, b"authorization")
        if not given.lower().startswith("bearer ") or not given[7:].strip():
            return ApiError(401, "You didn't provide an API key. You need to provide it in an Authorization header.")
        if settings.api_key is not None and given[7:].strip() != settings.api_key:
            return ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
        return None

    def headers(self, number: int, milliseconds: int) -> list[tuple[bytes, bytes]]:
        """Headers of every answer."""
        return [(b"x-request-id", f"req_{number:032x}".encode())]

    def error(self, scope: Scope, error: ApiError) -> Json:
        """The body of a refusal."""
        return error.body

    def created(self, request: Request) -> int:
        """The status of an answer to an upload or a creation."""
        return 200

    def new_id(self, prefix: str) -> str:
        # Not from the seed: a simulator started afresh must not give an id again that a gateway still remembers.
        return f"{prefix}{uuid4().hex}"

    def file_status(self, settings: SimulatorSettings, file: File, now: float) -> str:
        """How far the provider has come with an upload; `now` is virtual."""
        return "processed"

    def file(self, request: Request, shown: Json) -> Json:
        """The File object as this request gets it."""
        return shown

    def batch(self, scope: Scope, batch: Batch, shown: Json) -> Json:
        """The Batch object as this request gets it."""
        return shown

    def answer(self, endpoint: str, body: Json) -> Json:
        """The body of an answered line or request."""
        return body

    def fault(self, fault: Json) -> Json:
        """An entry of a failed batch's `errors.data`."""
        return {**fault, "code": self.codes.get(fault["code"], fault["code"])}

    def too_many_tokens(self, model: str | None, limit: int) -> str:
        """The message of `token_limit_exceeded`."""
        return (
            f"Enqueued token limit reached for {model} in organization org-simulator. Limit: {limit} enqueued tokens. "
            "Please try again once some in_progress batches have been completed."
        )


def header(scope: Scope, name: bytes) -> str:
    """A request's header, or an empty string."""
    return next((value.decode("latin-1") for each, value in scope["headers"] if each == name), "")
