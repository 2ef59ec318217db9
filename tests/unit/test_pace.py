from __future__ import annotations

from math import exp

import pytest

from batchway.executor.pace import LONGEST_HOLD, SLOW, Pace
from tests.unit.endpoint_in_virtual_time import Endpoint, play


def about_a_second(random, _now):
    return random.uniform(0.8, 1.2)


def exactly_a_second(_random, _now):
    return 1.0


def widely_spread(random, _now):
    return random.lognormvariate(-0.18, 0.6)


def stepping(now):
    """An endpoint that is made smaller, and then larger than before."""
    return 200 if now < 40 else 50 if now < 80 else 400


IDEAL = 200 * 40 + 50 * 40 + 400 * 40


@pytest.mark.parametrize("latency", [exactly_a_second, about_a_second, widely_spread])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_unknown_and_changing_capacity_is_used_and_hardly_ever_exceeded(latency, seed):
    run = play(Endpoint(stepping, latency), 120, seed=seed)
    assert len(run.answered) >= 0.9 * IDEAL
    assert run.refused_share(after=10) < 0.01
    for begun, capacity in ((0, 200), (40, 50), (80, 400)):
        assert abs(run.limit_at(begun + 10) - capacity) <= 0.15 * capacity, (begun, run.limit_at(begun + 10))


def test_from_a_low_start_the_capacity_is_reached_within_rounds_that_double():
    run = play(Endpoint(lambda _: 500, about_a_second), 12)
    assert run.limits[0][1] <= 32
    assert abs(run.limit_at(9) - 500) <= 25


def test_a_refusal_of_a_try_sets_the_limit_to_what_was_taken():
    pace = Pace(start=8)
    for number in range(8):
        pace.sent(0.0, number + 1)
    for left in (7, 6, 5):
        assert pace.lost(0.0, 0.01, left) == 0
    assert pace.limit(0.02) == 5


def test_what_is_added_comes_bit_by_bit_and_stops_at_the_first_refusal():
    pace = Pace(start=8)
    for number in range(8):
        pace.sent(0.0, number + 1)
    pace.taken(0.0, 1.0)
    assert pace.limit(1.0) == 9
    assert pace.limit(1.5) == 12
    assert pace.rises_at(1.0) == pytest.approx(1.25)
    pace.sent(1.5, 12)
    pace.lost(1.5, 1.51, 11)
    assert pace.limit(9.0) == 11
    assert pace.rises_at(1.52) is None


def test_slow_refusals_are_followed_by_few_others():
    run = play(Endpoint(lambda _: 200, about_a_second, refusal=0.3), 60)
    assert run.refused_share(after=10) < 0.02
    assert len(run.answered) >= 0.85 * 200 * 60


def test_an_endpoint_that_became_smaller_is_left_alone_at_once():
    run = play(Endpoint(lambda now: 200 if now < 20 else 20, about_a_second), 40)
    storm = sum(20 <= at <= 25 for at in run.refused)
    assert storm <= 60, storm  # of the 200 that come back in the first second
    assert all(limit <= 22 for limit in run.limits_between(26, 40))


def test_a_brown_out_is_not_hammered_and_is_recovered_from():
    run = play(Endpoint(lambda now: 0 if 20 < now < 30 else 100, lambda *_: 0.5), 60)
    assert sum(21 <= at <= 30 for at in run.refused) <= 40
    assert run.limit_at(40) >= 90


def test_the_hold_grows_with_losses_in_a_row_and_ends_with_an_answer():
    pace = Pace(start=1)
    pace.sent(0.0, 1)
    holds = [pace.lost(float(second), second + 0.5, 0) for second in range(1, 15)]
    assert holds == sorted(holds)
    assert holds[0] == 0
    assert holds[-1] == LONGEST_HOLD
    pace.taken(20.0, 21.0)
    assert pace.lost(22.0, 22.5, 0) == 0


def test_a_queue_at_the_endpoint_stays_short_and_costs_no_throughput():
    run = play(Endpoint(lambda _: 32, lambda random, _: random.uniform(0.3, 0.7), queues=True), 120)
    assert len(run.answered) >= 0.95 * 32 / 0.5 * 120
    assert max(run.limits_between(60, 120)) <= 32 * SLOW * 2.2


def test_longer_lines_are_not_taken_for_a_crowd_for_ever():
    def longer(random, now):
        return random.uniform(0.3, 0.7) * (1 if now < 30 else 8)

    run = play(Endpoint(lambda _: 100, longer), 150)
    assert run.limit_at(29) >= 95
    assert run.limit_at(150) >= 90
    assert sum(at > 60 for at in run.answered) >= 0.85 * 100 / 4 * 90


def test_a_cold_start_does_not_keep_the_limit_low():
    run = play(Endpoint(lambda _: 100, lambda _random, now: 10.0 if now < 5 else 0.5), 30)
    assert run.limit_at(18) >= 90


def test_noisy_latency_alone_costs_little():
    run = play(Endpoint(lambda _: 100, lambda random, _: random.lognormvariate(-1, 1.0)), 90)
    assert len(run.answered) >= 0.9 * 90 * 100 / exp(-1 + 0.5)


def test_the_limit_stays_between_floor_and_ceiling():
    grown = play(Endpoint(lambda _: 10_000, about_a_second), 20, pace=Pace(ceiling=64))
    assert max(limit for _, limit in grown.limits) == 64
    starved = play(Endpoint(lambda _: 0, about_a_second), 20, pace=Pace(floor=2))
    assert min(limit for _, limit in starved.limits) == 2


def test_work_that_does_not_fill_the_limit_does_not_raise_it():
    pace = Pace(start=16)
    now = 0.0
    for _ in range(100):
        pace.sent(now, 1)
        pace.taken(now, now + 1.0)
        now += 1.0
    assert pace.limit(now) == 16
