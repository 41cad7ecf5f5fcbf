"""Quantities: `100m`, `1.5Gi`, `2e3`: reading, comparing, adding, and the one text the API stores for each.

The stored text loses no precision, has no fraction, and uses the largest suffix that allows both: `0.1` is `100m`,
`1.5Gi` is `1536Mi`, `1000m` is `1`. What is finer than a billionth is rounded away from zero.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache, total_ordering
from typing import Literal

Format = Literal["binary", "decimal", "exponent"]

FORM = r"^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
WHOLE = re.compile(FORM)
NUMBER = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?")
EXPONENT = re.compile(r"[eE]([+-]?[0-9]+)")
BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
BINARY_SUFFIX = {power: text for text, power in BINARY.items()}
DECIMAL_SUFFIX = {power: text for text, power in DECIMAL.items()}
NANO = 10**9
MOST = (2**63 - 1) * NANO
FORM_TEXT = f"quantities must match the regular expression '{FORM}'"
SUFFIX_TEXT = "unable to parse quantity's suffix"


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """An amount in billionths and the family of suffixes it prints with; equal if the amounts are."""

    nanos: int
    format: Format = "decimal"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nanos == other.nanos

    def __lt__(self, other: Quantity) -> bool:
        return self.nanos < other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __add__(self, other: Quantity) -> Quantity:
        """The sum, printed like the first operand unless that is nothing."""
        return Quantity(self.nanos + other.nanos, self.format if self.nanos else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos - other.nanos, self.format if self.nanos else other.format)

    def __bool__(self) -> bool:
        return self.nanos != 0

    @property
    def value(self) -> int:
        """Whole units, rounded up: bytes of memory, CPUs."""
        return -(-self.nanos // NANO)

    @property
    def milli(self) -> int:
        """Thousandths, rounded up: thousandths of a CPU."""
        return -(-self.nanos // 10**6)

    def __str__(self) -> str:
        """The canonical text."""
        if self.nanos == 0:
            return "0"
        if self.format == "binary" and abs(self.nanos) >= 1024 * NANO:
            amount, power = away_from_zero(self.nanos, NANO), 0
            while power < 60 and amount % 1024 == 0:
                amount, power = amount // 1024, power + 10
            return f"{amount}{BINARY_SUFFIX[power] if power else ''}"
        amount, power = self.nanos, -9
        while power < 18 and amount % 1000 == 0:
            amount, power = amount // 1000, power + 3
        if self.format == "exponent":
            return f"{amount}e{power}" if power else str(amount)
        return f"{amount}{DECIMAL_SUFFIX[power]}"


ZERO = Quantity(0)


def away_from_zero(numerator: int, denominator: int) -> int:
    quotient = -(-abs(numerator) // denominator)
    return quotient if numerator >= 0 else -quotient


@lru_cache(maxsize=1024)
def parse_text(text: str) -> Quantity:
    whole = WHOLE.match(text)
    number = NUMBER.fullmatch(whole[1]) if whole else None
    if whole is None or number is None or not (number[2] or number[3]):
        raise ValueError(FORM_TEXT)
    suffix = whole[2]
    digits, fraction = number[2] or "", number[3] or ""
    amount = int(digits + fraction)
    scale = len(fraction)
    format: Format
    if suffix in BINARY:
        format, numerator, power = "binary", amount << BINARY[suffix], -scale
    elif suffix in DECIMAL:
        format, numerator, power = "decimal", amount, DECIMAL[suffix] - scale
    elif (exponent := EXPONENT.fullmatch(suffix)) and abs(int(exponent[1])) < 1000:
        format, numerator, power = "exponent", amount, int(exponent[1]) - scale
    else:
        raise ValueError(SUFFIX_TEXT)
    power += 9
    nanos = numerator * 10**power if power >= 0 else away_from_zero(numerator, 10**-power)
    nanos = min(nanos, MOST)
    return Quantity(-nanos if number[1] == "-" else nanos, format)


def parse(value: str | int | float) -> Quantity:
    """The quantity of a text or, as some clients write it, a JSON number; ValueError with the API's words."""
    if isinstance(value, str):
        return parse_text(value.strip())
    return parse_text(repr(value) if isinstance(value, float) else str(int(value)))


def canonical(value: str | int | float) -> str:
    """The text that the API stores for it; ValueError if it is no quantity."""
    return str(parse(value))
