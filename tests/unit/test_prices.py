from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from batchway.billing.prices import TABLES, LongFigures, Price, Prices, Row, price_of, read_table
from batchway.core.jobs import REGIONAL
from batchway.core.money import PICO
from batchway.core.usage import Usage

KINDS = sorted(path.stem for path in TABLES.glob("*.jsonl"))
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_prices.py"


def at(day: str) -> float:
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()


NOW = at("2026-11-22")
READ = date(2026, 11, 22)


def row(model="m", lane="native", **fields) -> Row:
    figures = {name: Decimal(text) if isinstance(text, str) else text for name, text in fields.items()}
    return Row(model=model, lane=lane, source="somewhere", read=READ, **{"input": Decimal(1), **figures})


def prices(*rows: Row) -> Prices:
    return Prices(lambda kind: rows if kind == "k" else [])


SHIPPED = Prices()


# What is unknown ------------------------------------------------------------------------------------------------------


def test_an_unknown_price_is_none_and_never_zero() -> None:
    assert SHIPPED.price("openai", "no-such-model", "native", NOW) is None
    assert SHIPPED.price("no-such-kind", "gpt-4o-mini", "native", NOW) is None
    assert SHIPPED.price("../tables/openai", "gpt-4o-mini", "native", NOW) is None


def test_a_live_price_never_stands_in_for_a_missing_batch_price() -> None:
    known = prices(row(lane="executed"))
    assert known.price("k", "m", "executed", NOW) is not None
    assert known.price("k", "m", "native", NOW) is None


@pytest.mark.parametrize("name", ["gpt-4o-mini-x", "gpt-4o-min", "GPT-4o-mini", "gpt-4o-mini-0718", " gpt-4o-mini"])
def test_a_name_that_is_only_like_a_known_one_is_unknown(name: str) -> None:
    assert SHIPPED.price("openai", name, "native", NOW) is None


def test_what_the_sources_disagree_on_is_unknown() -> None:
    disputed = [line.split("\t") for line in (TABLES / "left_out.tsv").read_text().splitlines() if "disagree" in line]
    assert disputed
    for kind, model, _ in disputed:
        assert not [known for known in read_table(kind) if known.model == model]


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m-2027-01-31", "m@20270131", "m-20270131"])
def test_a_dated_snapshot_without_a_row_has_its_models_price(name: str) -> None:
    known = prices(row(input="2"))
    assert known.price("k", name, "native", NOW) == known.price("k", "m", "native", NOW)


def test_a_dated_snapshot_with_a_row_has_its_own_price() -> None:
    known = prices(row(input="2"), row("m-2024-05-13", input="3"))
    assert known.price("k", "m-2024-05-13", "native", NOW).input == 3_000_000


def test_a_snapshot_that_is_known_in_one_lane_borrows_no_price_for_the_other() -> None:
    known = prices(row(), row("m-2024-05-13", "executed", input="3"))
    assert known.price("k", "m-2024-05-13", "native", NOW) is None


def test_a_name_that_was_left_out_borrows_no_price_from_another() -> None:
    for line in (TABLES / "left_out.tsv").read_text().splitlines():
        kind, model, _ = line.split("\t")
        assert SHIPPED.price(kind, model, "native", NOW) is None, (kind, model)
        assert SHIPPED.price(kind, model, "executed", NOW) is None, (kind, model)


def test_a_fine_tune_has_the_fine_tunes_price_and_never_the_models() -> None:
    tuned = SHIPPED.price("openai", "ft:gpt-4o-2024-08-06:acme:triage:9abc", "native", NOW)
    assert tuned == SHIPPED.price("openai", "ft:gpt-4o-2024-08-06", "native", NOW)
    assert prices(row()).price("k", "ft:m:acme::1", "native", NOW) is None


# Amounts --------------------------------------------------------------------------------------------------------------


def test_an_amount_is_exact_in_pico_dollars() -> None:
    price = SHIPPED.price("openai", "gpt-4o-mini", "native", NOW)
    assert price.amount(Usage(input_tokens=1_000_000, output_tokens=1_000_000)) == PICO * 375 // 1000
    assert price.amount(Usage(input_tokens=1)) == 75_000


