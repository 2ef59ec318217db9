"""What a dialect is: two pure functions over JSON bodies, and a table that says what becomes of each parameter.

`to_native` never guesses: a parameter is mapped, ignored for a reason, or refused, as `PARAMS` says; a body that cannot
be expressed raises `Refused`, before anything is sent. `from_native` makes OpenAI's answer of a native one, with usage.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Protocol


class Fate(StrEnum):
    """What becomes of a parameter."""

    MAPPED = "mapped"
    IGNORED = "ignored"
    REFUSED = "refused"


class Param(NamedTuple):
    """One row of a parameter table: `note` says to what it is mapped, or why it is ignored or refused."""

    fate: Fate
    note: str


class Refused(ValueError):
    """A body that the dialect cannot express; `param` names the field as OpenAI's errors do, such as `logit_bias`."""

    def __init__(self, param: str, message: str, code: str = "unsupported_parameter") -> None:
        super().__init__(message)
        self.param = param
        self.message = message
        self.code = code


class Dialect(Protocol):
    """A form of bodies. Endpoints are OpenAI paths such as `/v1/chat/completions`."""

    PARAMS: Mapping[str, Mapping[str, Param]]  # endpoint -> parameter -> its fate

    def to_native(self, endpoint: str, body: Mapping[str, Any], model: str) -> Mapping[str, Any]:
        """The native request body. Refused when it cannot be expressed."""
        ...

    def from_native(
        self, endpoint: str, answer: Mapping[str, Any], body: Mapping[str, Any], model: str
    ) -> dict[str, Any]:
        """OpenAI's answer body for a native one; `body` is the request as the user sent it."""
        ...
