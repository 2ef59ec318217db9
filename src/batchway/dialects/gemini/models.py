"""What a model's name says about how it thinks. Names are read tolerantly: `publishers/google/models/gemini-2.5-pro`.

Budgets for low, medium and high effort (1,024, 8,192 and 24,576 tokens) are those that Google is quoted with for its
own OpenAI endpoint; they, the least and the most a 2.5 model takes were not checked on a live account (November 2026).
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

from batchway.dialects.protocol import Refused

_NAME = re.compile(r"gemini-(\d+)(?:\.(\d+))?-?([a-z-]*)")

LEVELS = {"low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH", "max": "XHIGH"}
BUDGETS = {"low": 1024, "medium": 8192, "high": 24576}


class Model(NamedTuple):
    """Generation such as (2, 5), (0, 0) when the name does not tell; `family` such as `flash-lite`."""

    generation: tuple[int, int]
    family: str


@functools.lru_cache(maxsize=1024)
def model_of(name: str) -> Model:
    """What is known of a model by its name."""
    found = _NAME.search(name)
    if not found:
        return Model((0, 0), "")
    return Model((int(found[1]), int(found[2] or 0)), found[3])


def thinking(name: str, effort: str) -> dict[str, Any] | None:
    """The `thinkingConfig` of an effort, None when there is nothing to say."""
    model = model_of(name)
    if model.generation >= (3, 0):
        least = "LOW" if model.family.startswith("pro") else "MINIMAL"  # Pro refuses MINIMAL, and none thinks nothing
        return {"thinkingLevel": LEVELS.get(effort, least)}
    if model.generation >= (2, 5):
        return {"thinkingBudget": budget(model.family, effort)}
    if effort == "none":
        return None
    why = "its generation is not known by its name" if model.generation == (0, 0) else "it does not think"
    raise Refused("reasoning_effort", f"Unsupported parameter: 'reasoning_effort' with this model: {why}.")


def budget(family: str, effort: str) -> int:
    """The thinking tokens of a 2.5 model."""
    if effort in BUDGETS:
        return BUDGETS[effort]
    pro, lite = family.startswith("pro"), family.startswith("flash-lite")
    if effort == "none":
        return 128 if pro else 0  # Pro cannot do without
    if effort == "minimal":
        return 128 if pro else 512 if lite else 1
    return 32768 if pro else 24576