def test_cached_and_written_tokens_are_part_of_the_input() -> None:
    price = price_of(row(input="10", cached="1", cache_write="12.5", output="40"))
    usage = Usage(input_tokens=100, cached_tokens=60, cache_write_tokens=30, output_tokens=5)
    assert price.amount(usage) == (10 * 10 + 60 * 1) * 10**6 + 30 * 12_500_000 + 5 * 40 * 10**6


def test_cached_tokens_without_a_price_of_their_own_are_billed_as_input() -> None:
    price = price_of(row(input="10"))
    assert price.amount(Usage(input_tokens=7, cached_tokens=5, cache_write_tokens=1)) == 7 * 10 * 10**6


def test_parts_counted_beside_the_input_never_lower_the_amount() -> None:
    price = price_of(row(input="10", cached="1"))
    assert price.amount(Usage(input_tokens=2, cached_tokens=5)) == 5 * 10**6


def test_reasoning_tokens_are_part_of_the_output() -> None:
    price = price_of(row(input="1", output="4"))
    assert price.amount(Usage(output_tokens=10, reasoning_tokens=8)) == price.amount(Usage(output_tokens=10))


def test_sound_and_pictures_are_parts_with_prices_of_their_own() -> None:
    price = price_of(row(input="1", audio_input="32", output="4", audio_output="64", image_output="30"))
    heard = Usage(input_tokens=100, audio_input_tokens=90, output_tokens=50, audio_output_tokens=40)
    assert price.amount(heard) == (10 * 1 + 90 * 32 + 10 * 4 + 40 * 64) * 10**6
    drawn = Usage(input_tokens=1, output_tokens=1300, image_output_tokens=1290)
    assert price.amount(drawn) == (1 + 10 * 4 + 1290 * 30) * 10**6


def test_sound_and_pictures_without_a_price_of_their_own_are_billed_as_text() -> None:
    price = price_of(row(input="1", output="4"))
    usage = Usage(input_tokens=10, audio_input_tokens=9, output_tokens=10, audio_output_tokens=4, image_output_tokens=5)
    assert price.amount(usage) == price.amount(Usage(input_tokens=10, output_tokens=10))


def test_a_price_is_the_same_after_it_was_stored_with_a_job() -> None:
    tier = LongFigures(above=1000, input=Decimal(4), audio_input=Decimal(9))
    price = price_of(row(input="2", output="6", per_second="0.0004", long=(tier,)))
    assert Price.from_json(json.loads(json.dumps(price.to_json()))) == price


def test_a_lines_own_length_chooses_the_long_context_tier_for_all_its_tokens() -> None:
    tier = LongFigures(above=1000, input=Decimal(4), cached=Decimal("0.4"), output=Decimal(9))
    price = price_of(row(input="2", cached="0.2", output="6", long=(tier,)))
    assert price.amount(Usage(input_tokens=1000, output_tokens=1)) == (2000 + 6) * 10**6
    assert price.amount(Usage(input_tokens=1001, output_tokens=1)) == (4004 + 9) * 10**6
    assert price.amount(Usage(input_tokens=1001, cached_tokens=1001)) == 1001 * 400_000


def test_an_embedding_has_no_output_to_pay_for() -> None:
    price = SHIPPED.price("openai", "text-embedding-3-small", "native", NOW)
    assert (price.input, price.output) == (10_000, 0)


def test_a_figure_finer_than_a_pico_dollar_is_refused() -> None:
    with pytest.raises(ValueError, match="finer"):
        price_of(row(input="0.0000001"))


# Published figures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "model", "native", "executed"),
    [  # (input, cached, output) in dollars per million
        ("openai", "gpt-4o-mini", ("0.075", "0.0375", "0.3"), ("0.15", "0.075", "0.6")),
        ("openai", "gpt-5.4-mini", ("0.375", "0.0375", "2.25"), ("0.75", "0.075", "4.5")),
        ("openai", "gpt-3.5-turbo-1106", ("1", "1", "2"), ("1", "1", "2")),  # the one that batches do not make cheaper
        ("openai", "ft:gpt-4o-2024-08-06", ("2.225", "0.9", "12.5"), ("3.75", "1.875", "15")),
        ("azure", "gpt-4o-mini", ("0.075", "0.0375", "0.3"), ("0.15", "0.075", "0.6")),
        ("anthropic", "claude-haiku-4-5", ("0.5", "0.05", "2.5"), ("1", "0.1", "5")),
        ("vertex", "gemini-2.5-flash", ("0.15", "0.03", "1.25"), ("0.3", "0.03", "2.5")),
        ("gemini", "gemini-2.5-flash", ("0.15", "0.03", "1.25"), ("0.3", "0.03", "2.5")),
        ("xai", "grok-4.3", ("1", "0.16", "2"), ("1.25", "0.2", "2.5")),  # a fifth off, not half
    ],
)
def test_each_lane_has_its_published_price(kind, model, native, executed) -> None:
    for lane, figures in (("native", native), ("executed", executed)):
        price = SHIPPED.price(kind, model, lane, NOW)
        assert [price.input, price.cached, price.output] == [int(Decimal(figure) * 10**6) for figure in figures]


