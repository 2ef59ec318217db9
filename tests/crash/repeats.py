"""Which executed lines were sent, and paid for, more often than once; told by the simulator, which counts."""

from __future__ import annotations

import struct

import sqlalchemy as sa

from batchway.db.engine import driver_url
from tests.gateway import Gateway
from tests.simulator import Simulator


class Repeats:
    """Compares, at the end, the attempts of each line with those it had when its answer was seen stored."""

    def __init__(self, gateway: Gateway, simulator: Simulator) -> None:
        self._gateway = gateway
        self._simulator = simulator
        self._stored: dict[str, int] = {}  # line -> attempts when its answer was seen stored
        self.repeats = 0

    def note(self) -> None:
        """Remembers what is stored by now."""
        engine = sa.create_engine(driver_url(self._gateway.database))
        with engine.connect() as connection:
            packed = list(connection.scalars(sa.text("select numbers from segments where numbers is not null")))
        engine.dispose()
        stored = {f"line-{number - 1}" for numbers in packed for (number,) in struct.iter_unpack("<I", numbers)}
        attempts = self._simulator.lines()
        for name in stored - self._stored.keys():
            self._stored[name] = attempts[name][0]

    def violations(self, bound: int) -> list[str]:
        """What was paid for again; `bound` is how many answers may have been."""
        found: list[str] = []
        lines = self._simulator.lines()
        again = [name for name, attempts in self._stored.items() if lines[name][0] != attempts]
        if again:
            found.append(f"{len(again)} lines were sent again after they were stored, such as {again[:3]}")
        self.repeats = sum(answered - 1 for _, answered in lines.values() if answered > 1)
        if self.repeats > bound:
            found.append(f"{self.repeats} answers were paid for again, which is more than {bound}")
        return found
