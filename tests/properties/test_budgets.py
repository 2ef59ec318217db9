"""Whatever happens in whatever order: held and settled together never exceed a budget, and equal a recount."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import select

from batchway.core.errors import Conflict, Fault, OverBudget, ProviderError
from batchway.core.principal import Principal
from batchway.core.states import FINAL_BATCH_STATES, Outcome
from batchway.db import budgets as statements
from batchway.db.schema import batches, budgets, holds, ledger
from batchway.pipeline.cancel import cancel, expire
from batchway.pipeline.resume import resume_paused
from tests.stages.memory_provider import bad, good
from tests.stages.world import chat, killed, line, open_world

KEYS = ("key_1", "key_2")
OWNERS = {"gateway": "month", "project:p": "total", "key:key_1": "day", "key:key_2": "total"}
HOLD = 2_459_040_000  # pico-dollars: about what two lines hold
DEATHS = st.none() | st.integers(1, 30)  # at which commit, stored object or remote call the process dies


def some(name: str):
    number = int(name.removeprefix("line-"))
    return None if number % 5 == 0 else bad(name) if number % 3 == 0 else good(name)


def short(number: int) -> dict[str, Any]:
    """A line of another model, which limits its output."""
    made = line(number, "gpt-4o")
    return {**made, "body": {**made["body"], "max_tokens": 16}}


class Budgets(RuleBasedStateMachine):
    """One gateway with four budgets; answers use no more tokens than their lines allow."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.world = self.run(self.stack.enter_async_context(open_world()))
        self.files = {
            name: self.run(self.world.file(*lines))
            for name, lines in {
                "small": chat(2),
                "two jobs": [*chat(1), *(short(number) for number in range(2, 7))],
                "faulty": [*chat(1), *chat(1)],
            }.items()
        }
        for owner, period in OWNERS.items():
            self.set_budget(owner, 3 * HOLD, period)

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def mortal(self, coroutine: Any, dies_at: int | None) -> Any:
        self.world.points.kill_at(dies_at)
        try:
            return self.run(coroutine)
        except ProviderError:
            return None  # the worker notes it, and comes back
        except BaseException as end:
            if not killed(end):
                raise
            return None
        finally:
            self.world.points.kill_at(None)

    def set_budget(self, owner: str, amount: int, period: str) -> None:
        self.run(self.world.db.write(statements.set_budget, owner, amount, period, self.world.now))

    def rows(self, table: Any) -> list[dict[str, Any]]:
        return self.run(self.world.db.read(lambda tx: [dict(row) for row in tx.execute(select(table)).mappings()]))

    @rule(key=st.sampled_from(KEYS), name=st.sampled_from(["small", "two jobs", "faulty"]), pauses=st.booleans(),
          dies_at=DEATHS, count=st.integers(1, 4))  # fmt: skip
    def create(self, key: str, name: str, pauses: bool, dies_at: int | None, count: int) -> None:
        who = Principal(key_id=key, project="p", pauses=pauses)

        async def one() -> None:
            try:
                await self.world.batch(input_file_id=self.files[name], who=who)
            except OverBudget:
                assert not pauses

        async def together() -> None:
            ends = await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True)
            for end in filter(None, ends):
                raise end

        self.mortal(together(), dies_at)

    @rule(dies_at=DEATHS)
    def step(self, dies_at: int | None) -> None:
        self.mortal(self.world.step(), dies_at)

    @rule(outcome=st.sampled_from(list(Outcome)), times=st.integers(2, 6), dies_at=DEATHS)
    def walk(self, outcome: Outcome, times: int, dies_at: int | None) -> None:
        async def steps() -> None:
            for _ in range(times):
                self.end(outcome)
                await self.world.step()
                self.world.now += 30

        self.mortal(steps(), dies_at and dies_at * times)

    @rule(outcome=st.sampled_from(list(Outcome)))
    def end(self, outcome: Outcome) -> None:
        for provider in self.world.providers:
            provider.end(outcome, some)

    @rule(call=st.sampled_from(["submit", "find", "look", "cancel", "answers"]))
    def trouble(self, call: str) -> None:
        for provider in self.world.providers:
            provider.trouble[call] = [ProviderError("busy", fault=Fault.TRANSIENT, status=500)]

    @rule(index=st.integers(0, 9), what=st.sampled_from(["cancel", "expire"]), dies_at=DEATHS)
    def stop(self, index: int, what: str, dies_at: int | None) -> None:
        live = [row["id"] for row in self.rows(batches) if row["status"] not in FINAL_BATCH_STATES]
        if index >= len(live):
            return

        async def told() -> None:
            with suppress(Conflict):
                await (
                    cancel(self.world.trip, live[index], None)
                    if what == "cancel"
                    else expire(self.world.trip, live[index])
                )

        self.mortal(told(), dies_at)

    @rule(owner=st.sampled_from(list(OWNERS)), times=st.integers(1, 5))
    def top_up(self, owner: str, times: int) -> None:
        amount = next(row["amount"] for row in self.rows(budgets) if row["owner"] == owner)
        self.set_budget(owner, amount + times * HOLD, OWNERS[owner])

    @rule(dies_at=DEATHS)
    def resume(self, dies_at: int | None) -> None:
        self.mortal(resume_paused(self.world.trip), dies_at)

    @rule(seconds=st.sampled_from([1, 60, 40_000, 86_400, 40 * 86_400]))
    def later(self, seconds: int) -> None:
        self.world.now += seconds

    @invariant()
    def no_budget_is_exceeded_and_each_equals_a_recount(self) -> None:
        all_holds = self.rows(holds)
        for budget in self.rows(budgets):
            assert budget["held"] + budget["settled"] <= budget["amount"], budget
            assert min(budget["held"], budget["settled"]) >= 0
            mine = [
                hold for hold in all_holds if of(budget["owner"], hold) and hold["opened_at"] >= budget["starts_at"]
            ]
            assert budget["held"] == sum(hold["amount"] for hold in mine if hold["settled_at"] is None)
            assert budget["settled"] == sum(hold["settled_amount"] or 0 for hold in mine)
            assert budget["starts_at"] in (0, start(budget["period"], budget["starts_at"]))

    @invariant()
    def no_batch_that_may_send_is_without_a_hold(self) -> None:
        held = {hold["batch_id"] for hold in self.rows(holds)}
        for batch in self.rows(batches):
            if batch["status"] in ("in_progress", "finalizing", "completed") and not batch["expiring"]:
                assert batch["id"] in held
            if batch["status"] == "paused":
                assert batch["id"] not in held

    def teardown(self) -> None:
        try:
            self.world.now += 600
            for provider in self.world.providers:
                provider.trouble.clear()
            for batch in self.rows(batches):
                if batch["status"] == "paused":
                    self.run(cancel(self.world.trip, batch["id"], None))
            for batch in self.rows(batches):
                self.run(self.world.drive(batch["id"], steps=80))
            self.everything_ended_exactly()
        finally:
            self.run(self.stack.aclose())
            self.runner.close()

    def everything_ended_exactly(self) -> None:
        paid: dict[str, int] = {}
        for entry in self.rows(ledger):
            paid[entry["batch_id"]] = paid.get(entry["batch_id"], 0) + entry["amount"]
        for hold in self.rows(holds):
            assert hold["settled_at"] is not None
            assert (hold["settled_amount"] or 0) == paid.get(hold["batch_id"], 0) <= hold["amount"]
        for budget in self.rows(budgets):
            spent = sum(
                paid.get(hold["batch_id"], 0)
                for hold in self.rows(holds)
                if of(budget["owner"], hold) and hold["opened_at"] >= budget["starts_at"]
            )
            assert budget["amount"] - budget["held"] - budget["settled"] == budget["amount"] - spent
        assert self.run(self.world.db.read(statements.check)) == []


def of(owner: str, hold: dict[str, Any]) -> bool:
    return owner in ("gateway", f"project:{hold['project']}", f"key:{hold['key_id']}")


def start(period: str, at: float) -> float:
    """By another way than the code's."""
    text = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d" if period == "day" else "%Y-%m-01")
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


TestBudgets = Budgets.TestCase
TestBudgets.settings = settings(
    deadline=None, max_examples=12, stateful_step_count=20, suppress_health_check=[HealthCheck.too_slow]
)
