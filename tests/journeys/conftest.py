"""One running gateway for all journeys of a session, and the real model behind it."""

from __future__ import annotations

import pytest

from tests.journeys.trips import Running, running
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
