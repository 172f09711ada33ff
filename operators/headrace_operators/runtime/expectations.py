"""What we wrote and the caches have not seen yet: until they have, no plan is made, or it would act twice.

A write's answer names the version that it made. A store that has seen that version, or a later one, knows of it. A
delete's answer names none: the object's uid must be gone, or marked as going.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from headrace_operators.runtime.cache import Caches, version_of
from headrace_operators.runtime.kinds import Key, Kind, Object
from headrace_operators.runtime.logs import Log, object_fields

# After so long a watch is taken to be unable to tell (its label selector leaves our object out, say). Acting twice is
# then still prevented by names, uids and resource versions, which the API server checks.
_LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class _Written:
    kind: Kind
    version: int
    until: float

    def seen(self, caches: Caches) -> bool:
        return caches.stores[self.kind].seen >= self.version


@dataclass(frozen=True)
class _Deleted:
    kind: Kind
    key: Key
    uid: str
    until: float

    def seen(self, caches: Caches) -> bool:
        held = caches.get(self.kind, self.key)
        return held is None or held["metadata"]["uid"] != self.uid or "deletionTimestamp" in held["metadata"]


class Expectations:
    """Of one controller, by primary."""

    def __init__(self, caches: Caches, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._caches = caches
        self._log = log
        self._clock = clock
        self._waiting: dict[Key, list[_Written | _Deleted]] = {}

    def wrote(self, primary: Key, kind: Kind, answer: Object) -> None:
        """We wrote an object for PRIMARY, and ANSWER is what became of it."""
        self._expect(primary, _Written(kind, version_of(answer), self._clock() + _LIMIT_SECONDS))

    def deleted(self, primary: Key, kind: Kind, key: Key, uid: str) -> None:
        """We deleted an object for PRIMARY."""
        self._expect(primary, _Deleted(kind, key, uid, self._clock() + _LIMIT_SECONDS))

    def unseen(self, primary: Key) -> str:
        """What the caches have not seen yet of what we did for PRIMARY, in words; "" for nothing."""
        now = self._clock()
        waiting = [entry for entry in self._waiting.get(primary, ()) if not entry.seen(self._caches)]
        for late in [entry for entry in waiting if entry.until <= now]:
            words = "a %s that we wrote was not seen for %g s: does the watch leave it out?"
            self._log.warning(words, late.kind.kind, _LIMIT_SECONDS, fields=object_fields(primary))
            waiting.remove(late)
        if not waiting:
            self._waiting.pop(primary, None)
            return ""
        self._waiting[primary] = waiting
        return ", ".join(sorted({entry.kind.kind for entry in waiting}))

    def forget(self, primary: Key) -> None:
        """PRIMARY is gone."""
        self._waiting.pop(primary, None)

    def _expect(self, primary: Key, entry: _Written | _Deleted) -> None:
        if entry.kind in self._caches.stores and not entry.seen(self._caches):
            self._waiting.setdefault(primary, []).append(entry)
