"""One of several replicas acts: a Lease says which, and a clock that no stop can stop says whether it still does.

The leader renews the Lease every two seconds. The others take it when they have seen no renewal for `lease_seconds`.
The leader may write for `renew_seconds` after the start of its last successful renewal: `check` is asked before any
bytes of a write are handed to the kernel. Since renew_seconds is shorter than lease_seconds, and unacknowledged bytes
are dropped in between (transport.py), there is never a moment in which two may write, also when the leader was stopped
(SIGSTOP), swapped out, or cut off. A leader that could not renew in time ends its process.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from headrace_operators.runtime import metrics
from headrace_operators.runtime.client import Client
from headrace_operators.runtime.errors import AlreadyExists, ApiError, Conflict, NotFound, NotLeading
from headrace_operators.runtime.kinds import Key, Kind, Object
from headrace_operators.runtime.logs import Log

LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
_JITTER = 1.2


def uptime() -> float:
    """Seconds by a clock that also goes on while the process is stopped or the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass(frozen=True)
class LeaseTimes:
    """The times of a Lease; by default those of client-go.

    A leader that was killed is followed within lease_seconds + 2 * 1.2 * retry_seconds (20 s), one that ended in peace
    within 1.2 * retry_seconds (2.4 s), each and the time of a request.

    Args:
        lease_seconds: how long the others wait for a renewal.
        renew_seconds: how long after its last renewal a leader may write.
        retry_seconds: how often the Lease is renewed, or looked at.
    """

    lease_seconds: int = 15
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0


@dataclass(frozen=True)
class LeaseOptions:
    """Which Lease, and as whom."""

    namespace: str
    name: str
    identity: str
    times: LeaseTimes = LeaseTimes()


class Elector:
    """One candidate. CLIENT is to be one without a guard."""

    def __init__(self, client: Client, options: LeaseOptions, clock: Callable[[], float] = uptime) -> None:
        self._client = client
        self._options = options
        self._clock = clock
        self._key = Key(options.namespace, options.name)
        self._log = Log(lease=str(self._key), identity=options.identity)
        self._lease: Object | None = None  # as last seen, and when it was first seen so
        self._seen_at = 0.0
        self._renewed_at: float | None = None  # when the request was begun that renewed it last
        self._status = metrics.LEADING.labels(options.name)
        self._status.set(0)

    def check(self) -> None:
        """Raise NotLeading unless a write that is sent now arrives while nobody else can be leading."""
        if self._renewed_at is None:
            raise NotLeading("this replica does not hold the lease")
        if (age := self._clock() - self._renewed_at) > self._options.times.renew_seconds:
            raise NotLeading(f"the lease was renewed {age:.1f} s ago, too long to write")

    async def acquire(self) -> None:
        """Wait until the lease is ours."""
        self._log.info("waiting for the lease")
        while not await self._try():
            await asyncio.sleep(self._options.times.retry_seconds * random.uniform(1.0, _JITTER))
        self._status.set(1)
        self._log.info("holding the lease: this replica acts now")

    async def hold(self) -> None:
        """Renew the lease for ever; raises NotLeading when it is lost."""
        try:
            while True:
                await asyncio.sleep(self._options.times.retry_seconds)
                if not await self._try():
                    self._log.warning("the lease was not renewed")
                    self._raise_if_taken()
                self.check()
        finally:
            self._status.set(0)

    async def release(self) -> None:
        """Give the lease up, so that another replica need not wait for its end. All writes must be over."""
        if self._renewed_at is None or self._lease is None or not self._ours:
            return
        self._renewed_at = None
        try:
            await self._write({**self._spec(self._lease), "holderIdentity": "", "leaseDurationSeconds": 1})
            self._log.info("gave the lease up")
        except ApiError as error:
            self._log.warning("cannot give the lease up, it ends by itself: %s", error)

    async def _try(self) -> bool:
        """Acquire or renew; whether it is ours now."""
        started = self._clock()
        try:
            async with asyncio.timeout(self._options.times.renew_seconds / 2):
                if self._lease is None or not self._ours:
                    await self._look()
                if not self._free():
                    return False
                await self._write(self._spec(self._lease))
        except (Conflict, AlreadyExists, NotFound):
            self._lease = None  # another wrote it meanwhile, or it was deleted: look at it next time
            return False
        except (ApiError, TimeoutError) as error:
            self._log.warning("cannot reach the lease: %s", error or "no answer in time")
            return False
        self._renewed_at = started
        return True

    async def _look(self) -> None:
        try:
            found = await self._client.get(LEASE, self._key)
        except NotFound:
            self._lease = None
            return
        if self._lease is None or found["metadata"]["resourceVersion"] != self._lease["metadata"]["resourceVersion"]:
            self._lease, self._seen_at = found, self._clock()

    @property
    def _ours(self) -> bool:
        return self._holder == self._options.identity

    @property
    def _holder(self) -> str:
        return str((self._lease or {}).get("spec", {}).get("holderIdentity") or "")

    def _free(self) -> bool:
        """Whether we may take it: it is ours, nobody's, or has not changed for as long as it was to last. Clocks of
        other machines do not count."""
        if self._lease is None or self._ours or not self._holder:
            return True
        lasts = float(self._lease["spec"].get("leaseDurationSeconds") or self._options.times.lease_seconds)
        return self._clock() - self._seen_at > lasts

    def _raise_if_taken(self) -> None:
        if self._lease is not None and not self._ours:
            raise NotLeading(f"{self._holder or 'nobody'} holds the lease now")

    def _spec(self, before: Object | None) -> dict[str, Any]:
        """The Lease's spec with us as its holder."""
        old: Mapping[str, Any] = (before or {}).get("spec") or {}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        changes = old.get("holderIdentity") != self._options.identity
        return {
            "holderIdentity": self._options.identity,
            "leaseDurationSeconds": self._options.times.lease_seconds,
            "acquireTime": now if changes else old["acquireTime"],
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (1 if before and changes else 0),
        }

    async def _write(self, spec: Mapping[str, Any]) -> None:
        metadata: dict[str, Any] = {"namespace": self._key.namespace, "name": self._key.name}
        manifest = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}
        if self._lease is None:
            answer = await self._client.create(LEASE, manifest)
        else:
            metadata["resourceVersion"] = self._lease["metadata"]["resourceVersion"]
            answer = await self._client.replace(LEASE, manifest)
        self._lease, self._seen_at = answer, self._clock()
