"""What a model's name says: its generation, and so its limits and how it thinks.

Names come in many dresses (`claude-haiku-4-5@20251001`, `claude-3-5-sonnet`, `publishers/anthropic/models/...`). Of a
name that does not tell, nothing is assumed but the least. Facts: Anthropic's model pages and SDK 2.12, November 2026.
"""

from __future__ import annotations

import functools
import re

_NEW = re.compile(r"claude-[a-z]+-(\d{1,2})(?:-(\d{1,2}))?(?!\d)")  # claude-opus-4-5, claude-sonnet-5
_OLD = re.compile(r"claude-(\d)(?:[-.](\d))?(?!\d)")  # claude-3-5-sonnet

UNKNOWN = (0, 0)

# The tokens to answer with when the request sets no limit, which OpenAI allows and Anthropic does not: what every
# model of the generation takes. It is no more than a limit: only what is answered is paid.
DEFAULT_MAX_TOKENS = 4096
DEFAULT_MAX_TOKENS_FROM_4 = 32000

# Thinking tokens of the models that are told a number (3.7 to 4.5); 1,024 is the least they take.
BUDGETS = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}
LEAST_BUDGET = 1024


@functools.lru_cache(maxsize=1024)
def generation(model: str) -> tuple[int, int]:
    """The generation of a model, such as (4, 5)."""
    found = _NEW.search(model) or _OLD.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else UNKNOWN


def default_max_tokens(model: str) -> int:
    """The limit for a request without one."""
    return DEFAULT_MAX_TOKENS_FROM_4 if generation(model) >= (4, 0) else DEFAULT_MAX_TOKENS


def thinks_adaptively(model: str) -> bool:
    """Whether the model is told an effort, not a number of tokens."""
    return generation(model) >= (4, 6)


def thinks(model: str) -> bool:
    """Whether the model thinks at all."""
    return generation(model) >= (3, 7)


def takes_sampling(model: str) -> bool:
    """Whether the model takes a temperature: none after 4.6 does."""
    return generation(model) <= (4, 6)


def takes_schema(model: str) -> bool:
    """Whether the model answers by a schema."""
    return generation(model) >= (4, 5) or generation(model) == UNKNOWN
