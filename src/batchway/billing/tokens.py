"""The tokens of requests counted by the model's own tokenizer, where that is public and the extra `tokens` is there.

Texts are counted exactly; what frames them, and pictures, sound and documents, with the declared figures of
`core/tokenguess.py`. The invariant: a model whose tokenizer is not known for sure has none here, and is guessed for.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from batchway.core.tokenguess import Parts, guess_text

PIECE = 50_000  # characters counted at a time: the package takes no more than 200,000 tokens
MODELS = (  # as tiktoken 0.14 maps them, and gpt-oss, whose vocabulary is that of o200k with more special tokens
    ("o200k_base", r"gpt-4o|gpt-4\.1|gpt-4\.5|gpt-5|gpt-5\.\d|chatgpt-4o|gpt-oss|o1|o3|o4-mini"),
    ("cl100k_base", r"gpt-4|gpt-3\.5-turbo|gpt-35-turbo|text-embedding-ada|text-embedding-3|davinci-002|babbage-002"),
)
KNOWN = [(encoding, re.compile(rf"(?:ft:)?(?:{names})(?:[-:@].*)?")) for encoding, names in MODELS]

Counter = Callable[[Parts], int]


def counter(model: str) -> Counter | None:
    """What counts the tokens of a request to this model (its own name, of whichever account); None when nothing can."""
    name = model.rpartition("/")[2]
    encoding = next((encoding for encoding, names in KNOWN if names.fullmatch(name)), None)
    return _counter(encoding) if encoding else None


@cache
def _counter(encoding: str) -> Counter | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of how it opens its tables
            tokenizer: Any = import_module("bpe_openai").get_encoding(encoding)
    except ImportError:
        return None

    def count_text(text: str) -> float:
        try:
            return sum(len(tokenizer.encode_ordinary(text[at : at + PIECE])) for at in range(0, len(text), PIECE))
        except ValueError:  # the package refuses what could take it too long
            return guess_text(text)

    return lambda parts: round(sum(map(count_text, parts.texts))) + parts.tokens
