"""Tokens, authorities, passwords and keys are replaced under whoever uses them, and nobody loses a request.

Real: the API server and its tokens, TLS, PostgreSQL, the S3 gateway, and what helm makes of the chart over two changes.
The pods around them are the node tier's (`tests/node/test_chart_install.py`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from aiohttp import web
from botocore.exceptions import ClientError

from headrace_operators.rbac import NAME, NAMESPACE
from headrace_operators.runtime import connection
from headrace_operators.runtime.client import Client
from headrace_operators.runtime.transport import Transport
from headrace_testbed.api import ApiError
from headrace_testbed.builds import program
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.helm import Helm
from headrace_testbed.objects import model_monitor
from headrace_testbed.ours import install_rbac
from headrace_testbed.pki import Pki
from headrace_testbed.postgres import Postgres
from headrace_testbed.processes import Daemon, free_port
from headrace_testbed.replica import Replica
from headrace_testbed.s3 import REGION
from headrace_testbed.waiting import eventually

MONITORS = f"/apis/headrace.dev/v1alpha1/namespaces/{NAMESPACE}/modelmonitors"
TOKENS = ("first", "second", "third", "fourth")


# -- the operator's token


def bound_token(plane: ControlPlane, secret: str) -> str:
    """A token of the operator that is good for as long as SECRET exists, as a pod's is for as long as the pod does."""
    secrets = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    uid = plane.api.post(secrets, {"metadata": {"name": secret}})["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "Secret", "name": secret, "uid": uid}
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600, "boundObjectRef": reference},
    }
    made = plane.api.post(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{NAME}/token", body)
    return str(made["status"]["token"])


@pytest.fixture
def mounted(played_plane: ControlPlane, tmp_path: Path) -> Iterator[Path]:
    """What the kubelet mounts into the operator's pod."""
    with contextlib.suppress(ApiError):
        played_plane.api.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    install_rbac(played_plane, NAMESPACE)
    (tmp_path / "ca.crt").write_bytes(played_plane.pki.ca_file.read_bytes())
    (tmp_path / "namespace").write_text(NAMESPACE)
    mount(tmp_path, bound_token(played_plane, TOKENS[0]))
    yield tmp_path
    for name in TOKENS:
        with contextlib.suppress(ApiError):
            played_plane.api.delete(f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}")


def mount(folder: Path, token: str) -> None:
    """TOKEN in place of the one before: at once, as the kubelet does it."""
    (folder / "new").write_text(token)
    (folder / "new").replace(folder / "token")


def looked_at(plane: ControlPlane, name: str) -> bool:
    return bool(plane.api.get(f"{MONITORS}/{name}").get("status"))


def test_the_operator_goes_on_when_its_token_is_replaced_and_the_old_one_dies(
    played_plane: ControlPlane, mounted: Path
) -> None:
    host, port = played_plane.url.removeprefix("https://").split(":")
    operator = Replica(
        "headrace-operator",
        [
            *(sys.executable, "-m", "headrace.cli.main", "operator", "--service-account-folder", str(mounted)),
            *("--lease-namespace", NAMESPACE, "--metrics-address", "127.0.0.1:0", "--health-address", ""),
        ],
        mounted / "operator.log",
        {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port},
    )
    operator.start()
    try:
        operator.wait_until_it_said("holding the lease")
        played_plane.api.post(MONITORS, model_monitor("before"))
        eventually(partial(looked_at, played_plane, "before"))
        for before, after in pairwise(TOKENS):
            mount(mounted, bound_token(played_plane, after))
            played_plane.api.delete(f"/api/v1/namespaces/{NAMESPACE}/secrets/{before}")
            if met_a_dead_token(operator, 25):
                break
        assert met_a_dead_token(operator, 0)
        played_plane.api.post(MONITORS, model_monitor("after"))
        eventually(partial(looked_at, played_plane, "after"))
        assert operator.running
        assert operator.metric("leader_election_master_status") == 1  # it has led all the time
        failed = [line for line in operator.lines() if line["level"] in ("warning", "error")]
        assert not [line for line in failed if "nauthorized" in json.dumps(line)], (
            failed
        )  # no reconcile met the old one
        assert len([line for line in operator.lines() if "holding the lease" in line["message"]]) == 1
    finally:
        operator.stop()
        for name in ("before", "after"):
            with contextlib.suppress(ApiError):
                played_plane.api.delete(f"{MONITORS}/{name}")


def met_a_dead_token(operator: Replica, seconds: float) -> bool:
    """Whether OPERATOR was refused within SECONDS. An API server knows a token for ten of them after its end; who has
    read the next one by then, as the operator does once a minute, is not refused."""
    deadline = time.monotonic() + seconds
    while not operator.metric("rest_client_requests_total", {"code": "401"}):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


# -- the API server's authority


def test_an_authority_that_is_replaced_is_trusted_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Pki(tmp_path / "old"), Pki(tmp_path / "new")
    port = free_port()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "token").write_text("t")
    (mounted / "ca.crt").write_bytes(old.ca_file.read_bytes())

    async def served(pki: Pki) -> web.AppRunner:
        async def handler(_: web.Request) -> web.Response:
            return web.json_response({"by": pki.folder.name})

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*pki.server("server"))
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
        return runner

    async def work() -> None:
        client = Client(Transport(connection.in_cluster(mounted), "test"))
        runner = await served(old)
        assert await client.request("GET", "/x") == {"by": "old"}
        await runner.cleanup()
        (mounted / "ca.crt").write_bytes(new.ca_file.read_bytes())
        runner = await served(new)
        assert await client.request("GET", "/x") == {"by": "new"}
        await client.close()
        await runner.cleanup()

    asyncio.run(work())


