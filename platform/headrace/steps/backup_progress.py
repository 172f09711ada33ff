"""What a long backup or restore says of itself: a line every few seconds, however small or large its pieces are."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 3.0  # between two lines


class Progress:
    """Says how far something is, if the last time was a while ago. `clock` gives seconds."""

    def __init__(self, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tell, self._clock = tell, clock
        self._told = clock()

    def __call__(self, words: Callable[[], str]) -> None:
        """Say WORDS, if it is time."""
        if self._clock() - self._told >= SECONDS:
            self._told = self._clock()
            self._tell(words())
