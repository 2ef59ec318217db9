"""The lines of a simulated batch: `scan` reads the input file and finds its faults, `write` makes the two result files.

Both run in a thread and hold one line at a time, besides some 100 bytes for each line of the file. Invariant: what
becomes of a line depends only on the seed, the batch's ordinal, the line's number and its body, so the counts shown
while a batch runs are those of the files at its end, also after a restart in between.
"""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from batchway.providers.shared.file_simulator.answers import Json, input_count, refusal, respond
from batchway.providers.shared.file_simulator.errors import ApiError, filtered, status_error
from batchway.providers.shared.simulation import Dice

# What becomes of a line: a number from 400 is the HTTP status it fails with.
ANSWERED, REFUSED, EXPIRES, LOST, ZERO, TWICE, FILTERED = range(7)
_WORDS = {
    "expire": EXPIRES,
    "lost": LOST,
    "zero": ZERO,
    "twice": TWICE,
    "timeout": 408,
    "reset": 503,
    "content_filter": FILTERED,
}
_RANDOM_STATUSES = (400, 429, 500, 503)

FAULTS_LISTED = 1000
EMBEDDING_INPUTS = 50_000
UNFINISHED = {
    "batch_expired": "This request could not be executed before the completion window expired.",
    "batch_cancelled": "This request could not be executed because the batch was cancelled.",
}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a batch's lines are held against. `models` empty accepts any name that does not begin with `no-such-`."""

    batch_id: str
    ordinal: int
    endpoint: str
    dice: Dice
    line_rate: float
    max_requests: int
    models: tuple[str, ...]
    line_ids: bool = True
    decorate: Callable[[str, Json], Json] = lambda _endpoint, body: body

    @property
    def kind(self) -> str:
        """The endpoint as OpenAI spells it: some take it without its version."""
        return self.endpoint if self.endpoint.startswith("/v1/") else f"/v1{self.endpoint}"


@dataclass
class Scan:
    """What is known of an input file: its faults, where each line begins (bytes), what becomes of it, tokens."""

    faults: list[Json] = field(default_factory=list[Json])
    offsets: array[int] = field(default_factory=lambda: array("Q", [0]))
    fates: array[int] = field(default_factory=lambda: array("H"))
    model: str | None = None
    tokens: int = 0

    @property
    def total(self) -> int:
        return len(self.fates)

    def order(self, rules: Rules) -> list[int]:
        """Line indexes in the order they finish, those that never do last."""
        order = list(range(self.total))
        random.Random(f"{rules.dice.seed}:{rules.ordinal}").shuffle(order)  # noqa: S311 - repeatable on purpose
        return sorted(order, key=lambda index: self.fates[index] == EXPIRES)

    def never(self) -> int:
        """Lines that do not finish before the batch expires."""
        return self.fates.count(EXPIRES)


def failing(fate: int) -> bool:
    """Whether a line that ran counts as failed."""
    return fate in (REFUSED, FILTERED) or fate >= 400


@dataclass
class Written:
    """What stands in the files of an ended batch: lines by file, counts and usage."""

    output_lines: int = 0
    error_lines: int = 0
    completed: int = 0
    failed: int = 0
    usage: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("input", "cached", "output", "reasoning"), 0))


def trigger(body: Json) -> str | None:
    """What a test asks this request to suffer: `metadata.simulate`, or a model named `simulate-...`."""
    metadata: Any = body.get("metadata")
    asked = cast("Json", metadata).get("simulate") if isinstance(metadata, dict) else None
    if asked is not None:
        return str(asked)
    model = body.get("model")
    return model.removeprefix("simulate-") if isinstance(model, str) and model.startswith("simulate-") else None


def trigger_fate(word: str) -> int:
    """What becomes of a line with this trigger; a count as in `429x2` matters to the sync endpoints only."""
    word = word.partition("x")[0] if word[:1].isdigit() else word
    if word.isdigit() and 400 <= int(word) <= 599:
        return int(word)
    return _WORDS.get(word, 400)


def supported(model: str, models: tuple[str, ...]) -> bool:
    """Whether a model is known to this simulator."""
    return model in models or model.startswith("simulate-") or (not models and not model.startswith("no-such-"))


