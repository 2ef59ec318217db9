"""How far the guess of input tokens is off, and that counting is exact where a tokenizer is known."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from batchway.billing import tokens
from batchway.billing.tokens import counter
from batchway.core.linecheck import LineCheck
from batchway.core.tokenguess import DOCUMENT_BYTES, MESSAGE, PICTURE, REQUEST, SOUND_BYTES, guess, guess_text, parts_of

ROOT = Path(__file__).parents[2]
SAMPLES = Path(__file__).parent / "samples"
TEXTS: dict[str, str] = json.loads((SAMPLES / "texts.json").read_text()) | {
    "English": (ROOT / "docs" / "architecture.md").read_text(),
    "Python": (ROOT / "src" / "batchway" / "core" / "linecheck.py").read_text(),
    "JavaScript": next((ROOT / "tests" / "journeys" / "node").glob("*.mjs")).read_text(),
    "JSON": (ROOT / "src" / "batchway" / "providers" / "azure" / "samples" / "batch.json").read_text(),
    "JSON lines": (SAMPLES / "gemini_answers.jsonl").read_text(),
}
COMMON = ("English", "prompt", "Python", "JavaScript", "JSON", "JSON lines")


@pytest.fixture(scope="module")
def o200k():
    encoding = tokens._counter("o200k_base")
    return lambda text: encoding(tokens.Parts([text], 0))


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def messages(*contents: object) -> msgspec.Raw:
    return raw([{"role": "user", "content": content} for content in contents])


# The guess ------------------------------------------------------------------------------------------------------------


def errors(o200k) -> dict[str, float]:
    return {name: guess_text(text[:2000]) / o200k(text[:2000]) - 1 for name, text in TEXTS.items()}


def test_a_guess_is_a_tenth_off_for_what_is_usual_and_a_quarter_at_most(o200k) -> None:
    found = errors(o200k)
    print({name: f"{error:+.0%}" for name, error in found.items()})
    assert statistics.median(abs(error) for error in found.values()) < 0.10
    assert max(abs(found[name]) for name in COMMON) < 0.20
    assert max(map(abs, found.values())) < 0.30


def test_half_as_many_again_is_enough_for_every_one(o200k) -> None:
    assert all(1.5 * (1 + error) > 1 for error in errors(o200k).values())


def test_a_guess_is_better_than_four_bytes_of_json_a_token(o200k) -> None:
    def bytes_of(text: str) -> float:
        return abs(len(json.dumps([{"role": "user", "content": text}])) / 4 / o200k(text) - 1)

    found = {name: abs(error) for name, error in errors(o200k).items()}
    by_bytes = {name: bytes_of(TEXTS[name][:2000]) for name in found}
    assert statistics.mean(found.values()) * 3 < statistics.mean(by_bytes.values())


def test_a_long_text_is_guessed_for_by_its_middle_in_the_same_time(o200k) -> None:
    text = TEXTS["English"] * 200
    assert guess_text(text) == pytest.approx(o200k(text), rel=0.2)

    def cost(text: str) -> float:
        begun = time.process_time()
        for _ in range(200):
            guess_text(text)
        return time.process_time() - begun

    assert min(cost(text) for _ in range(5)) < 3 * min(cost(text[:3000]) for _ in range(5))


def test_escapes_of_json_are_no_tokens() -> None:
    text = TEXTS["Chinese"]
    escaped, plain = (msgspec.Raw(json.dumps([{"content": text}], ensure_ascii=how).encode()) for how in (True, False))
    assert guess(escaped) == guess(plain)


def test_messages_tools_and_instructions_are_all_guessed_for() -> None:
    words = guess_text("hello")
    assert guess(messages("hello")) == pytest.approx(words + MESSAGE + REQUEST)
    assert guess(messages("hello", "hello")) == pytest.approx(2 * (words + MESSAGE) + REQUEST)
    assert guess(raw("hello"), raw("hello"), raw(None), msgspec.Raw()) == pytest.approx(2 * words + REQUEST)
    tools = raw([{"type": "function", "function": {"name": "weather", "description": "tells the weather"}}])
    assert guess(messages("hello"), tools) > guess(messages("hello")) + 4


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10**6}}, PICTURE),
        ({"type": "input_image", "image_url": "https://example.org/cat.png"}, PICTURE),
        ({"type": "input_audio", "input_audio": {"data": "A" * 10**6, "format": "wav"}}, 10**6 // SOUND_BYTES),
        ({"type": "file", "file": {"file_data": "A" * 10**6, "filename": "a.pdf"}}, 10**6 // DOCUMENT_BYTES),
    ],
)
def test_pictures_sound_and_documents_count_with_their_declared_figures(part: dict, count: int) -> None:
    assert parts_of(messages([part])).tokens == count + MESSAGE + REQUEST
    assert not parts_of(messages([part])).texts


def test_tokens_that_are_given_are_counted() -> None:
    assert guess(raw([1, 2, 3, 4, 5])) == 5 + REQUEST
    assert guess(raw([[1, 2], [3]])) == 3 + REQUEST


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b"12", b"true"])
def test_what_cannot_be_read_is_guessed_for_all_the_same(content: bytes) -> None:
    assert guess(msgspec.Raw(content)) >= 0


# In a file ------------------------------------------------------------------------------------------------------------


def checked(texts: list[str], piece: int = 1 << 16) -> int:
    check = LineCheck()
    data = b"".join(
        b'{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":%b}}\n'
        % (number, json.dumps([{"role": "user", "content": text}]).encode())
        for number, text in enumerate(texts)
    )
    for start in range(0, len(data), piece):
        check.feed(data[start : start + piece])
    return check.finish().models["m"].input_tokens


def test_a_file_is_guessed_for_by_some_of_its_lines(o200k) -> None:
    words = TEXTS["English"].split()
    texts = [" ".join(words[number % 700 :][: 5 + number % 40]) for number in range(20_000)]
    exact = sum(o200k(text) + MESSAGE + REQUEST for text in texts)
    assert checked(texts) == pytest.approx(exact, rel=0.1)
    assert checked(sorted(texts, key=len)) == pytest.approx(exact, rel=0.1), "also when the long lines come last"
    assert checked(texts, piece=999) == checked(texts)


def test_a_small_file_is_guessed_for_whole() -> None:
    texts = [TEXTS[name] for name in ("German", "Chinese", "prompt")]
    assert checked(texts) == pytest.approx(sum(guess(messages(text)) for text in texts), abs=1)


# The count ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("eu/gpt-4.1-nano", "o200k_base"),
        ("gpt-5.4-mini", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("openai/gpt-oss-20b", "o200k_base"),
        ("ft:gpt-4o-2024-08-06:acme::1", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-35-turbo", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("gpt-6-sol", None),
        ("gpt-40", None),
        ("o300", None),
        ("claude-haiku-4-5", None),
        ("llama", None),
    ],
)
def test_only_a_model_whose_tokenizer_is_known_is_counted_for(model: str, encoding: str | None) -> None:
    assert counter(model) is (tokens._counter(encoding) if encoding else None)


@pytest.mark.parametrize("name", sorted(TEXTS))
@pytest.mark.filterwarnings("ignore:open_binary is deprecated")
def test_a_count_is_exact(name: str) -> None:
    import bpe_openai

    for model, encoding in (("gpt-4o", "o200k_base"), ("gpt-4", "cl100k_base")):
        expected = len(bpe_openai.get_encoding(encoding).encode_ordinary(TEXTS[name])) + MESSAGE + REQUEST
        assert counter(model)(parts_of(messages(TEXTS[name]))) == expected


def test_a_text_of_any_length_is_counted(o200k) -> None:
    assert o200k("hello world " * 200_000) == pytest.approx(400_000, rel=0.01)
    assert o200k("a" * 2_000_000) > 100_000
    assert o200k("<|endoftext|>") > 1, "what users write is never a special token"


def test_without_the_package_everything_is_guessed_for_and_it_is_not_asked_for_before() -> None:
    code = (
        "import sys; from batchway.billing import estimate, tokens; assert 'bpe_openai' not in sys.modules;"
        "sys.modules['bpe_openai'] = None; assert tokens.counter('gpt-4o') is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