# -- what the chart gives to MLflow, to runs and to backups


@pytest.fixture(scope="module")
def releases() -> Iterator[list[dict[str, dict[str, str]]]]:
    """The Secrets of a release as it is installed, and after each of two changes of its password and its key."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-testbed-rotation-"))
    with ControlPlane(folder) as plane:
        plane.api.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        helm = Helm(folder, plane.kubeconfig)
        found = []
        for number in (1, 2, 3):
            values = {
                "postgresql": {"passwordGeneration": number},
                "s3": {"keyGeneration": number},
                "operator": {"enabled": False},
                "crds": {"enabled": False},
                "prerequisites": {"check": False},
            }
            (helm.install if number == 1 else helm.upgrade)(NAMESPACE, values)
            names = ("headrace-postgresql", "headrace-postgresql-client", "headrace-s3", "headrace-store")
            found.append({name: secret(plane, name) for name in names})
        yield found
    shutil.rmtree(folder, ignore_errors=True)


def secret(plane: ControlPlane, name: str) -> dict[str, str]:
    data = plane.api.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}")["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


class Requests(threading.Thread):
    """Makes one request after the other until it is stopped; what failed."""

    def __init__(self, request: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._request, self._ended = request, threading.Event()
        self.made, self.failed = 0, list[str]()

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                self._request()
            except Exception as error:
                self.failed.append(repr(error))
            self.made += 1
            time.sleep(0.02)

    def __enter__(self) -> Requests:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def test_a_password_is_changed_twice_under_load_and_the_first_is_refused_in_the_end(
    releases: list[dict[str, dict[str, str]]],
) -> None:
    uris = [release["headrace-postgresql-client"]["uri"].split("://")[1] for release in releases]
    with tempfile.TemporaryDirectory(prefix="hrpg", dir="/tmp") as folder, Postgres(Path(folder)) as server:
        where = f"@{server.host}:{server.port}/mlflow"
        logins = [f"postgresql://{uri.rpartition('@')[0]}{where}" for uri in uris]

        def let_in(release: dict[str, dict[str, str]]) -> None:
            path = Path(folder) / "roles.sql"
            path.write_text(release["headrace-postgresql"]["roles.sql"])
            server.run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(path), server.url_of("postgres"))

        def uses(login: str, statement: str = "insert into runs values (1)") -> Callable[[], None]:
            def request() -> None:
                with contextlib.closing(psycopg2.connect(login)) as database, database, database.cursor() as cursor:
                    cursor.execute(statement)

            return request

        let_in(releases[0])
        uses(logins[0], "create table runs (id int)")()
        for before, after in ((0, 1), (1, 2)):
            with Requests(uses(logins[before])) as old, Requests(uses(logins[after])) as new:
                let_in(releases[after])  # the old pod and the new one are both at work
                eventually(lambda old=old, new=new: min(old.made, new.made) > 10)
            assert (old.failed, new.failed) == ([], [])
        with pytest.raises(psycopg2.OperationalError, match="not permitted to log in"):
            uses(logins[0])()


def test_a_key_is_changed_twice_under_load_and_the_first_is_refused_in_the_end(
    releases: list[dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    credentials, objects = tmp_path / "credentials", tmp_path / "objects"
    for place in (credentials, objects / "headrace"):
        place.mkdir(parents=True)
    address = f"127.0.0.1:{free_port()}"
    options = ["--iam-dir", str(credentials), "--iam-cache-ttl", "1", "--iam-cache-prune", "1"]
    command = [program("versitygw"), "--port", address, "--region", REGION, "--quiet", *options, "posix", str(objects)]
    root = {"ROOT_ACCESS_KEY_ID": "root", "ROOT_SECRET_ACCESS_KEY": releases[0]["headrace-s3"]["root"]}
    gateway = Daemon("versitygw", command, tmp_path / "versitygw.log", root)

    def let_in(release: dict[str, dict[str, str]]) -> None:  # as the kubelet does: at once
        (credentials / "new").write_text(release["headrace-s3"]["users.json"])
        (credentials / "new").replace(credentials / "users.json")

    def uses(release: dict[str, dict[str, str]]) -> Callable[[], None]:
        client = s3_client(f"http://{address}", release["headrace-store"])
        return lambda: client.put_object(Bucket="headrace", Key="x", Body=b"x")

    let_in(releases[0])
    gateway.start()
    try:
        gateway.wait_for(partial(listens, address), 120)
        eventually(uses(releases[0]))
        for before, after in ((0, 1), (1, 2)):
            with Requests(uses(releases[before])) as old, Requests(uses(releases[after])) as new:
                let_in(releases[after])
                eventually(lambda old=old, new=new: min(old.made, new.made) > 50)
            assert (old.failed, new.failed) == ([], [])
        eventually(lambda: refused(uses(releases[0])))
    finally:
        gateway.kill()


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError:
        return False
    return True


def s3_client(endpoint: str, keys: dict[str, str]) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        config=Config(s3={"addressing_style": "path"}, proxies={}, retries={"max_attempts": 1}),
    )


def refused(request: Callable[[], None]) -> bool:
    try:
        request()
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    return False
