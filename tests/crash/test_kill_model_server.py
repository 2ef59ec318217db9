"""kill -9 of the whole gateway in front of a real model server: llama.cpp's own answers, errors and counts."""

from __future__ import annotations

import json
import random

import pytest

from batchway.executor.tuning import Tuning
from tests import model_server
from tests.crash.ordeal import Ordeal
from tests.gateway import Gateway
from tests.invariants import results_violations, violations

SLOTS = 4
UNSTORED = 3 * Tuning().segment_lines
KINDS = {"local": "openai_compatible"}

pytestmark = pytest.mark.skipif(bool(model_server.missing), reason=f"not installed: {model_server.missing}")


def lines(count: int) -> bytes:
    """Short chats; every thirtieth is longer than the model can read, and refused."""
    chance = random.Random(5)
    written = []
    for number in range(count):
        content = f"{number} " + " ".join(chance.choices(model_server.WORDS, k=3000 if number % 30 == 7 else 4))
        body = {"model": f"local/{model_server.MODEL_NAME}", "max_tokens": 3}
        body |= {"messages": [{"role": "user", "content": content}]}
        line = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        written.append(json.dumps(line))
    return "\n".join(written).encode() + b"\n"


def suffer(folder, *, count: int, kills: int, seed: int) -> None:
    with model_server.tiny_model_server(folder, slots=SLOTS) as server:
        provider = {"kind": "openai_compatible", "base_url": server.base_url, "concurrency": SLOTS}
        provider["models"] = [model_server.MODEL_NAME]
        gateway = Gateway(folder / "home", {"poll_seconds": 0.2, "providers": {"local": provider}})
        ordeal = Ordeal(gateway, None, seed=seed, kills=kills, window="2h")
        before = server.requests_begun()
        try:
            ordeal.run(lines(count))
            remains = ordeal.remains()
            results = gateway.results(ordeal.batch_id)
        finally:
            gateway.kill()
        begun = server.requests_begun() - before
    output, errors = remains.lines("output"), remains.lines("error")
    print(f"{ordeal.summary()}; {len(output)} answers, {begun - len(output)} begun again, {len(errors)} refusals")
    assert [*ordeal.complaints, *violations(remains, [], KINDS), *results_violations(remains, results)] == []
    assert [line["response"]["status_code"] for line in errors] == [400] * len(range(7, count, 30))
    assert ordeal.deaths >= kills, "the batch ended before it was killed often enough"
    assert begun - len(output) <= ordeal.deaths * (SLOTS + UNSTORED)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [31])
def test_no_line_of_ten_thousand_is_lost_at_a_real_model_server(tmp_path, seed):
    suffer(tmp_path, count=10_000, kills=22, seed=seed)
