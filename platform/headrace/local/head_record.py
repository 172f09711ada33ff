"""What is written down of the one Ray head of this home, so that it is found again and no other is taken for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.base.home import home
from headrace.base.jsonfile import read_json, write_json
from headrace.base.processes import ProcessRef

FORMAT = 1


@dataclass(frozen=True)
class Head:
    """A Ray head of ours. Addresses are on loopback; files are on this machine.

    address: what `ray.init` takes ("127.0.0.1:6379").
    dashboard_url: Ray's HTTP API (jobs, state, Serve), behind the token.
    serve_port: where the endpoints are, the same over restarts unless another program took it.
    token_path: 0600.
    runtime_folder: sockets, the ingress's files, Ray's sessions; private; gone with the head's successor.
    leader: the process that all others of the head descend from; its pid is their session id.
    up: whether it has started wholly; while it starts its API answers already.
    aws: how its workers reach S3 (`headrace.base.aws`): as the command that started it.
    """

    address: str
    dashboard_url: str
    serve_port: int
    token_path: Path
    num_cpus: int
    num_gpus: int
    runtime_folder: Path
    log_path: Path
    leader: ProcessRef
    port_block: int
    up: bool = False
    aws: str = ""

    @property
    def log_dir(self) -> Path:
        """Where Ray's processes write their logs."""
        return self.runtime_folder / "r" / "session_latest" / "logs"

    @property
    def serve_url(self) -> str:
        """What the endpoints' URLs begin with."""
        return f"http://127.0.0.1:{self.serve_port}"

    def token(self) -> str:
        """The head's token. Raises FileNotFoundError where it is gone."""
        return self.token_path.read_text(encoding="utf-8").strip()

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "format": FORMAT,
            "address": self.address,
            "dashboard_url": self.dashboard_url,
            "serve_port": self.serve_port,
            "token_path": str(self.token_path),
            "num_cpus": self.num_cpus,
            "num_gpus": self.num_gpus,
            "runtime_folder": str(self.runtime_folder),
            "log_path": str(self.log_path),
            "leader": self.leader.to_record(),
            "port_block": self.port_block,
            "up": self.up,
            "aws": self.aws,
        }


def path() -> Path:
    """The file."""
    return home() / "ray" / "head.json"


def read_head() -> Head | None:
    """The head that was started last, alive or not; None where there was none or it was stopped."""
    try:
        record = read_json(path())
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            return None
        leader = ProcessRef.from_record(record.get("leader"))
        if leader is None:
            return None
        return Head(
            address=str(record["address"]),
            dashboard_url=str(record["dashboard_url"]),
            serve_port=int(record["serve_port"]),
            token_path=Path(record["token_path"]),
            num_cpus=int(record["num_cpus"]),
            num_gpus=int(record["num_gpus"]),
            runtime_folder=Path(record["runtime_folder"]),
            log_path=Path(record["log_path"]),
            leader=leader,
            port_block=int(record["port_block"]),
            up=record["up"] is True,
            aws=str(record.get("aws", "")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remembered_serve_port() -> int | None:
    """The port that endpoints had last, also after the head was stopped."""
    try:
        record = read_json(path())
        return int(record["serve_port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_head(head: Head) -> None:
    """Write HEAD down, durably."""
    write_json(path(), head.to_record())


def forget_head(serve_port: int | None) -> None:
    """Write down that there is no head, and which port its endpoints had."""
    write_json(path(), {"format": FORMAT, "serve_port": serve_port})
