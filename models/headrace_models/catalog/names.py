"""Hints for misspelt names, in one place so that every message of Headrace suggests alike."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from fnmatch import fnmatchcase


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def nearest(name: str, names: Iterable[str], *, most: int = 3) -> list[str]:
    """The names that NAME may have meant, the likeliest first; empty when none is close.

    Case, hyphens and underscores do not count, so that `ResNet_8` finds `resnet8`.
    """
    given = _plain(name)
    scored = []
    for candidate in names:
        other = _plain(candidate)
        ratio = SequenceMatcher(None, given, other).ratio()
        if len(given) >= 3 and (other.startswith(given) or given.startswith(other)):
            ratio = max(ratio, 0.8)
        if ratio >= 0.6:
            scored.append((-ratio, candidate))
    return [candidate for _, candidate in sorted(scored)[:most]]


def matches(name: str, pattern: str) -> bool:
    """Whether PATTERN means the parameter NAME: its beginning (`layer1.`), or a pattern with `*`, `?` or `[`."""
    if any(sign in pattern for sign in "*?["):
        return fnmatchcase(name, pattern)
    return name.startswith(pattern)


def listed(name: str, names: Iterable[str]) -> str:
    """All NAMES as one text, those nearest to NAME first."""
    every = list(names)
    first = nearest(name, every)
    return ", ".join([*first, *(other for other in every if other not in first)])
