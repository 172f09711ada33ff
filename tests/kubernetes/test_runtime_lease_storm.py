"""Three replicas that are stopped, continued and killed at random, on a Lease of four seconds: who ever writes leads.

The API server's audit log has every write, the Lease's too, and when it came. A write is rightful if the last one whose
write of the Lease came before it is who made it.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from headrace_testbed.api import Object
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.replica import Replica

PUPPET = Path(__file__).parent / "testbed" / "puppet_operator.py"
SECONDS = 30.0
ROUNDS = 5  # at most: on a busy machine less happens in one
LEASE_SECONDS, RETRY_SECONDS = 4, 0.4


class Storm:
    """Keeps three replicas in trouble."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        config = yaml.safe_load(plane.kubeconfig.read_text())
        config["contexts"][0]["context"]["namespace"] = namespace
        self._folder = folder
        (folder / "kubeconfig").write_text(yaml.safe_dump(config))
        self._env = {"KUBECONFIG": str(folder / "kubeconfig"), "NAMESPACE": namespace, "SHORT_LEASE": "yes"}
        self.replicas: list[Replica] = []
        self.alive = [self._start() for _ in range(3)]
        self.stops = self.kills = self.ends = 0

    def _start(self) -> Replica:
        log = self._folder / f"{len(self.replicas)}.log"
        replica = Replica(f"replica-{len(self.replicas)}", [sys.executable, PUPPET], log, self._env)
        self.replicas.append(replica)
        replica.start()
        return replica

    def rage(self, chance: random.Random, until: float) -> None:
        """Stop, continue, kill, until UNTIL; whoever has ended is started anew."""
        for replica in self.alive:
            replica.wait_until_it_said("waiting for the lease")
        frozen: dict[Replica, float] = {}
        while (now := time.monotonic()) < until:
            for replica, thaws in list(frozen.items()):
                if now >= thaws:
                    replica.thaw()
                    del frozen[replica]
            for index, replica in enumerate(self.alive):
                if not replica.running:
                    self.ends += 1
                    frozen.pop(replica, None)
                    self.alive[index] = self._start()
            steady = [replica for replica in self.alive if replica not in frozen and replica.running]
            if len(steady) > 1 and chance.random() < 0.03:
                leading = [replica for replica in steady if replica.said("holding the lease")]
                victim = chance.choice(leading if leading and chance.random() < 0.8 else steady)
                if chance.random() < 0.8:
                    victim.freeze()
                    frozen[victim] = now + chance.choice([0.5, 1.8, 2.2, 5.5, 5.5, 7.0])
                    self.stops += 1
                else:
                    victim.kill()
                    self.kills += 1
            time.sleep(0.05)
        for replica in frozen:
            replica.thaw()

    def close(self) -> None:
        """End all."""
        for replica in self.replicas:
            replica.kill()


@pytest.fixture
def storm(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Storm]:
    metadata = {"name": "writer", "namespace": namespace, "labels": {"puppet": "yes"}}
    data = {"do": "write all the time"}
    control_plane.api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    made = Storm(control_plane, namespace, tmp_path)
    yield made
    made.close()


def writes(plane: ControlPlane, namespace: str) -> list[Object]:
    """Every write of the operator in NAMESPACE that succeeded, in the order in which they came."""
    found = [
        event
        for event in plane.audited(containing=namespace)
        if event.get("objectRef", {}).get("namespace") == namespace
        and event.get("userAgent", "").startswith("headrace-operator/")
        and event["verb"] in ("create", "update", "patch", "delete")
        and event["responseStatus"]["code"] < 300
    ]
    return sorted(found, key=lambda event: event["requestReceivedTimestamp"])


@pytest.mark.timeout(600)
def test_whoever_writes_holds_the_lease(control_plane: ControlPlane, namespace: str, storm: Storm) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        storm.rage(chance, time.monotonic() + SECONDS)
        time.sleep(LEASE_SECONDS + 2 * RETRY_SECONDS)
        wrong, acted, changes = judged(writes(control_plane, namespace))
        if wrong or (acted > 200 and changes):
            break
    print(f"{acted} writes, {changes} hand-overs, {storm.stops} stops, {storm.kills} kills, {storm.ends} ends")
    assert wrong == [], f"seed {seed}"
    assert acted > 200
    assert changes >= 1


def judged(events: list[Object]) -> tuple[list[tuple[str, str, str]], int, int]:
    """Which writes were another's than the holder's, how many there were but of the Lease, and how often it changed
    hands."""
    holder, wrong, acted, leaders = "", [], 0, []
    for event in events:
        who = event["userAgent"]
        if event["objectRef"]["resource"] == "leases":
            if who != holder:
                leaders.append(who)
            holder = who
        else:
            acted += 1
            if who != holder:
                wrong.append((event["requestReceivedTimestamp"], who, holder))
    return wrong, acted, sum(before != after for before, after in pairwise(leaders))
