"""Kubernetes' quantities (`500m`, `4Gi`) as numbers."""

from __future__ import annotations

import re
from decimal import Decimal

_SUFFIXES = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTP", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTP", start=1)},
}
_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)")


def number_of(quantity: str) -> Decimal:
    """The number of cores or bytes that QUANTITY (`headrace.api.parts.QUANTITY`) says.

    Raises:
        ValueError: it is none.
    """
    match = _FORM.fullmatch(quantity)
    if match is None or match[2] not in _SUFFIXES:
        raise ValueError(f"{quantity!r} is no quantity; write a number and a unit, as 500m or 4Gi")
    return Decimal(match[1]) * _SUFFIXES[match[2]]
