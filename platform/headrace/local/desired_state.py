"""What is to be served on this machine: one file, edited under a lock, written before Serve is told.

Serve's PUT replaces all applications and has no compare-and-set, so the truth is here; whenever a head comes up, after
a reboot too, it is told again.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headrace.base.errors import HeadraceError
from headrace.base.home import home
from headrace.base.jsonfile import read_json, write_json
from headrace.base.locks import file_lock
from headrace.local import ports
from headrace.local.head_record import Head, write_head
from headrace.serving.client import ServeClient, application_record, serve_record
from headrace.serving.contract import FrontConfig, StableVersion

FORMAT = 1
BIND_SECONDS = 60.0  # in which Serve has begun to listen, even on a busy machine
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Deployment:
    """One deployment as it should be: the registered model's name, its version with its package, how to serve it.

    `config_id` names this very wish; `headrace.local.deployments.deploy` gives it one.
    """

    name: str
    model: str
    stable: StableVersion
    replicas: int = 1
    resources: dict[str, Any] = field(default_factory=dict)
    config_id: str = ""

    def front_config(self) -> FrontConfig:
        """The contract's `user_config`. V2's model name is the deployment's."""
        return FrontConfig(config_id=self.config_id, model=self.name, stable=self.stable)

    def application(self) -> dict[str, Any]:
        """As it stands in Serve's configuration."""
        return application_record(self.name, self.front_config(), self.replicas, self.resources)

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "model": self.model,
            "stable": self.stable.to_record(),
            "replicas": self.replicas,
            "resources": self.resources,
            "config_id": self.config_id,
        }

    @classmethod
    def from_record(cls, name: str, record: dict[str, Any]) -> Deployment:
        """The inverse of `to_record`."""
        return cls(
            name,
            str(record["model"]),
            StableVersion(**record["stable"]),
            int(record["replicas"]),
            dict(record.get("resources") or {}),
            str(record["config_id"]),
        )


def new_config_id(version: str) -> str:
    """A name for one wish, never given twice: a version that failed and is tried again is another wish."""
    return f"{version}-{secrets.token_hex(4)}"


def path() -> Path:
    """The file."""
    return home() / "serve" / "applications.json"


@contextmanager
def locked() -> Iterator[None]:
    """Hold the file against other commands; never for longer than an edit and a PUT."""
    with file_lock(home() / "locks" / "serve-applications", holder="another command that changes what is served"):
        yield


def read_desired() -> dict[str, Deployment]:
    """All deployments by name. Raises HeadraceError for a file of another shape: it is nobody's to overwrite."""
    try:
        record = read_json(path()) or {"format": FORMAT, "applications": {}}
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']} is not {FORMAT}")
        return {name: Deployment.from_record(name, entry) for name, entry in record["applications"].items()}
    except (ValueError, KeyError, TypeError) as error:
        raise HeadraceError(
            f"{path()} cannot be read: {error}",
            action="move it away; headrace deploy then serves each model anew",
            code="desired-state-broken",
        ) from error


def write_desired(desired: dict[str, Deployment]) -> None:
    """Make DESIRED what should be served. Only under `locked`."""
    entries = {name: deployment.to_record() for name, deployment in desired.items()}
    write_json(path(), {"format": FORMAT, "applications": entries})


def put(head: Head, desired: dict[str, Deployment], tell: Tell) -> Head:
    """Tell Serve on HEAD all that is desired. Only under `locked`.

    Serve starts with its first configuration; only then is the endpoints' port bound, so only then is it certain.
    Returns the head with the port that holds.
    """
    with ServeClient(head.dashboard_url, head.token()) as client, ExitStack() as held:
        running = bool(client.details().get("proxies"))
        if not running:
            if not desired:
                return head
            port = held.enter_context(ports.serve_port(head.serve_port))
            if port != head.serve_port:
                tell(ports.moved(head.serve_port, port))
                head = replace(head, serve_port=port)
                write_head(head)
            tell("starting Ray Serve")
        applications = [desired[name].application() for name in sorted(desired)]
        client.put(serve_record(applications, host="127.0.0.1", port=head.serve_port))
        if not running:
            _release_once_bound(held.pop_all(), head.serve_port)
    return head


def _release_once_bound(held: ExitStack, port: int) -> None:
    """Hold a port until Serve listens on it, but keep nobody waiting: who waits for endpoints tells what is wrong."""

    def hold() -> None:
        with held:
            ports.wait_until_bound(port, BIND_SECONDS)

    threading.Thread(target=hold, name="endpoints-port", daemon=True).start()


def put_desired_state(head: Head, tell: Tell) -> int:
    """Tell Serve on HEAD what the file says; the number of deployments."""
    with locked():
        desired = read_desired()
        if desired:
            put(head, desired, tell)
        return len(desired)
