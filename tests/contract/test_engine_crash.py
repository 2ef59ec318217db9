"""What the engine keeps when processes are killed and frozen and the database is restarted; so must an upgrade of DBOS.

Leases are short here (3 s), everything else is real: processes, signals, a PostgreSQL server, SQLite files.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.engine_process import LEASE, Crew, Event, Worker, count_of, keys_of
from tests.postgres import Postgres

QUICK = [f"quick{n}" for n in range(4)]
SLOW = [f"slow{n}" for n in range(8)]
WAITING = [f"waiting{n}" for n in range(4)]  # asked for when every slot is taken


@pytest.fixture
def crew(postgres: Postgres, tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(tmp_path, postgres.fresh())
    yield crew
    crew.dismiss()


@pytest.fixture
def lone_crew(tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(tmp_path, f"sqlite:///{tmp_path / 'engine.db'}", lock=tmp_path / "lock")
    yield crew
    crew.dismiss()


def busy(crew: Crew, worker: Worker) -> None:
    """Some of its work has ended, all its slots are taken by bodies in the middle of theirs, and more waits."""
    worker.ensure(QUICK)
    crew.wait_ended(QUICK)
    worker.ensure(SLOW)
    crew.wait(lambda events: keys_of(events, "begin") >= set(SLOW), "bodies to run")
    worker.ensure(WAITING)
    crew.wait(lambda events: [e.event for e in events].count("ensured") == 3, "the last to be queued")


def assert_only_the_cut_were_repeated(events: list[Event]) -> None:
    assert count_of(events, "begin") == Counter({key: 2 if key in SLOW else 1 for key in [*QUICK, *SLOW, *WAITING]})
    assert count_of(events, "end") == Counter([*QUICK, *SLOW, *WAITING])


@pytest.mark.postgres
def test_the_work_of_a_killed_process_is_run_by_another(crew: Crew) -> None:
    victim = crew.hire(stuck=True)
    busy(crew, victim)
    heir = crew.hire()
    crew.wait_ended(WAITING)  # the heir takes what waits, and leaves alone what is taken
    assert not keys_of((e for e in crew.events() if e.pid == heir.pid), "begin") & set(SLOW)
    victim.kill()
    killed_at = time.monotonic()

    events = crew.wait_ended(SLOW)

    assert_only_the_cut_were_repeated(events)
    again = min(e.at for e in events if e.key in SLOW and e.pid == heir.pid)
    print(f"recovered in {again - killed_at:.2f} s")
    assert again - killed_at > LEASE / 2, "taken over before the lease ran out"
    assert heir.close() == 0


def test_a_restarted_embedded_process_resumes_at_once(lone_crew: Crew) -> None:
    victim = lone_crew.hire(stuck=True)
    busy(lone_crew, victim)
    victim.kill()

    heir = lone_crew.hire()

    events = lone_crew.wait_ended([*SLOW, *WAITING])
    assert_only_the_cut_were_repeated(events)
    ready = next(e.at for e in events if e.event == "ready" and e.pid == heir.pid)
    again = min(e.at for e in events if e.event == "begin" and e.pid == heir.pid)
    print(f"recovered in {again - ready:.2f} s")
    assert again - ready < LEASE / 3, "the lock proves the death: no lease has to run out"
    assert heir.close() == 0


@pytest.mark.postgres
def test_a_database_restart_kills_nobody_and_repeats_nothing(crew: Crew, postgres: Postgres) -> None:
    # The one's bodies end while the database is away, the other's only afterwards.
    workers = crew.hire_all({"steps": 10}, {"steps": 45})
    # Both may judge by now, so that nothing but the rule of 1.5 leases after a gap protects them from each other.
    settled = time.monotonic() + 1.6 * LEASE
    crew.wait(lambda _: time.monotonic() > settled, "the grace to pass")
    workers[1].ensure([*QUICK, *SLOW])
    crew.wait(lambda events: len(keys_of(events, "begin")) >= len([*QUICK, *SLOW]), "bodies to run in both")

    postgres.stop()
    gone_until = time.monotonic() + 1.2 * LEASE
    workers[0].ensure(WAITING)  # asked while there is nobody to ask: waits
    crew.wait(lambda _: time.monotonic() > gone_until, "every beat to be stale")
    postgres.start()
    back_at = time.monotonic()

    everything = [*QUICK, *SLOW, *WAITING]
    events = crew.wait_ended(everything, seconds=60)
    begun_at = min(e.at for e in events if e.key in WAITING)
    print(f"recovered in {begun_at - back_at:.2f} s")
    assert any(e.event == "held" for e in events), "nobody noticed that its lease could not be renewed"
    assert not keys_of(events, "cut")
    assert not any(e.event == "rejoined" for e in events), "somebody was declared dead"
    assert count_of(events, "begin") == Counter(everything), "a body was lost or run twice"
    assert [worker.close() for worker in workers] == [0, 0]


@pytest.mark.postgres
def test_a_frozen_process_is_replaced_and_pays_for_nothing_when_it_wakes(crew: Crew) -> None:
    zombie = crew.hire(stuck=True)
    busy(crew, zombie)
    heir = crew.hire()
    crew.wait_ended(WAITING)
    zombie.signal(signal.SIGSTOP)
    crew.wait_ended(SLOW)

    woken_at = time.monotonic()
    zombie.signal(signal.SIGCONT)
    crew.wait(lambda events: any(e.event == "rejoined" for e in events), "it to take part again")
    heir.close()
    zombie.ensure(["new"])
    events = crew.wait_ended(["new"])

    after = [e for e in events if e.pid == zombie.pid and e.at > woken_at]
    rejoined_at = next(e.at for e in after if e.event == "rejoined")
    assert keys_of(after, "pay") == {"new"}, "the zombie paid for work that was taken over"
    assert keys_of(after, "cut") == set(SLOW)
    assert max(e.at for e in after if e.event == "cut") <= rejoined_at, "it came back with old bodies running"
    assert count_of(events, "end") == Counter([*QUICK, *SLOW, *WAITING, "new"])
    assert zombie.close() == 0


def test_a_polite_stop_leaves_its_work_to_the_next_process(lone_crew: Crew) -> None:
    first = lone_crew.hire(stuck=True)
    busy(lone_crew, first)
    assert first.close() == 0

    second = lone_crew.hire()

    events = lone_crew.wait_ended([*SLOW, *WAITING])
    assert keys_of((e for e in events if e.pid == first.pid), "cut") == set(SLOW)
    assert_only_the_cut_were_repeated(events)
    assert second.close() == 0
