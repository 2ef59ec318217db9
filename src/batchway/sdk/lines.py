"""What `run` takes, as a JSONL source: a path stays what it is, everything else is written down line by line.

The source can be read again, for a retried upload. Memory is bounded: lines beyond a
few MiB go to a temporary file.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import msgspec

from batchway.sdk.errors import BadRequestError
from batchway.sdk.upload import Source, source

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
IN_MEMORY = 8 << 20

Lines: TypeAlias = "str | os.PathLike[str] | IO[bytes] | Iterable[str | Mapping[str, Any]]"


class _Named(msgspec.Struct):
    url: str = ""


_named = msgspec.json.Decoder(_Named).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Input:
    """The lines as a file to upload, and their endpoint."""

    source: Source
    endpoint: str


def prepared(given: Lines, model: str | None, endpoint: str | None) -> Input:
    """The input; BadRequestError when it cannot be one. Its endpoint is the first line's when none is given."""
    if isinstance(given, str | os.PathLike):
        found = _path(Path(cast("str", given)))
    elif hasattr(given, "read"):
        opened = source(given)  # copied: a retried upload reads it again
        found = _spooled(opened.pieces(), opened.filename)
    elif isinstance(given, Mapping | bytes):
        raise BadRequestError("Expected a path, a file, or a list of prompts, bodies or lines.", param="source")
    else:
        return _written(cast("Iterable[str | Mapping[str, Any]]", given), model, endpoint)
    first = next(_lines_of(found), None)
    if first is None:
        raise BadRequestError(f"{found.filename} has no lines.", param="source")
    try:
        url = _named(first).url
    except msgspec.DecodeError as error:
        raise BadRequestError(f"{found.filename}, line 1: {error}", param="source") from None
    return Input(found, endpoint or url or CHAT)


def _path(path: Path) -> Source:
    if not path.is_file():
        raise BadRequestError(f"There is no file {path}. For a single prompt, pass a list of one.", param="source")
    return source(path)


def _written(given: Iterable[str | Mapping[str, Any]], model: str | None, endpoint: str | None) -> Input:
    entries = iter(given)
    first = next(entries, None)
    if first is None:
        raise BadRequestError("There are no lines.", param="source")
    chosen = endpoint or _endpoint_of(first)

    def written() -> Iterator[bytes]:
        yield _line(1, first, model, chosen)
        for number, entry in enumerate(entries, 2):
            yield _line(number, entry, model, chosen)

    return Input(_spooled(written(), "run.jsonl"), chosen)


def _spooled(pieces: Iterable[bytes], filename: str) -> Source:
    """The pieces in a temporary file, which lives as long as the source."""
    spool = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - see the docstring
    try:
        spool.writelines(pieces)
    except BaseException:
        spool.close()
        raise
    spool.seek(0)
    found = source(spool, filename)
    weakref.finalize(found.pieces, spool.close)
    return found


def _endpoint_of(entry: str | Mapping[str, Any]) -> str:
    if isinstance(entry, str) or "messages" in entry:
        return CHAT
    if "url" in entry:
        return str(entry["url"])
    if "prompt" in entry:
        return COMPLETIONS
    message = "The endpoint cannot be told from the first line: pass endpoint='/v1/embeddings' or another one."
    raise BadRequestError(message, param="endpoint")


def _line(number: int, entry: object, model: str | None, endpoint: str) -> bytes:
    """One input line: a prompt, a body, or a whole line, which has a custom_id."""
    if isinstance(entry, str):
        line = _wrapped(number, _body_of(entry, endpoint), model, endpoint)
    elif not isinstance(entry, Mapping):
        message = f"Line {number}: expected a text or a mapping, got {type(entry).__name__}."
        raise BadRequestError(message, param="source")
    elif "custom_id" in entry:
        whole = cast("Mapping[str, Any]", entry)
        line = {"method": "POST", "url": endpoint, **whole}
    else:
        line = _wrapped(number, dict(cast("Mapping[str, Any]", entry)), model, endpoint)
    try:
        return _encode(line) + b"\n"
    except (TypeError, UnicodeEncodeError, OverflowError) as error:
        raise BadRequestError(f"Line {number} is not JSON: {error}", param="source") from None


def _wrapped(number: int, body: dict[str, Any], model: str | None, endpoint: str) -> dict[str, Any]:
    if model is not None:
        body.setdefault("model", model)
    if "model" not in body:
        raise BadRequestError(f"Line {number} names no model: pass model=.", param="model")
    return {"custom_id": f"line-{number}", "method": "POST", "url": endpoint, "body": body}


def _body_of(prompt: str, endpoint: str) -> dict[str, Any]:
    if endpoint in (EMBEDDINGS, RESPONSES):
        return {"input": prompt}
    if endpoint == COMPLETIONS:
        return {"prompt": prompt}
    return {"messages": [{"role": "user", "content": prompt}]}


def _lines_of(found: Source) -> Iterator[bytes]:
    """The lines that are not blank; memory holds one of them and one piece."""
    held: list[bytes] = []
    for piece in found.pieces():
        *ended, rest = piece.split(b"\n")
        for line in ended:
            held.append(line)
            if text := b"".join(held).strip():
                yield text
            held.clear()
        held.append(rest)
    if text := b"".join(held).strip():
        yield text
