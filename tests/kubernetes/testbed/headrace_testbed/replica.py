"""One process of an operator under test, with what a test asks of it: its log lines, its ports, its end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from headrace_testbed.processes import Daemon
from headrace_testbed.waiting import eventually


class Replica(Daemon):
    """An operator that logs JSON lines."""

    def lines(self) -> list[dict[str, Any]]:
        """What it logged so far."""
        if not self.log.exists():
            return []
        *texts, _ = self.log.read_text(errors="replace").split("\n")  # the last one is still written, or nothing
        return [json.loads(text) for text in texts if text.startswith("{") and text.endswith("}")]

    def said(self, words: str) -> dict[str, Any] | None:
        """The first line whose message has WORDS."""
        return next((line for line in self.lines() if words in line["message"]), None)

    def wait_until_it_said(self, words: str, seconds: float = 120) -> dict[str, Any]:
        """That line, once it is there."""
        self.wait_for(lambda: self.said(words) is not None, seconds)
        found = self.said(words)
        assert found is not None
        return found

    @property
    def identity(self) -> str:
        """By what name it stands in the Lease and in the API server's audit log (its user agent)."""
        return str(self.wait_until_it_said("waiting for the lease")["identity"])

    def page(self, path: str) -> httpx.Response:
        """What its HTTP server answers."""
        port = self.wait_until_it_said("listening")["port"]
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=60, trust_env=False)

    def metric(self, name: str, labels: Mapping[str, str] | None = None) -> float | None:
        """The sum of the series of a metric that have LABELS."""
        wanted = [f'{key}="{value}"' for key, value in (labels or {}).items()]
        found = None
        for line in self.page("/metrics").text.splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(label in series for label in wanted):
                found = (found or 0.0) + float(value)
        return found

    def freeze(self) -> None:
        """Stop it as `kill -STOP` does."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to end, as the kubelet does."""
        os.kill(self.pid, signal.SIGTERM)

    def exit_code(self, seconds: float = 120) -> int:
        """How it ended, once it has."""
        assert self._process is not None
        return self._process.wait(seconds)

    @property
    def resident_mib(self) -> float:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def wait_for_lease(api: Any, namespace: str, name: str, holder: str, seconds: float = 120) -> dict[str, Any]:
    """The Lease, once HOLDER holds it."""

    def look() -> Any:
        leases = api.list(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
        found = [lease for lease in leases if lease["metadata"]["name"] == name]
        assert [lease["spec"].get("holderIdentity") for lease in found] == [holder]
        return found[0]

    return eventually(look, seconds)
