"""One answered line: its text, embedding, usage, amount or error, whatever the endpoint and the provider."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, cast

import msgspec

from batchway.sdk.objects import Object


@dataclass(frozen=True, slots=True)
class LineFailure:
    """Why a line has no answer; `status_code` is None when it was never executed."""

    code: str | None
    message: str
    status_code: int | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.code else self.message


class Result:
    """A line of the output or error file; `line` is all of it, as the gateway gave it."""

    def __init__(self, line: Mapping[str, Any]) -> None:
        self.line = dict(line)

    @property
    def custom_id(self) -> str:
        """The name that the input line gave itself."""
        return str(self.line.get("custom_id", ""))

    @property
    def cursor(self) -> str | None:
        """Where to go on with `batch_results(after=...)`; None for a line that was read from a file."""
        return self.line.get("cursor")

    @property
    def status_code(self) -> int | None:
        """The HTTP status of the answer, None when there was none."""
        response: Mapping[str, Any] | None = self.line.get("response")
        return None if response is None else response.get("status_code")

    @property
    def body(self) -> dict[str, Any] | None:
        """The answer's body as plain dicts, also when it tells of an error."""
        response: Mapping[str, Any] | None = self.line.get("response")
        body: object = None if response is None else response.get("body")
        return cast("dict[str, Any]", body) if isinstance(body, dict) else None

    @property
    def ok(self) -> bool:
        """Whether the line was answered: no error, and a status in 200..299."""
        return self.line.get("error") is None and 200 <= (self.status_code or 0) < 300

    @cached_property
    def text(self) -> str | None:
        """The first choice's text; None for other answers, such as an embedding or a call of a tool."""
        body = self.body if self.ok else None
        if body is None:
            return None
        if choices := body.get("choices"):
            first = cast("dict[str, Any]", choices[0])
            message = cast("dict[str, Any]", first.get("message") or first)
            found = message.get("content", message.get("text"))
            return found if isinstance(found, str) else None
        return _output_text(body)

    @cached_property
    def embedding(self) -> list[float] | None:
        """The first embedding; `body["data"]` has all when the line asked for several."""
        data = (self.body or {}).get("data") if self.ok else None
        found: object = cast("dict[str, Any]", data[0]).get("embedding") if data else None
        if isinstance(found, str):  # `encoding_format: base64`: little-endian 32-bit floats
            return list(array("f", base64.b64decode(found)))
        return cast("list[float] | None", found)

    @property
    def usage(self) -> Object | None:
        """The LLM tokens of the answer, by the endpoint's own names."""
        usage: object = (self.body or {}).get("usage")
        return Object(cast("dict[str, Any]", usage)) if isinstance(usage, dict) else None

    @property
    def cost(self) -> Decimal | None:
        """US dollars; None where the gateway tells no amount for single lines, or knows no price."""
        amount: str | None = self.line.get("amount_usd")
        return None if amount is None else Decimal(amount)

    @property
    def error(self) -> LineFailure | None:
        """None for an answered line."""
        if self.ok:
            return None
        told: Mapping[str, Any] = self.line.get("error") or (self.body or {}).get("error") or {}
        status = self.status_code
        message = told.get("message") or f"The provider answered with status {status}."
        return LineFailure(told.get("code"), message, status)

    def to_dict(self) -> dict[str, Any]:
        """The whole line."""
        return self.line

    model_dump = to_dict

    def to_json(self) -> str:
        """The whole line as JSON, without a newline."""
        return msgspec.json.encode(self.line).decode()

    def __repr__(self) -> str:
        told = f"error={str(self.error)!r}" if self.error else f"text={self.text!r}"
        return f"Result(custom_id={self.custom_id!r}, {told})"


def _output_text(body: Mapping[str, Any]) -> str | None:
    """The text of a Responses answer: all `output_text` parts of its messages."""
    messages: list[dict[str, Any]] = [item for item in body.get("output") or () if item.get("type") == "message"]
    parts: list[dict[str, Any]] = [part for message in messages for part in message.get("content") or ()]
    texts: list[str] = [part["text"] for part in parts if part.get("type") == "output_text"]
    return "".join(texts) if texts else None
