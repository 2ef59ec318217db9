from __future__ import annotations

import asyncio
import json
import time

from batchway.core.states import Outcome
from batchway.db import chunks, jobs, segments
from batchway.executor.segments import read_segment
from tests.stages.executor_world import QUICK, answer, refusal, until, world


def contents(count):
    return [f"line {number}" for number in range(1, count + 1)]


async def test_every_line_is_answered_once(tmp_path):
    async with world(tmp_path) as w:
        job = await w.job(contents(700))
        assert await w.provider.find(job) is None
        await w.submit(job)
        await w.submit(job)  # a repeat plans nothing
        await w.finished(job)
        look = await w.provider.look(job)
        answers = await w.answers(job)
        assert await w.provider.find(job) == job.id
        assert (look.outcome, look.counts.completed, look.counts.failed) == (Outcome.SUCCEEDED, 700, 0)
        assert sorted(a.custom_id for a in answers) == sorted(f"c{n}" for n in range(1, 701))
        assert set(w.server.seen.values()) == {1}
        assert len(w.server.seen) == 700
        assert w.ended == [job.id]
        row = await w.db.read(jobs.get, job.id)
        assert (row["completed"], row["failed"]) == (700, 0)


async def test_an_answer_is_openais_output_line_with_the_servers_own_body(tmp_path):
    body = b'{\n  "object": "chat.completion", "n": 12345678901234567890,\r\n "u": "\xc3\xa9"\n}'

    async def behave(content, _):
        return 200, {"x-request-id": "req_7"}, body

    async with world(tmp_path, behave) as w:
        job = await w.job(["x"])
        await w.submit(job)
        await w.finished(job)
        [found] = await w.answers(job)
        line = json.loads(found.line)
        assert b"\n" not in found.line
        assert b"\r" not in found.line
        assert list(line) == ["id", "custom_id", "response", "error"]
        assert line["id"].startswith("batch_req_")
        assert line["response"] == {"status_code": 200, "request_id": "req_7", "body": json.loads(body)}
        assert line["error"] is None
        assert found.ok
        [row] = await w.db.read(segments.of_job, job.id)
        [stored] = await read_segment(w.storage, row["storage_key"])
        assert stored[:3] == (1, True, found.line)
        assert stored.milliseconds == found.milliseconds
        assert segments.unpack(row["numbers"]) == (1,)


async def test_lines_go_to_the_endpoints_path_with_its_headers_and_the_routes_model(tmp_path):
    async with world(tmp_path) as w:
        job = await w.job(contents(6), model="native-name", names=("alias", "native-name"))
        await w.submit(job)
        await w.finished(job)
        assert w.server.models == {"native-name": 6}
        assert w.server.paths == {"/v1/chat/completions": 6}
        assert w.server.keys == {"Bearer secret"}


async def test_only_the_lines_of_the_jobs_models_are_sent(tmp_path):
    async with world(tmp_path) as w:
        job = await w.job(contents(600), model="a", names=("a", "b"))
        job = await w.job(contents(600), model="a", names=("a", "b"))
        mine = type(job.span)(
            file_key=job.span.file_key, start=0, end=job.span.end, first_line=1, models=frozenset({"a"})
        )
        await w.db.write(jobs.note, job.id, {"models": ["a"]})
        await w.submit(type(job)(**{**{f: getattr(job, f) for f in job.__struct_fields__}, "span": mine}))
        await w.finished(job)
        assert len(w.server.seen) == 300
        assert (await w.provider.look(job)).outcome is Outcome.SUCCEEDED


async def test_concurrency_never_exceeds_the_setting_over_all_chunks(tmp_path):
    async def behave(content, _):
        await asyncio.sleep(0.005)
        return answer()

    async with world(tmp_path, behave, concurrency=7) as w:
        first, second = await w.job(contents(300), block=32), await w.job(contents(300), block=32)
        await w.submit(first)
        await w.submit(second)
        await w.finished(first)
        await w.finished(second)
        assert w.server.most == 7


