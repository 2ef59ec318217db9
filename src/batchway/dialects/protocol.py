"""What a dialect is: two pure functions over JSON bodies, and a table that says what becomes of each parameter.

`to_native` never guesses: a parameter is mapped, ignored for a reason, or refused, as `PARAMS` says; a body that cannot
be expressed raises `Refused`, before anything is sent. `from_native` makes OpenAI's answer of a native one, with usage.

The table is not only prose: `admit` enforces it, so a parameter cannot be refused in the docs and sent by the code.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"


class Fate(StrEnum):
    """What becomes of a parameter."""

    MAPPED = "mapped"
    IGNORED = "ignored"
    REFUSED = "refused"


class Param(NamedTuple):
    """One row of a parameter table: `note` says to what it is mapped, or why it is ignored or refused.

    `harmless` are the values of a refused parameter that ask for nothing, such as `n=1`; null never asks for anything.
    """

    fate: Fate
    note: str
    harmless: tuple[object, ...] = ()


Table = Mapping[str, Param]


def mapped(note: str) -> Param:
    """A row of a parameter that has a native counterpart."""
    return Param(Fate.MAPPED, note)


def ignored(note: str) -> Param:
    """A row of a parameter that is left out, because the answer is the same without it."""
    return Param(Fate.IGNORED, note)


def refused(note: str, *harmless: object) -> Param:
    """A row of a parameter that would be missed in the answer; `harmless` values pass."""
    return Param(Fate.REFUSED, note, harmless)


class Refused(ValueError):
    """A body that the dialect cannot express; `param` names the field as OpenAI's errors do, such as `logit_bias`."""

    def __init__(self, param: str, message: str, code: str = "unsupported_parameter") -> None:
        super().__init__(message)
        self.param = param
        self.message = message
        self.code = code


class Dialect(Protocol):
    """A form of bodies. Endpoints are OpenAI paths such as `/v1/chat/completions`; a module may be a dialect."""

    @property
    def PARAMS(self) -> Mapping[str, Table]:  # noqa: N802 - a constant of the module
        """The table of each endpoint that the dialect can express."""
        ...

    def to_native(self, endpoint: str, body: Mapping[str, Any], model: str) -> dict[str, Any]:
        """The native request body, new, sharing sub-trees with `body`. Refused when it cannot be expressed."""
        ...

    def from_native(
        self, endpoint: str, answer: Mapping[str, Any], body: Mapping[str, Any], model: str
    ) -> dict[str, Any]:
        """OpenAI's answer body for a native one; `body` is the request as the user sent it.

        ValueError when the answer does not have the native form. `created` is 0 where the native answer has no time.
        """
        ...


def table_for(tables: Mapping[str, Table], endpoint: str) -> Table:
    """The parameter table of an endpoint; Refused when the dialect has no such endpoint."""
    table = tables.get(endpoint)
    if table is None:
        raise Refused("url", f"This model cannot be asked through {endpoint}.", "invalid_url")
    return table


def admit(table: Table, body: Mapping[str, Any]) -> None:
    """Refuses a body with a parameter that is unknown, or refused and of effect."""
    for name, value in body.items():
        row = table.get(name)
        if row is None:
            raise unknown_parameter(name, table)
        if row.fate is Fate.REFUSED and value is not None and value not in row.harmless:
            raise Refused(name, f"Unsupported parameter: '{name}': {row.note}.")


def unknown_parameter(name: str, known: Table) -> Refused:
    """OpenAI's answer to a parameter that it does not know, with the nearest name that exists."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return Refused(name, f"Unknown parameter: '{name}'.{hint}", "unknown_parameter")
