"""Quantities of Kubernetes (`500m`, `4Gi`) as numbers, and in the one form that nobody rewrites.

KubeRay reads whole objects into Go types and writes them back; a quantity that is not in its canonical form comes back
spelt differently, which would be a new generation and a conflict with what we apply next.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache

_DECIMAL = {"m": Fraction(1, 1000)} | {suffix: Fraction(1000**n) for n, suffix in enumerate(("", *"kMGTP"))}
_BINARY = {suffix: Fraction(1024**n) for n, suffix in enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi"))}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")


@lru_cache(maxsize=1024)
def number(quantity: str) -> Fraction:
    """What QUANTITY means: cores or bytes. Raises ValueError for what is none."""
    found = _QUANTITY.fullmatch(quantity)
    if found is None:
        raise ValueError(f"{quantity!r} is no quantity; write a number with a unit, as 500m, 2 or 4Gi")
    suffix = found[2] or ""
    return Fraction(found[1]) * (_BINARY | _DECIMAL)[suffix]


def whole(quantity: str) -> int:
    """QUANTITY in whole units, rounded down: 500m is 0."""
    return math.floor(number(quantity))


def canonical(quantity: str) -> str:
    """QUANTITY as the API server's own types write it: no fraction, the largest unit that keeps it whole."""
    value = number(quantity)
    units = _BINARY if quantity.endswith("i") else _DECIMAL
    for suffix, unit in reversed(units.items()):
        count = value / unit
        if count >= 1 and count.denominator == 1:
            return f"{count}{suffix}"
    smallest = next(iter(units))
    return f"{math.ceil(value / units[smallest])}{smallest}" if value else "0"
