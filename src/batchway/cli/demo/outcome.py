"""What came back, held against what was sent: every line in exactly one of the two files, in input order, joined by id.

It reads the downloaded files as any client would and trusts no count that the gateway told.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchway.cli.demo.prompts import Line

SAMPLES = 8
SHORT = 110


@dataclass(frozen=True)
class Answers:
    """The answered lines by custom_id, and whether the files hold each line once and in order."""

    found: dict[str, Line]
    verdict: str
    complete: bool
    json_asked: int
    json_valid: int


def read_answers(sent: list[Line], files: list[Path]) -> Answers:
    """Joins the output and error file to the lines that were sent."""
    wanted = [line["custom_id"] for line in sent]
    returned = [[line["custom_id"] for line in _lines_of(file)] for file in files]
    times = Counter(custom_id for ids in returned for custom_id in ids)
    lost, twice = [one for one in wanted if not times[one]], [one for one in times if times[one] > 1]
    place = {custom_id: number for number, custom_id in enumerate(wanted)}
    ordered = all(ids == sorted(ids, key=lambda one: place.get(one, -1)) for ids in returned)
    complete = ordered and not lost and not twice and len(times) == len(wanted)
    verdict = f"{len(lost)} lines lost, {len(twice)} twice, {'in' if ordered else 'NOT in'} input order"
    found = {line["custom_id"]: line for file in files for line in _lines_of(file) if _is_answer(line)}
    asked = [line for line in sent if "response_format" in line["body"]]
    valid = sum(_is_json(_text(found[line["custom_id"]])) for line in asked if line["custom_id"] in found)
    return Answers(found, verdict, complete, len(asked), valid)


def read_embeddings(files: list[Path]) -> tuple[int, int]:
    """How many vectors the files hold, and the length of the shortest."""
    vectors = [
        len(entry["embedding"])
        for file in files
        for line in _lines_of(file)
        if _is_answer(line)
        for entry in line["response"]["body"]["data"]
    ]
    return len(vectors), min(vectors, default=0)


def vectors_of(line: Line) -> int:
    """How many vectors an embedding request asks for."""
    text: str | list[str] = line["body"]["input"]
    return 1 if isinstance(text, str) else len(text)


def samples_of(sent: list[Line], found: dict[str, Line]) -> list[dict[str, Any]]:
    """The first answers with their questions; the kinds of request take turns, so these are of different kinds."""
    answered = [line for line in sent if line["custom_id"] in found][:SAMPLES]
    return [_sample(line, found[line["custom_id"]]) for line in answered]


def _sample(line: Line, answer: Line) -> dict[str, Any]:
    usage = answer["response"]["body"]["usage"]
    return {
        "custom_id": line["custom_id"],
        "asked": _short(line["body"]["messages"][-1]["content"]),
        "answered": _short(_text(answer)),
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
    }


def _lines_of(file: Path) -> Iterator[Line]:
    with file.open("rb") as lines:
        yield from (json.loads(line) for line in lines)


def _is_answer(line: Line) -> bool:
    response = line.get("response")
    return response is not None and response["status_code"] == 200


def _text(answer: Line) -> str:
    return str(answer["response"]["body"]["choices"][0]["message"]["content"])


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHORT else f"{flat[: SHORT - 4]} ..."
