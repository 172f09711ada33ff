"""A real Prometheus on loopback, so that metrics, rules and alerts are judged by what evaluates them in production."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import yaml

from headrace_testbed.debian import debian_program
from headrace_testbed.processes import Daemon, free_port

_START_SECONDS = 120


class Prometheus:
    """Debian's Prometheus with CONFIG (a `prometheus.yml` as a dict) and its data in FOLDER."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        command: list[str | Path] = [
            debian_program("prometheus", "prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--web.enable-lifecycle",
            "--log.level=warn",
        ]
        self.daemon = Daemon("prometheus", command, folder / "prometheus.log")

    def __enter__(self) -> Prometheus:
        self.daemon.start()
        try:
            self.daemon.wait_for(self._ready, _START_SECONDS)
        except BaseException:
            self.daemon.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.kill()

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """What its HTTP API answers at /api/v1/PATH."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=60, trust_env=False)
        answer.raise_for_status()
        return answer.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query: `metric` with the labels, `value` with time and value."""
        return self.ask("query", query=expression)["result"]
