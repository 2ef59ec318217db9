"""The rules of the lease, one by one, on both databases: nobody is called dead by somebody who cannot know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from batchway.engine.connections import open_database
from batchway.engine.lease import Lease, database_now, executors

SECONDS = 10.0
Take = Callable[[str], tuple[Lease, "Clock"]]


class Clock:
    """A process's own clock, turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'lease.db'}"
    else:
        url = request.getfixturevalue("postgres").fresh()
    database = open_database(url, connections=2, lease_seconds=SECONDS)
    yield database
    database.dispose()


@pytest.fixture
def take(database: sa.Engine) -> Take:
    def take(name: str) -> tuple[Lease, Clock]:
        clock = Clock()
        lease = Lease(database, name=name, seconds=SECONDS, clock=clock)
        lease.create_table()
        lease.take()
        return lease, clock

    return take


def age(database: sa.Engine, lease: Lease, seconds: float) -> None:
    """Make the last beat this much older, as the database sees it."""
    with database.begin() as connection:
        connection.execute(
            sa.update(executors)
            .where(executors.c.executor_id == lease.executor_id)
            .values(beat_at=database_now(connection) - seconds)
        )


def beat_for(lease: Lease, clock: Clock, seconds: float) -> None:
    until = clock.now + seconds
    while clock.now < until:
        clock.now += 3
        assert lease.beat()


def test_a_process_is_alive_until_half_a_lease_after_its_last_beat(take: Take) -> None:
    lease, clock = take("a")
    clock.now += 4.9
    assert lease.alive()
    clock.now += 0.2
    assert not lease.alive(), "frozen, it must know at its first instruction"
    assert lease.beat()
    assert lease.alive(), "nobody had declared it dead, so nothing was lost"


def test_nobody_judges_before_it_has_beaten_for_one_and_a_half_leases(take: Take) -> None:
    lease, clock = take("judge")
    beat_for(lease, clock, 14)
    assert lease.may_judge()
    fresh, fresh_clock = take("fresh")
    beat_for(fresh, fresh_clock, 12)
    assert not fresh.may_judge()


def test_a_gap_starts_the_grace_again(take: Take) -> None:
    lease, clock = take("judge")
    beat_for(lease, clock, 30)
    clock.now += 6  # the database was away
    assert not lease.may_judge()
    assert lease.beat()
    assert not lease.may_judge(), "everybody's beat is stale now, not only the dead's"
    beat_for(lease, clock, 12)
    assert not lease.may_judge()
    beat_for(lease, clock, 3)
    assert lease.may_judge()


def test_only_a_lease_that_ran_out_is_judged_and_only_once(database: sa.Engine, take: Take) -> None:
    judge, _ = take("judge")
    rival, _ = take("rival")
    late, _ = take("late")
    dead, _ = take("dead")
    age(database, late, SECONDS - 1)
    age(database, dead, SECONDS + 1)
    assert judge.judge() == [dead.executor_id]
    assert rival.judge() == []
    assert judge.living() == {judge.executor_id, rival.executor_id, late.executor_id}


def test_nobody_judges_itself(database: sa.Engine, take: Take) -> None:
    judge, _ = take("judge")
    age(database, judge, SECONDS + 1)
    assert judge.judge() == []
    assert judge.beat()


def test_the_dead_stay_dead_and_return_under_another_id(database: sa.Engine, take: Take) -> None:
    judge, _ = take("judge")
    zombie, clock = take("zombie")
    former = zombie.executor_id
    age(database, zombie, SECONDS + 1)
    judge.judge()
    clock.now += 1
    assert zombie.alive(), "it cannot know before it asks"
    assert not zombie.beat()
    assert not zombie.alive()
    clock.now += 1

    adopted: list[tuple[str, bool]] = []
    zombie.take(lambda executor_id: adopted.append((executor_id, zombie.alive())))

    assert adopted == [(zombie.executor_id, False)], "nothing may be claimed before the new id is in use"
    assert zombie.executor_id != former
    assert zombie.alive()
    assert not zombie.may_judge()


def test_the_holder_of_the_lock_inherits_everything(take: Take) -> None:
    former, _ = take("former")
    heir, _ = take("heir")
    assert heir.inherit() == [former.executor_id]
    assert heir.living() == {heir.executor_id}


def test_a_lease_given_back_is_gone(take: Take) -> None:
    lease, _ = take("a")
    other, _ = take("b")
    lease.give_back()
    assert not lease.alive()
    assert other.living() == {other.executor_id}
