"""`builtin:digit-scenes-low` and `-high`: the scenes of `builtin:digit-scenes` with digits 0 to 4, and with 5 to 9.

Two sets of the same kind of picture with other classes: one to learn from, and one to carry over to, with few samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.data import builtin_digit_scenes


@dataclass(frozen=True)
class Half:
    """The scenes with one of DIGITS."""

    digits: range

    def version(self) -> str:
        """See `BuiltinSet`."""
        return builtin_digit_scenes.version()

    def contents(self) -> Mapping[str, bytes]:
        """See `BuiltinSet`."""
        return builtin_digit_scenes.scenes(self.digits)


LOW, HIGH = Half(range(5)), Half(range(5, 10))
