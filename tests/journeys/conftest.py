"""One running gateway for all journeys of a session, and the real model behind it."""

from __future__ import annotations

import pytest

from tests.journeys.trips import Running, chat, running
from tests.model_server import missing, tiny_model_server


@pytest.fixture(scope="session")
def model_url(tmp_path_factory):
    """The address of llama.cpp with a tiny model; one that nobody listens on where it is not installed."""
    if missing:
        yield "http://127.0.0.1:9/v1"
        return
    with tiny_model_server(tmp_path_factory.mktemp("model")) as server:
        yield server.base_url


@pytest.fixture(scope="session")
def world(tmp_path_factory, model_url):
    with running(tmp_path_factory.mktemp("world"), model_url) as made:
        yield made
        assert made.open_holds() == []
        assert made.strays() == []


@pytest.fixture
def still(world: Running):
    """The simulator whose clock a test moves."""
    return world.simulators["still"]


@pytest.fixture(scope="module")
def nothing_is_lost(world: Running):
    """A batch that was there before ends well; nothing of the refused is left."""
    batch_id = world.create(world.upload(chat(300, "frozen")))["id"]
    yield
    world.until(batch_id, lambda batch: batch["batchway"]["jobs"] and batch["batchway"]["jobs"][0]["remote_id"])
    world.simulators["still"].advance(5000)
    assert world.wait(batch_id)["request_counts"] == {"total": 300, "completed": 300, "failed": 0}
    assert world.violations(batch_id) == []
    assert world.open_holds() == []
    assert world.strays() == []
