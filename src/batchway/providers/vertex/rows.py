"""Output rows of a Vertex job, read whatever their family, and the ways back from a row to its input line; pure.

A row names its line by what its family carries through: `key` (embeddings), `custom_id` (Claude), a label of the echoed
request (Gemini). A row that carries nothing is matched by the request it echoes, which may have come back normalised:
keys in another order, defaults dropped, numbers as 32-bit floats.
Source: cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini, read November 2026.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple, cast

import msgspec

from batchway.providers.vertex import statuses

LABEL = "batchway_line"  # on each Gemini request: lower-case letters, digits, _ and - only


class Place(NamedTuple):
    """A line's number, and which of its rows (a line of N embedding inputs is N rows)."""

    number: int
    part: int = 0


class Row(NamedTuple):
    """One output row: where it belongs, or None; the request it echoes; what came of it."""

    place: Place | None
    echo: msgspec.Raw
    failure: statuses.Failure | None
    response: dict[str, Any]


NOTHING = msgspec.Raw()
UNREADABLE = statuses.Failure(500, "INTERNAL", "The provider's row for this request is unreadable.")


class _Row(msgspec.Struct):
    status: Any = None
    key: Any = None
    custom_id: Any = None
    request: msgspec.Raw = NOTHING
    instance: msgspec.Raw = NOTHING
    response: Any = None
    predictions: Any = None


class _Labelled(msgspec.Struct):
    labels: dict[str, Any] | None = None


NOTHINGS: tuple[object, ...] = (None, "", [], {})
DEFAULTS: tuple[object, ...] = (*NOTHINGS, 0, 1)  # 0 and 1 are also false and true

_row = msgspec.json.Decoder(_Row)
_labelled = msgspec.json.Decoder(_Labelled)
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def read(raw: bytes) -> Row:
    """The row in this line. One that is no row belongs nowhere."""
    try:
        row = _row.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Row(None, NOTHING, UNREADABLE, {})
    echo = row.request if row.request != NOTHING else row.instance
    place = _named(row.key) or _named(row.custom_id) or _named(_label(row.request))
    response = cast("dict[str, Any]", row.response if isinstance(row.response, dict) else {})
    if row.predictions:  # the older embedding models
        response = {"predictions": row.predictions}
    status = row.status if isinstance(row.status, str) else "" if row.status is None else str(row.status)
    failure = statuses.of_text(status) if status.strip() else None
    if failure is None and not response:
        failure = statuses.Failure(500, "INTERNAL", "The provider gave neither an answer nor a reason.")
    return Row(place, echo, failure, response)


def named(place: Place) -> str:
    """The name that a row carries: `17`, and `17#2` for the third input of an embeddings line."""
    return f"{place.number}#{place.part}"


def _named(name: object) -> Place | None:
    if not isinstance(name, str):
        return None
    number, _, part = name.partition("#")
    if not (number.isascii() and number.isdigit() and (not part or (part.isascii() and part.isdigit()))):
        return None
    return Place(int(number), int(part or 0))


def _label(request: msgspec.Raw) -> object:
    if not bytes(request).startswith(b"{"):  # absent, or an echo in another form, such as a string
        return None
    try:
        labels = _labelled.decode(request).labels
    except msgspec.ValidationError:
        return None
    return (labels or {}).get(LABEL)


class Echoes:
    """The places of a job by what was sent for them, for rows that name none.

    A request is first looked for as it was sent, then without what may be a default. Of equal requests any will do.
    """

    def __init__(self) -> None:
        self._places: defaultdict[bytes, deque[Place]] = defaultdict(deque)
        self._taken: set[Place] = set()

    def add(self, places: Iterable[tuple[Place, Mapping[str, Any]]]) -> None:
        for place, request in places:
            for digest in _digests(request):
                self._places[digest].append(place)

    def take(self, echo: msgspec.Raw) -> Place | None:
        """The next place with this request."""
        request: object = msgspec.json.decode(echo) if bytes(echo) else None
        if not isinstance(request, dict):
            return None
        for digest in _digests(cast("dict[str, Any]", request)):
            waiting = self._places.get(digest, ())
            while waiting:
                place = waiting.popleft()
                if place not in self._taken:
                    self._taken.add(place)
                    return place
        return None


def _digests(request: Mapping[str, Any]) -> tuple[bytes, bytes]:
    plain = {name: value for name, value in request.items() if name != "labels"}
    exact, coarse = (_encode_sorted(_normal(plain, dropped)) for dropped in (NOTHINGS, DEFAULTS))
    return blake2b(exact, digest_size=16).digest(), blake2b(coarse, digest_size=16, person=b"coarse").digest()


def _normal(value: Any, dropped: tuple[object, ...]) -> Any:
    """The value as any echo of it would be: without `dropped`, and without the last digits of numbers."""
    if isinstance(value, dict):
        table = {name: _normal(inner, dropped) for name, inner in cast("dict[str, Any]", value).items()}
        return {name: inner for name, inner in table.items() if inner not in dropped}
    if isinstance(value, list):
        return [_normal(inner, dropped) for inner in cast("list[Any]", value)]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(f"{value:.6g}")
    return value
