"""OpenAI's Files, Batches and model endpoints imitated over real HTTP, for tests, demos and users' own CI.

`SIMULATOR.md` in this folder is the manual; `providers/shared/file_simulator` holds everything that other providers of
this shape have in common. Invariant: what is said here is true of OpenAI alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starlette.applications import Starlette

from batchway.providers.shared.file_simulator import app
from batchway.providers.shared.file_simulator.flavor import Flavor
from batchway.providers.shared.file_simulator.settings import SimulatorSettings
from batchway.providers.shared.simulation import FAULTS, parse_faults

__all__ = ["FAULTS", "SimulatorSettings", "config", "create_app", "main", "parse_faults"]


class OpenAIFlavor(Flavor):
    """The API itself: the defaults of a flavor are its."""

    name = "openai"
    title = "OpenAI"

    def url(self, settings: SimulatorSettings) -> str:
        return f"http://{settings.host}:{settings.port}/v1"

    def config(self, settings: SimulatorSettings) -> dict[str, Any]:
        return {self.name: {"api_key": settings.api_key or "sim", "base_url": self.url(settings)}}

    def headers(self, number: int, milliseconds: int) -> list[tuple[bytes, bytes]]:
        return [
            *super().headers(number, milliseconds),
            (b"openai-processing-ms", str(milliseconds).encode()),
            (b"openai-version", b"2020-10-01"),
        ]


def config(settings: SimulatorSettings) -> dict[str, Any]:
    """The provider entry that points a gateway at this simulator."""
    return OpenAIFlavor(settings).config(settings)


def create_app(settings: SimulatorSettings, *, clock: Callable[[], float]) -> Starlette:
    """The simulator as an ASGI app; `clock` gives real unix seconds."""
    return app.create_app(OpenAIFlavor(settings), settings, clock=clock)


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m batchway.providers.openai.simulator --port N ...`: one option for each setting."""
    app.command(OpenAIFlavor, SimulatorSettings, arguments)


if __name__ == "__main__":
    main()