def _fate(rules: Rules, number: int, body: Json) -> int:
    word = trigger(body)
    if word is not None:
        return trigger_fate(word)
    if refusal(rules.kind, body) is not None:
        return REFUSED
    if rules.dice.hits(rules.line_rate, "line", rules.ordinal, number):
        return _RANDOM_STATUSES[int(rules.dice.draw("status", rules.ordinal, number) * len(_RANDOM_STATUSES))]
    return ANSWERED


def decoded(line: bytes) -> Json | None:
    """One line as an object, or None when it is not one (a byte order mark makes it none, as at OpenAI)."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return cast("Json", value) if isinstance(value, dict) else None


def scan(path: Path, rules: Rules) -> Scan:
    """Reads an input file once; at most `FAULTS_LISTED` faults are listed."""
    found = Scan()
    seen: set[int] = set()
    inputs = 0
    with path.open("rb") as file:
        for number, raw in enumerate(_lines(file), start=1):
            found.offsets.append(found.offsets[-1] + len(raw))
            found.fates.append(ANSWERED)
            if len(found.faults) >= FAULTS_LISTED or number > rules.max_requests:
                break
            line = decoded(raw)
            if line is None:
                text = "This line is not parseable as valid JSON."
                found.faults.append(line_fault("invalid_json_line", text, None, number))
                continue
            faults = list(_line_faults(line, number, rules, seen)) or list(_model_faults(line, number, rules, found))
            found.faults += faults
            if not faults:
                found.fates[-1] = _fate(rules, number, line["body"])
                inputs += input_count(line["body"].get("input"))
            found.tokens += len(raw) // 4
    _whole_file_faults(found, rules, inputs)
    return found


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines of a file; blank ones at its very end are not lines."""
    blank: list[bytes] = []
    for raw in file:
        if raw.isspace():
            blank.append(raw)
            continue
        yield from blank
        blank.clear()
        yield raw


def line_fault(code: str, message: str, param: str | None = None, line: int | None = None) -> Json:
    """One entry of a failed batch's `errors.data`; `line` counts from 1."""
    return {"code": code, "message": message, "param": param, "line": line}


def _line_faults(line: Json, number: int, rules: Rules, seen: set[int]) -> Iterator[Json]:
    for name in ("custom_id", "method", "url", "body"):
        if line.get(name) in (None, ""):
            yield line_fault("missing_required_parameter", f"Missing required parameter: '{name}'.", name, number)
    custom_id = line.get("custom_id")
    if custom_id and not isinstance(custom_id, str):
        yield line_fault("invalid_type", "Invalid type for 'custom_id': expected a string.", "custom_id", number)
    elif custom_id:
        # 8 bytes an id instead of the id: a file of 50,000 long ids stays small in memory.
        if hash(custom_id) in seen:
            text = (
                f"The custom_id '{custom_id}' for this request is a duplicate of another request. "
                "The custom_id parameter must be unique for each request in a batch."
            )
            yield line_fault("duplicate_custom_id", text, "custom_id", number)
        seen.add(hash(custom_id))
    if line.get("method") not in (None, "", "POST"):
        yield line_fault("invalid_method", "Invalid value for 'method': only 'POST' is supported.", "method", number)
    if line.get("url") not in (None, "", rules.endpoint):
        text = "The URL provided for this request does not match the batch endpoint."
        yield line_fault("invalid_url", text, "url", number)
    body = line.get("body")
    if body not in (None, "") and not isinstance(body, dict):
        yield line_fault("invalid_type", "Invalid type for 'body': expected an object.", "body", number)


def _model_faults(line: Json, number: int, rules: Rules, found: Scan) -> Iterator[Json]:
    body: Json = line["body"]
    model = body.get("model")
    if not isinstance(model, str) or not model:
        yield line_fault("invalid_request", "Model parameter is required.", "body.model", number)
    elif not supported(model, rules.models):
        text = f"The provided model '{model}' is not supported by the Batch API."
        yield line_fault("model_not_found", text, "body.model", number)
    elif model != (found.model or model):
        text = f"The model '{model}' differs from '{found.model}': a batch may only contain requests to one model."
        yield line_fault("mismatched_model", text, "body.model", number)
    else:
        found.model = model
    if rules.kind == "/v1/chat/completions":
        if "messages" not in body:
            yield line_fault("invalid_request", "Messages parameter is required.", "body.messages", number)
        if body.get("stream"):
            text = "Chat Completions: Streaming is not supported in the Batch API."
            yield line_fault("streaming_unsupported", text, "body.stream", number)
    elif body.get("stream"):
        yield line_fault("streaming_unsupported", "Streaming is not supported in the Batch API.", "body.stream", number)