def test_a_batch_of_long_prompts_has_its_own_tier() -> None:
    price = SHIPPED.price("openai", "gpt-5.5", "native", NOW)
    assert price.for_length(272_000).output == 15_000_000
    assert price.for_length(272_001).output == 22_500_000


# Regions --------------------------------------------------------------------------------------------------------------


def test_a_model_in_one_region_has_the_surcharge_that_is_published_for_it() -> None:
    for kind, model in (("openai", "gpt-5.5"), ("vertex", "claude-haiku-4-5")):
        for lane in ("native", "executed"):
            anywhere, here = (SHIPPED.price(kind, name, lane, NOW) for name in (model, REGIONAL + model))
            usage = Usage(input_tokens=300_000, cached_tokens=1000, output_tokens=77)
            assert here.amount(usage) * 10 == anywhere.amount(usage) * 11
            assert "one region, 1.1 times" in here.source


def test_a_model_without_a_published_surcharge_costs_the_same_in_every_region() -> None:
    name = "gemini-2.5-flash"
    assert SHIPPED.price("vertex", REGIONAL + name, "native", NOW) == SHIPPED.price("vertex", name, "native", NOW)
    assert SHIPPED.price("vertex", REGIONAL + "no-such-model", "native", NOW) is None


def test_a_zone_whose_price_is_not_published_does_not_get_the_general_one() -> None:
    assert SHIPPED.price("azure", "gpt-4.1-mini", "native", NOW)
    assert SHIPPED.price("azure", "apac/gpt-4.1-mini", "native", NOW) is None


# Days -----------------------------------------------------------------------------------------------------------------


def test_the_day_chooses_the_row_so_a_change_never_rewrites_the_past() -> None:
    before = prices(row(input="2"))
    after = prices(row(input="2"), row(input="3", valid_from=date(2027, 1, 1)))
    for day in ("2020-01-01", "2026-12-31T23:59:59.999"):
        assert after.price("k", "m", "native", at(day)) == before.price("k", "m", "native", at(day))
    assert after.price("k", "m", "native", at("2027-01-01")).input == 3_000_000


def test_a_price_is_unknown_before_its_first_day() -> None:
    known = prices(row(valid_from=date(2026, 10, 14)))
    assert known.price("k", "m", "native", at("2026-10-13")) is None
    assert known.price("k", "m", "native", at("2026-10-14")) is not None


def test_a_past_change_of_price_stands_in_the_table_with_its_day() -> None:
    before, after = (SHIPPED.price("openai", "o3", "executed", at(day)) for day in ("2025-06-09", "2025-06-10"))
    assert (before.input, after.input) == (10_000_000, 2_000_000)


