"""Keys, projects, tallies and the audit log at the database, and the server's memory of keys; on both databases."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from batchway.core.errors import ConfigError, Conflict, NotFound, TooMany, Unauthenticated
from batchway.core.principal import DEFAULT_PROJECT, NO_LIMITS, Limits, Policy, Principal
from batchway.db import audit, keys, projects, tallies
from batchway.db.audit import Actor, AuditFilter
from batchway.db.engine import Database
from batchway.db.schema import audit as audit_table
from batchway.db.transitions import create_batch
from batchway.server.auth import Keyring, digest
from batchway.server.limits import ADDED, Meter, file_bytes, one_upload
from batchway.settings import load
from tests.postgres import postgres

__all__ = ["postgres"]

NOW = 1_790_000_000.0
SCOPE: dict[str, Any] = {"type": "http", "headers": [], "client": ("192.0.2.7", 1)}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def db(request, tmp_path):
    on_postgres = request.param == "postgresql"
    database = Database(request.getfixturevalue("postgres").fresh() if on_postgres else f"sqlite:///{tmp_path}/db")
    yield database
    database.close()


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Wanted:
    master_key: str | None = "sk-master"
    no_auth: bool = False
    trusted_proxies: list[str] = field(default_factory=list)


def key(db: Database, key_id: str = "key_1", project: str = "p", **rules: Any) -> None:
    row = {"id": key_id, "name": "n", "project": project, "scopes": ["read", "write"], "created_at": NOW}
    db.write_now(keys.add, {**row, "hash": digest(f"secret of {key_id}"), **rules})


# The server's memory of keys ------------------------------------------------------------------------------------------


def admitted(ring: Keyring, secret: str = "secret of key_1"):
    return ring.admit(SCOPE, {b"x-api-key": secret.encode()}, "read")


async def test_a_caller_has_the_rules_of_its_key_and_of_its_project(db) -> None:
    db.write_now(projects.add, {"name": "p", "models": ["m*"], "limits": {"active_batches": 2}, "created_at": NOW})
    key(db, providers=["a"], limits={"file_bytes": 9}, on_budget="pause")
    principal = await admitted(Keyring(db, Wanted(), Clock()))
    assert principal == Principal(
        key_id="key_1",
        project="p",
        policies=(Policy(providers=("a",)), Policy(models=("m*",))),
        limits=Limits(file_bytes=9),
        project_limits=Limits(active_batches=2),
        pauses=True,
    )


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("private", [True, False])
async def test_what_a_caller_makes_is_private_when_its_key_is_or_its_project_does_not_share(
    db, private, sharing
) -> None:
    db.write_now(projects.add, {"name": "p", "sharing": sharing, "created_at": NOW})
    key(db, private=private)
    principal = await admitted(Keyring(db, Wanted(), Clock()))
    assert principal.private is (private or not sharing)


async def test_a_project_without_a_row_has_no_rules(db) -> None:
    key(db, project="never made")
    principal = await admitted(Keyring(db, Wanted(), Clock()))
    assert (principal.policies, principal.project_limits, principal.private) == ((), NO_LIMITS, False)


async def test_a_remembered_key_ends_at_its_time_and_at_the_end_of_its_grace(db) -> None:
    key(db, expires_at=NOW + 10)
    clock = Clock()
    ring = Keyring(db, Wanted(), clock)
    assert (await admitted(ring)).key_id == "key_1"
    db.write_now(keys.rotate, "key_1", digest("new"), NOW, 5.0)
    ring.forget()
    assert (await admitted(ring)).key_id == "key_1"
    clock.now = NOW + 5
    with pytest.raises(Unauthenticated, match="rotated"):
        await admitted(ring)
    assert (await admitted(ring, "new")).key_id == "key_1"
    clock.now = NOW + 10
    with pytest.raises(Unauthenticated, match="expired"):
        await admitted(ring, "new")


async def test_a_key_that_was_read_before_a_change_is_not_remembered_after_it(db) -> None:
    key(db)
    ring = Keyring(db, Wanted(), Clock())
    read = db.read

    async def read_then_change(*args: Any) -> Any:
        found = await read(*args)
        await db.write(keys.end, "key_1", NOW)  # by another request, while this one has its answer already
        ring.forget()
        return found

    db.read = read_then_change
    assert (await admitted(ring)).key_id == "key_1"
    db.read = read
    with pytest.raises(Unauthenticated, match="deleted"):
        await admitted(ring)


async def test_a_known_key_costs_no_statement(db) -> None:
    key(db)
    ring = Keyring(db, Wanted(), Clock())
    await admitted(ring)
    db.read = db.write = None  # whoever asks fails
    assert (await admitted(ring)).key_id == "key_1"


async def test_a_rotation_never_prolongs_an_older_secret(db) -> None:
    key(db)
    clock = Clock()
    db.write_now(keys.rotate, "key_1", digest("second"), NOW, 10.0)
    db.write_now(keys.rotate, "key_1", digest("third"), NOW, 1000.0)
    clock.now = NOW + 10
    ring = Keyring(db, Wanted(), clock)
    with pytest.raises(Unauthenticated, match="rotated"):
        await admitted(ring)
    for secret in ("second", "third"):
        assert (await admitted(ring, secret)).key_id == "key_1"


def test_a_trusted_proxy_that_is_no_network_is_told_before_anything_listens() -> None:
    assert load(env={"BATCHWAY_TRUSTED_PROXIES": "10.0.0.0/8, ::1"}).trusted_proxies == ["10.0.0.0/8", "::1"]
    with pytest.raises(ConfigError, match=r"trusted_proxies: '10\.0\.0'"):
        load(env={"BATCHWAY_TRUSTED_PROXIES": "10.0.0"})


# Tallies and limits ---------------------------------------------------------------------------------------------------


async def test_of_many_at_once_no_more_are_counted_than_the_limit(db) -> None:
    counts = await asyncio.gather(*(db.write(tallies.take, "t", NOW, 7) for _ in range(30)))
    assert sorted(count for count in counts if count is not None) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_new_stretch_begins_at_one_and_what_is_given_back_can_be_taken_again(db) -> None:
    assert [db.write_now(tallies.take, "t", NOW, 2) for _ in range(3)] == [1, 2, None]
    assert db.write_now(tallies.take, "other", NOW, 2) == 1
    assert db.write_now(tallies.take, "t", NOW + 60, 2) == 1
    db.write_now(tallies.give_back, "t", NOW + 60)
    db.write_now(tallies.give_back, "t", NOW + 60)
    assert [db.write_now(tallies.take, "t", NOW + 60, 2) for _ in range(3)] == [1, 2, None]
    assert db.write_now(tallies.take, "none", NOW, 0) is None


def principal(own: Limits = NO_LIMITS, of_project: Limits = NO_LIMITS, key_id: str = "key_1") -> Principal:
    return Principal(key_id=key_id, project="p", limits=own, project_limits=of_project)


async def test_requests_are_counted_by_the_minute_and_the_answer_tells_what_is_left(db) -> None:
    clock = Clock(NOW - NOW % 60 + 48.5)
    meter = Meter(db, clock)
    caller = principal(Limits(requests_per_minute=2))
    for left in (b"1", b"0"):
        scope: dict[str, Any] = {}
        await meter.count(caller, scope)
        assert dict(scope[ADDED]) == {
            b"x-ratelimit-limit-requests": b"2",
            b"x-ratelimit-remaining-requests": left,
            b"x-ratelimit-reset-requests": b"12s",
        }
    with pytest.raises(TooMany) as refused:
        await meter.count(caller, scope)
    assert (refused.value.code, refused.value.retry_after) == ("rate_limit_exceeded", 12)
    assert (b"x-ratelimit-remaining-requests", b"0") in scope[ADDED]
    clock.now += 12
    await meter.count(caller, scope)
    assert (b"x-ratelimit-remaining-requests", b"1") in scope[ADDED]


async def test_the_keys_of_a_project_share_its_limit_and_the_narrower_one_is_told(db) -> None:
    meter = Meter(db, Clock())
    scope: dict[str, Any] = {}
    for number in (1, 2, 3):
        caller = principal(Limits(requests_per_minute=2), Limits(requests_per_minute=3), f"key_{number}")
        await meter.count(caller, scope)
    assert (b"x-ratelimit-limit-requests", b"3") in scope[ADDED]
    with pytest.raises(TooMany, match="project"):
        await meter.count(caller, scope)


async def test_several_processes_share_one_count(db) -> None:
    if db.is_sqlite:
        pytest.skip("one process serves on SQLite")
    meters = [Meter(db, Clock()) for _ in range(4)]
    caller = principal(Limits(requests_per_minute=10))
    answers = await asyncio.gather(*(meter.count(caller, {}) for meter in meters * 5), return_exceptions=True)
    assert sum(isinstance(answer, TooMany) for answer in answers) == 10


async def test_an_upload_counts_for_the_day_unless_it_came_to_nothing(db) -> None:
    caller = principal(Limits(uploads_per_day=2), Limits(uploads_per_day=9))
    for _ in range(5):
        with pytest.raises(RuntimeError):
            async with one_upload(db, caller, NOW):
                raise RuntimeError("the client left")
    for _ in range(2):
        async with one_upload(db, caller, NOW):
            pass
    with pytest.raises(TooMany) as refused:
        async with one_upload(db, caller, NOW):
            raise AssertionError("one too many")
    assert (refused.value.code, refused.value.retry_after) == ("upload_limit_exceeded", 86400 - NOW % 86400)
    async with one_upload(db, caller, NOW + 86400):
        pass


async def test_an_upload_that_the_project_refuses_takes_nothing_from_the_key(db) -> None:
    for key_id in ("key_1", "key_2", "key_1", "key_1"):
        caller = principal(Limits(uploads_per_day=2), Limits(uploads_per_day=1), key_id)
        try:
            async with one_upload(db, caller, NOW):
                pass
        except TooMany as refused:
            assert "project" in refused.message  # noqa: PT017 - the first one is let through


def test_the_smallest_limit_of_a_files_size_holds() -> None:
    assert file_bytes(principal(), 100) == 100
    assert file_bytes(principal(Limits(file_bytes=7), Limits(file_bytes=9)), 100) == 7
    assert file_bytes(principal(Limits(file_bytes=70), Limits(file_bytes=0)), 100) == 0


# Projects -------------------------------------------------------------------------------------------------------------


def names(db: Database, **query: Any) -> list[str]:
    rows, _ = db.write_now(projects.page, **{"limit": 10, "after": None, "order": "desc", **query})
    return [row["name"] for row in rows]


async def test_default_is_there_always_once_in_its_place_and_can_be_changed(db) -> None:
    assert names(db) == [DEFAULT_PROJECT]
    assert db.write_now(projects.get, DEFAULT_PROJECT)["sharing"]
    for name, at in (("a", NOW), ("b", NOW), ("c", NOW + 1)):
        db.write_now(projects.add, {"name": name, "created_at": at})
    assert names(db) == ["c", "b", "a", DEFAULT_PROJECT]
    assert names(db, order="asc") == [DEFAULT_PROJECT, "a", "b", "c"]
    assert names(db, after="b") == ["a", DEFAULT_PROJECT]
    assert names(db, after="a", order="asc") == ["b", "c"]
    assert names(db, after=DEFAULT_PROJECT) == []
    assert db.write_now(projects.page, limit=3, after=None, order="desc")[1]
    db.write_now(projects.change, DEFAULT_PROJECT, {"sharing": False}, NOW + 2)
    assert not db.write_now(projects.get, DEFAULT_PROJECT)["sharing"]
    assert sorted(names(db)) == ["a", "b", "c", DEFAULT_PROJECT]
    for refused in ({"name": "a"}, {"name": DEFAULT_PROJECT}):
        with pytest.raises(Conflict, match="already"):
            db.write_now(projects.add, {**refused, "created_at": NOW})
    with pytest.raises(Conflict, match="always"):
        db.write_now(projects.end, DEFAULT_PROJECT, NOW)


async def test_a_project_ends_only_without_keys_and_live_batches_and_its_name_stays_taken(db) -> None:
    assert db.write_now(projects.ensure, "p", NOW)
    assert not db.write_now(projects.ensure, "p", NOW)
    key(db)
    with pytest.raises(Conflict, match="1 keys"):
        db.write_now(projects.end, "p", NOW)
    batch = {
        "id": "batch_1", "project": "p", "key_id": "key_1", "endpoint": "/v1/chat/completions", "expires_at": NOW + 9,
        "input_file_id": "file-1", "completion_window": "24h", "window_seconds": 86400,
    }  # fmt: skip
    db.write_now(create_batch, NOW, batch)
    db.write_now(keys.end, "key_1", NOW)
    with pytest.raises(Conflict, match="1 batches"):
        db.write_now(projects.end, "p", NOW)
    db.write_now(projects.add, {"name": "q", "created_at": NOW})
    db.write_now(projects.end, "q", NOW)
    assert "q" not in names(db)
    for again in (lambda: db.write_now(projects.ensure, "q", NOW), lambda: db.write_now(projects.end, "q", NOW)):
        with pytest.raises((Conflict, NotFound)):
            again()
    with pytest.raises(Conflict, match="deleted"):
        db.write_now(projects.add, {"name": "q", "created_at": NOW})


async def test_no_key_comes_into_a_project_that_ends_at_the_same_moment(db) -> None:
    def join(tx: Any, number: int) -> None:
        projects.ensure(tx, "p", NOW)
        row = {"id": f"key_{number}", "name": "n", "project": "p", "scopes": ["read"], "hash": str(number)}
        keys.add(tx, {**row, "created_at": NOW})

    db.write_now(projects.add, {"name": "p", "created_at": NOW})
    done = await asyncio.gather(
        db.write(join, 1), db.write(projects.end, "p", NOW), db.write(join, 2), return_exceptions=True
    )
    members = db.write_now(keys.of_project, "p")
    try:
        db.write_now(projects.get, "p")
    except NotFound:
        assert members == 0, done
    else:
        assert members > 0, done


# The audit log --------------------------------------------------------------------------------------------------------


async def test_the_log_is_walked_in_both_orders_without_gaps_or_repeats(db) -> None:
    for number in range(7):
        db.write_now(audit.record, Actor("key_1", "r"), "a.b", f"t{number}", NOW + number // 2, {"n": number})
    for order in ("asc", "desc"):
        seen: list[str] = []
        more, after = True, None
        while more:
            rows, more = db.write_now(audit.page, AuditFilter(limit=2, order=order, after=after))
            seen += [row["target"] for row in rows]
            after = rows[-1]["id"]
        assert len(seen) == len(set(seen)) == 7
        assert seen[0][0] == "t"
    rows, _ = db.write_now(audit.page, AuditFilter(created_after=int(NOW), created_before=int(NOW) + 2))
    assert {row["target"] for row in rows} == {"t2", "t3"}


async def test_an_action_that_fails_is_not_in_the_log(db) -> None:
    def act(tx: Any) -> None:
        audit.record(tx, Actor("key_1", "r"), "a.b", "t", NOW, {})
        raise RuntimeError("the process died here")

    with pytest.raises(RuntimeError):
        await db.write(act)
    assert await db.read(lambda tx: tx.execute(audit_table.select()).all()) == []
