"""Money is whole pico-dollars (1e-12 USD): sums are exact, and one token of any price is a whole number of them.

An amount that is not known is None, and shows as `unknown`; it is never 0.
"""

from __future__ import annotations

from decimal import Decimal

PICO = 10**12


def to_pico(dollars: Decimal | str) -> int:
    """Pico-dollars of a dollar figure; ValueError when it is finer than a pico-dollar."""
    pico = Decimal(dollars) * PICO
    if pico != pico.to_integral_value():
        raise ValueError(f"{dollars} USD is finer than a pico-dollar")
    return int(pico)


def to_dollars(pico: int) -> str:
    """The dollar figure as a plain decimal string, such as `0.00123`."""
    text = format(Decimal(pico).scaleb(-12), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