# The tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_of_a_table_is_whole_dated_and_the_only_one_of_its_day(kind: str) -> None:
    rows = read_table(kind)
    assert rows
    keys = [(known.model, known.lane, known.valid_from) for known in rows]
    assert len(set(keys)) == len(keys)
    assert keys == sorted(keys, key=lambda key: (key[0], key[1], key[2] or date.min)), "sorted, so that a diff is small"
    for known in rows:
        price = price_of(known)
        assert price.input > 0
        assert str(known.read) in price.source
        assert all(tier.above > 0 and tier.input > 0 for tier in known.long)


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_holds_figures_as_text_and_no_float(kind: str) -> None:
    def refuse(number: str) -> None:
        raise AssertionError(f"{number} is a float")

    for line in (TABLES / f"{kind}.jsonl").read_text().splitlines():
        fields = json.loads(line, parse_float=refuse)
        for figures in [fields, *fields.get("long", [])]:
            assert all(isinstance(figures[part], str) for part in figures.keys() & {"input", "cached", "output"})


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_never_costs_more_than_the_same_tokens_live(kind: str) -> None:
    """But for cached tokens without a published batch price: they are billed as input, and most lanes report none."""
    fresh = [Usage(input_tokens=many, output_tokens=100) for many in (1000, 500_000)]
    cached = [msgspec.structs.replace(usage, cached_tokens=usage.input_tokens // 10 * 9) for usage in fresh]
    for known in read_table(kind):
        live = SHIPPED.price(kind, known.model, "executed", NOW)
        if known.lane == "native" and live and known.valid_from is None:
            usages = fresh + cached if known.cached else fresh
            dearer = [usage for usage in usages if price_of(known).amount(usage) > live.amount(usage)]
            assert not dearer, (known.model, dearer)


def test_the_tables_are_small_and_their_package_is_light() -> None:
    assert sum(path.stat().st_size for path in TABLES.iterdir()) < 500_000
    code = "import sys, batchway.billing.estimate; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"genai_prices", "pydantic", "sqlalchemy"} & set(loaded)


# The script that makes them -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script():
    sys.path.append(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("make_prices", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_made_again_a_table_gains_rows_and_changes_none(script) -> None:
    old = [row(input="2", lane="executed"), row(input="1")]
    new = [row(input="2", lane="executed"), row(input="0.8"), row("n", input="5")]
    merged = script.merge(old, new, date(2027, 3, 1))
    assert [known for known in merged if known in old] == old
    assert [known for known in merged if known not in old] == [
        row(input="0.8", valid_from=date(2027, 3, 1)),
        row("n", input="5"),
    ]
    assert script.merge(merged, new, date(2027, 3, 2)) == merged


def test_a_model_that_left_its_sources_keeps_its_rows(script) -> None:
    assert script.merge([row()], [], date(2027, 3, 1)) == [row()]


def test_a_change_announced_for_later_is_added_with_its_own_day(script) -> None:
    later = row(input="9", valid_from=date(2028, 1, 1))
    assert script.merge([row()], [row(), later], date(2027, 3, 1)) == [row(), later]


def test_a_source_without_a_batch_price_is_not_asked_to_make_one_up(script) -> None:
    """genai-prices answers the live price for a batch where it has no other."""
    model = next(model for model in script._models(script.KINDS["openai"]) if not model.price_variants)
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    assert model.get_prices(moment, {"processing": "batch"}) == model.get_prices(moment)
    assert script.of_genai(model, "executed", READ)
    assert script.of_genai(model, "native", READ) is None


def test_two_sources_that_disagree_make_no_row(script) -> None:
    one = script.Known({"input": Decimal(1), "output": Decimal(2)}, {}, "one")
    other = script.Known({"input": Decimal(1), "output": Decimal(3)}, {}, "other")
    with pytest.raises(script.Unusable, match="disagree: output 2 or 3"):
        script.agreed(one, other)
    assert script.agreed(one, None) == one


def test_a_batch_price_that_leaves_out_long_context_makes_no_row(script) -> None:
    live = script.Known({"input": Decimal(2)}, {1000: {"input": Decimal(4)}}, "one")
    batch = script.Known({"input": Decimal(1)}, {}, "one")
    with pytest.raises(script.Unusable, match="long context"):
        script.complete(script.Kind("x"), "m", batch, live)
    halved = script.complete(script.Kind("x", halves=".*"), "m", batch, live)
    assert halved.long == {1000: {"input": Decimal(2)}}
    assert halved.source == "one; long context half of live"


def test_rows_are_written_as_they_are_read(script) -> None:
    line = script.line_of(row(valid_from=READ, cached="0.5"))
    assert re.match(rb'\{"model":"m","lane":"native","valid_from":"2026-11-22"', line)
    assert msgspec.json.decode(line, type=Row) == row(valid_from=READ, cached="0.5")


def test_a_price_is_a_plain_value() -> None:
    assert Price(1, 1, 1, 2, "s") == Price(1, 1, 1, 2, "s")
    with pytest.raises(AttributeError):
        Price(1, 1, 1, 2, "s").input = 2
