"""What tests of money ask of a world: what a batch holds, budgets set and shown, and whether everything adds up."""

from __future__ import annotations

from typing import Any

from batchway.core.budgets import Budget
from batchway.db import budgets, holds
from tests.stages.world import NOW, World, chat, open_world

KEY, PROJECT, GATEWAY = "key:key_1", "project:p", "gateway"


async def set_budget(world: World, owner: str, amount: int, period: str = "total") -> Budget:
    return await world.db.write(budgets.set_budget, owner, amount, period, world.now)


async def budget(world: World, owner: str = KEY) -> Budget:
    found = await world.db.read(budgets.budget_of, owner, world.now)
    assert found is not None
    return found


async def held(world: World, batch_id: str) -> int | None:
    """What the batch held, or holds."""
    hold = await world.db.read(holds.of_batch, batch_id)
    return hold and hold["amount"]


async def adds_up(world: World) -> None:
    """Budgets, holds and the ledger agree."""
    assert await world.db.read(budgets.check) == []


async def need(*lines: dict[str, Any], **wanted: Any) -> int:
    """What a batch of these lines holds."""
    async with open_world() as world:
        assert world.now == NOW
        found = await held(world, await world.batch(*(lines or chat(2)), **wanted))
        assert found is not None
        return found