async def test_an_answer_carries_how_long_its_endpoint_was_busy_with_it(tmp_path):
    async def behave(content, time_seen):
        if time_seen == 1:
            await asyncio.sleep(0.5)
            return refusal(500)
        await asyncio.sleep(0.05)
        return answer()

    async with world(tmp_path, behave) as w:
        job = await w.job(contents(3))
        await w.submit(job)
        await w.finished(job)
        assert all(found.milliseconds >= 50 for found in await w.answers(job))


async def test_lines_that_fail_take_no_neighbour_along(tmp_path):
    async def behave(content, time_seen):
        match int(content.split()[1]) % 6:
            case 0:
                return refusal(400)
            case 1 if time_seen < 3:
                return refusal(500)
            case 2:
                return 503, {}, b"<html>busy</html>"
            case 3:
                return 200, {}, b"<html>hello</html>"
            case _:
                return answer(content)

    async with world(tmp_path, behave) as w:
        job = await w.job(contents(60))
        await w.submit(job)
        await w.finished(job)
        found = {int(a.custom_id[1:]): json.loads(a.line) for a in await w.answers(job)}
        look = await w.provider.look(job)
        assert len(found) == 60
        assert (look.outcome, look.counts.completed, look.counts.failed) == (Outcome.SUCCEEDED, 30, 30)
        seen = {number: w.server.seen[f"line {number}"] for number in found}
        assert {seen[n] for n in found if n % 6 == 0} == {1}
        assert {found[n]["response"]["status_code"] for n in found if n % 6 == 0} == {400}
        assert {seen[n] for n in found if n % 6 == 1} == {3}
        assert {found[n]["response"]["status_code"] for n in found if n % 6 == 1} == {200}
        assert {seen[n] for n in found if n % 6 == 2} == {3}
        assert {found[n]["response"]["body"]["error"]["code"] for n in found if n % 6 == 2} == {"invalid_response"}
        assert {found[n]["error"]["code"] for n in found if n % 6 == 3} == {"invalid_response"}


async def test_an_endpoint_that_is_not_there_fails_its_lines_and_ends_the_job(tmp_path):
    async with world(tmp_path) as w:
        w.executor.endpoints = {"local": type(w.endpoint)(base_url="http://127.0.0.1:9/v1", headers={}, concurrency=4)}
        job = await w.job(contents(3))
        await w.submit(job)
        await w.finished(job)
        codes = {json.loads(a.line)["error"]["code"] for a in await w.answers(job)}
        assert codes == {"endpoint_unreachable"}


async def test_a_request_without_an_answer_in_time_is_a_timeout(tmp_path):
    async def behave(content, _):
        await asyncio.sleep(5)
        return answer()

    async with world(tmp_path, behave) as w:
        short = type(w.endpoint)(base_url=w.server.base_url, headers={}, concurrency=4, timeout=0.1)
        w.executor.endpoints = {"local": short}
        job = await w.job(contents(2))
        await w.submit(job)
        await w.finished(job)
        codes = {json.loads(a.line)["error"]["code"] for a in await w.answers(job)}
        assert codes == {"request_timeout"}
        assert set(w.server.seen.values()) == {3}


async def test_retry_after_holds_the_whole_account_back(tmp_path):
    refused_at = []

    async def behave(content, _):
        if not refused_at:
            refused_at.append(time.perf_counter())
            return refusal(429, retry_after="1")
        await asyncio.sleep(0.02)
        return answer()

    async with world(tmp_path, behave, concurrency=4) as w:
        job = await w.job(contents(40))
        await w.submit(job)
        await w.finished(job)
        held = [at for at in w.server.at if refused_at[0] + 0.2 < at < refused_at[0] + 0.98]
        assert held == []
        assert max(w.server.at) > refused_at[0] + 0.98
        assert (await w.provider.look(job)).counts.completed == 40


async def test_an_appointment_uses_up_no_attempt(tmp_path):
    async def behave(content, time_seen):
        return refusal(429, retry_after_ms="20") if time_seen <= 6 else answer()

    async with world(tmp_path, behave, concurrency=2) as w:
        job = await w.job(contents(2))
        await w.submit(job)
        await w.finished(job)
        assert QUICK.line.attempts < 6
        assert (await w.provider.look(job)).counts.completed == 2


