"""`helm test`: every replica of the operator is ready, and exactly one of them acts."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
import urllib.error
import urllib.request

PATIENCE_SECONDS = float(os.environ.get("PATIENCE_SECONDS", "90"))  # a new leader takes 20 s after a kill
LEADS = re.compile(r"^leader_election_master_status\{[^}]*\} 1(\.0)?$", re.MULTILINE)


def get(address: str, port: int, path: str) -> str:
    """The body of a page of one replica."""
    host = f"[{address}]" if ":" in address else address
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def fault(service: str, replicas: int, metrics_port: int, health_port: int) -> str:
    """What is wrong now, in a sentence; empty where nothing is."""
    try:
        addresses = sorted({str(found[4][0]) for found in socket.getaddrinfo(service, None, type=socket.SOCK_STREAM)})
        for address in addresses:
            get(address, health_port, "/readyz")
        leaders = [address for address in addresses if LEADS.search(get(address, metrics_port, "/metrics"))]
    except (OSError, urllib.error.URLError) as error:
        return f"a replica of {service} does not answer: {error}"
    if len(addresses) < replicas:
        return f"{len(addresses)} of {replicas} replicas are ready"
    return "" if len(leaders) == 1 else f"{len(leaders)} replicas hold the lease, of {len(addresses)}"


def main() -> int:
    """0 once nothing is wrong, 1 if something still is after the patience."""
    service, replicas = os.environ["OPERATOR_SERVICE"], int(os.environ["OPERATOR_REPLICAS"])
    ports = int(os.environ.get("METRICS_PORT", "8080")), int(os.environ.get("HEALTH_PORT", "8081"))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while wrong := fault(service, replicas, *ports):
        if time.monotonic() > deadline:
            print(f"operator: {wrong}", file=sys.stderr)
            return 1
        time.sleep(1)
    print(f"operator: {replicas} ready, one acts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