def _whole_file_faults(found: Scan, rules: Rules, inputs: int) -> None:
    if found.total == 0:
        found.faults.append(line_fault("empty_file", "The batch input file is empty."))
    if found.total > rules.max_requests:
        text = f"The batch input file contains more than {rules.max_requests} requests."
        found.faults.append(line_fault("too_many_tasks", text))
    if rules.kind == "/v1/embeddings" and inputs > EMBEDDING_INPUTS:
        text = f"The batch input file contains more than {EMBEDDING_INPUTS} embedding inputs."
        found.faults.append(line_fault("invalid_request", text))


@dataclass(frozen=True, kw_only=True)
class Order:
    """Which files to write: the first `done` lines to finish have run, `rest` is the code of the others or None."""

    source: Path
    output: Path
    errors: Path
    done: int
    rest: str | None
    now: float


def write(order: Order, rules: Rules) -> Written:
    """Writes the result files, lines in the order they finished, and counts what stands in them."""
    found = scan(order.source, rules)
    written = Written()
    source = os.open(order.source, os.O_RDONLY)
    try:
        with order.output.open("wb", 1 << 20) as output, order.errors.open("wb", 1 << 20) as errors:
            for place, index in enumerate(found.order(rules)):
                start = found.offsets[index]
                line = decoded(os.pread(source, found.offsets[index + 1] - start, start)) or {}
                result = _ran(line, index, found, order, rules) if place < order.done else _unfinished(order)
                for answered, encoded in _encoded(line, index, result, rules, found.fates[index]):
                    (output if answered else errors).write(encoded)
                    written.output_lines += answered
                    written.error_lines += not answered
                if place < order.done:
                    _count(written, result)
    finally:
        os.close(source)
    return written


def _ran(line: Json, index: int, found: Scan, order: Order, rules: Rules) -> Json:
    """`response` and `error` of a line that ran."""
    fate = found.fates[index]
    body: Json = line["body"]
    try:
        refused = status_error(fate) if fate >= 400 else filtered() if fate == FILTERED else refusal(rules.kind, body)
        if refused is not None:
            raise refused
        answer = rules.decorate(rules.kind, respond(rules.kind, body, rules.dice, order.now))
        status = 0 if fate == ZERO else 200
    except ApiError as error:
        status, answer = error.status, error.body
    except (KeyError, TypeError, ValueError, AttributeError):
        status, answer = 400, status_error(400).body  # a shape the answers did not expect is the client's fault
    return {
        "response": {"status_code": status, "request_id": f"{rules.ordinal:08x}{index:08x}", "body": answer},
        "error": None,
    }


def _unfinished(order: Order) -> Json | None:
    if order.rest is None:
        return None
    return {"response": None, "error": {"code": order.rest, "message": UNFINISHED[order.rest]}}


def _encoded(line: Json, index: int, result: Json | None, rules: Rules, fate: int) -> Iterator[tuple[bool, bytes]]:
    """The line of one result and whether it goes to the output file; none, or two, where the line asked for that."""
    if result is None or (fate == LOST and result["response"]):
        return
    named: Json = {"id": f"batch_req_{rules.batch_id[-8:]}{index:08x}"} if rules.line_ids else {}
    encoded = msgspec.json.encode({**named, "custom_id": line.get("custom_id"), **result}) + b"\n"
    response = result["response"]
    answered = response is not None and response["status_code"] < 400
    for _ in range(2 if fate == TWICE and answered else 1):
        yield answered, encoded


def _count(written: Written, result: Json | None) -> None:
    response: Json = (result or {}).get("response") or {}
    if response.get("status_code", 500) >= 400:
        written.failed += 1
        return
    written.completed += 1
    usage: Json = response["body"].get("usage", {})
    inputs: Json = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    outputs: Json = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    written.usage["input"] += usage.get("prompt_tokens", 0) or usage.get("input_tokens", 0)
    written.usage["output"] += usage.get("completion_tokens", 0) or usage.get("output_tokens", 0)
    written.usage["cached"] += inputs.get("cached_tokens", 0)
    written.usage["reasoning"] += outputs.get("reasoning_tokens", 0)