async def test_nothing_is_retried_past_the_deadline(tmp_path):
    async def behave(content, _):
        return refusal(429, retry_after="60") if content == "line 1" else answer()

    async with world(tmp_path, behave, concurrency=1) as w:
        job = await w.job(contents(3), window=1.0)
        await w.submit(job)
        await w.finished(job)
        look = await w.provider.look(job)
        [found] = await w.answers(job)
        assert look.outcome is Outcome.EXPIRED
        assert json.loads(found.line)["response"]["status_code"] == 429
        assert w.server.seen == {"line 1": 1}


async def test_a_freed_slot_takes_the_next_request_at_once(tmp_path):
    async def behave(content, _):
        await asyncio.sleep(0.03)
        return answer()

    async with world(tmp_path, behave, concurrency=1) as w:
        job = await w.job(contents(40), block=8)  # across chunks too
        await w.submit(job)
        await w.finished(job)
        gaps = sorted(at - done for done, at in zip(w.server.done_at, w.server.at[1:], strict=False))
        assert gaps[len(gaps) // 2] < 0.05  # no tick, no poll: those are 0.2 s here


async def test_a_one_line_job_ends_right_after_its_answer(tmp_path):
    async with world(tmp_path) as w:
        job = await w.job(["x"])
        await w.submit(job)
        await w.finished(job)
        assert time.perf_counter() - w.server.done_at[0] < 1


async def test_cancel_stops_a_job_within_a_second_and_keeps_what_was_answered(tmp_path):
    async def behave(content, _):
        await asyncio.sleep(0.02 if int(content.split()[1]) <= 20 else 20)
        return answer()

    async with world(tmp_path, behave, concurrency=4) as w:
        job = await w.job(contents(200))  # one chunk: the lines that answer at once come first
        await w.submit(job)
        await until(lambda: w.server.open == 4 and len(w.server.seen) == 24)
        asked = time.perf_counter()
        await w.provider.cancel(job)
        await w.finished(job)
        assert time.perf_counter() - asked < 1
        look = await w.provider.look(job)
        assert (look.outcome, look.counts.completed) == (Outcome.CANCELLED, 20)
        assert {a.custom_id for a in await w.answers(job)} == {f"c{n}" for n in range(1, 21)}
        assert len(w.server.seen) == 24
        await w.provider.cancel(job)
        assert (await w.provider.look(job)).outcome is Outcome.CANCELLED


async def test_an_answer_within_the_grace_of_a_cancel_is_kept(tmp_path):
    async def behave(content, _):
        await asyncio.sleep(0.3)
        return answer()

    async with world(tmp_path, behave, concurrency=2) as w:
        job = await w.job(contents(10))
        await w.submit(job)
        await until(lambda: w.server.open == 2)
        await w.provider.cancel(job)
        await w.finished(job)
        assert (await w.provider.look(job)).counts.completed == 2
        assert sum(w.server.seen.values()) == 2


async def test_a_stop_written_by_another_process_is_heard_within_a_tick(tmp_path):
    async def behave(content, _):
        await asyncio.sleep(20)
        return answer()

    async with world(tmp_path, behave, concurrency=2) as w:
        job = await w.job(contents(10))
        await w.submit(job)
        await until(lambda: w.server.open == 2)
        await w.db.write(chunks.stop, job.id, time.time())
        await w.finished(job, timeout=2)
        assert (await w.provider.look(job)).outcome is Outcome.CANCELLED


async def test_a_poisoned_chunk_ends_and_stops_nobody_else(tmp_path):
    async with world(tmp_path) as w:
        bad, good = await w.job(contents(5)), await w.job(contents(5))
        await w.storage.delete(bad.span.file_key)
        await w.submit(bad)
        await w.submit(good)
        await w.finished(good)
        await w.finished(bad)
        look = await w.provider.look(bad)
        assert (look.outcome, look.code) == (Outcome.FAILED, "execution_failed")
        assert (await w.provider.look(good)).outcome is Outcome.SUCCEEDED


async def test_clean_leaves_nothing(tmp_path):
    async with world(tmp_path) as w:
        job = await w.job(contents(300))
        await w.submit(job)
        await w.finished(job)
        await w.provider.clean(job, await w.provider.look(job))
        await w.provider.clean(job, await w.provider.look(job))
        assert await w.provider.find(job) is None
        assert [key async for key in w.storage.list("segments")] == []
