"""A real llama.cpp server without any batch API still takes batches: the executed lane, with real tokens."""

from __future__ import annotations

import pytest

from tests.journeys.trips import CHAT, jsonl, line, names
from tests.model_server import MODEL_NAME, missing

pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")

LIMITS = {
    CHAT: {"max_tokens": 6},
    "/v1/completions": {"max_tokens": 6},
    "/v1/embeddings": {},
    "/v1/responses": {"max_output_tokens": 6},
}


@pytest.mark.parametrize("endpoint", LIMITS)
def test_every_line_is_answered_with_real_usage(world, endpoint):
    requests = [line(number, "tiny", endpoint, **LIMITS[endpoint]) for number in range(40)]
    batch = world.run(jsonl(requests), endpoint)
    assert batch["request_counts"] == {"total": 40, "completed": 40, "failed": 0}, batch
    (job,) = batch["batchway"]["jobs"]
    assert (job["provider"], job["model"], job["lane"]) == ("local", MODEL_NAME, "executed")
    output, errors = world.files_of(batch)
    assert errors == []
    assert names(output) == list(range(40))
    usages = [one["response"]["body"]["usage"] for one in output]
    assert all(usage.get("prompt_tokens", usage.get("input_tokens")) > 1 for usage in usages)
    assert batch["usage"]["total_tokens"] == sum(usage["total_tokens"] for usage in usages)
    if endpoint == "/v1/embeddings":
        assert {len(one["response"]["body"]["data"][0]["embedding"]) for one in output} == {64}
        assert batch["usage"]["output_tokens"] == 0
    else:
        assert 40 <= batch["usage"]["output_tokens"] <= 40 * 6
    assert batch["batchway"]["amount_status"] == "unknown", "nobody has priced this server"


def test_answers_belong_to_their_lines(world):
    """The same prompt alone and in a batch: the same words."""
    said = [f"The word {number} {'is ' * number}" for number in range(12)]
    requests = [
        line(number, "tiny", messages=[{"role": "user", "content": text}], max_tokens=8, temperature=0)
        for number, text in enumerate(said)
    ]
    twice = [world.files_of(world.run(jsonl(order)))[0] for order in (requests, requests[::-1])]
    texts = [
        {one["custom_id"]: one["response"]["body"]["choices"][0]["message"]["content"] for one in output}
        for output in twice
    ]
    assert texts[0] == texts[1]
    assert len(set(texts[0].values())) > 6


def test_what_the_server_refuses_fails_its_own_line_with_its_own_words(world):
    requests = [
        line(0, "tiny", max_tokens=4),
        line(1, "tiny", messages=[{"role": "user", "content": "word " * 3000}]),
        line(2, "tiny", messages="not a list"),
        line(3, "tiny", max_tokens=4),
    ]
    batch = world.run(jsonl(requests))
    assert batch["request_counts"] == {"total": 4, "completed": 2, "failed": 2}
    output, errors = world.files_of(batch)
    assert (names(output), names(errors)) == ([0, 3], [1, 2])
    assert {(one["response"]["status_code"], one["error"]) for one in errors} == {(400, None)}
    assert "context" in errors[0]["response"]["body"]["error"]["message"]


def test_a_file_that_mixes_the_real_model_with_a_provider_is_one_batch(world):
    batch = world.run(jsonl(line(number, ["tiny", "fast"][number % 2], max_tokens=4) for number in range(20)))
    assert names(world.files_of(batch)[0]) == list(range(20))
    assert {(job["provider"], job["lane"]) for job in batch["batchway"]["jobs"]} == {
        ("local", "executed"), ("openai", "native"),
    }  # fmt: skip
