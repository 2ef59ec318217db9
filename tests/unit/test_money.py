from __future__ import annotations

from decimal import Decimal

import pytest

from batchway.core.money import PICO, to_dollars, to_pico


@pytest.mark.parametrize(
    ("dollars", "pico"),
    [("0", 0), ("1", PICO), ("0.00123", 1_230_000_000), ("0.000000000001", 1), ("-2.5", -2_500_000_000_000)],
)
def test_dollars_and_pico_dollars_are_the_same_money(dollars: str, pico: int) -> None:
    assert to_pico(dollars) == to_pico(Decimal(dollars)) == pico
    assert to_dollars(pico) == dollars


def test_what_is_finer_than_a_pico_dollar_is_refused() -> None:
    with pytest.raises(ValueError, match="finer than a pico-dollar"):
        to_pico("0.0000000000001")


@pytest.mark.parametrize(("pico", "dollars"), [(10 * PICO, "10"), (100, "0.0000000001"), (10**24, "1000000000000")])
def test_an_amount_is_written_plainly_without_exponent_or_idle_zeros(pico: int, dollars: str) -> None:
    assert to_dollars(pico) == dollars


def test_sums_beyond_a_double_stay_exact() -> None:
    amount = 9_007_199_254_740_993  # 2**53 + 1
    assert to_pico(to_dollars(amount)) == amount
