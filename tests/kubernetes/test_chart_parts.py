"""What the chart's containers run, against the real programs: MLflow, PostgreSQL, the S3 gateway, the operator.

There is no node here: commands, arguments, scripts and Secrets are taken from the rendered chart and run as processes;
the node tier runs them in their pods.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import httpx
import psycopg2
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from headrace_testbed.builds import program
from headrace_testbed.helm import CHART, NAMESPACE, Helm, Objects
from headrace_testbed.mlflow_server import START_SECONDS
from headrace_testbed.postgres import Postgres
from headrace_testbed.processes import Daemon, free_port
from headrace_testbed.s3 import S3Store
from headrace_testbed.waiting import eventually

FILES = CHART / "files"
EMPTY = hashlib.sha256(b"").hexdigest()


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return Helm(tmp_path_factory.mktemp("helm")).template({})


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="pg-") as folder, Postgres(Path(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with S3Store(tmp_path_factory.mktemp("s3")) as server:
        server.make_bucket("headrace")
        yield server


def secret(objects: Objects, name: str, key: str) -> str:
    return base64.b64decode(objects.one("Secret", name)["data"][key]).decode()


def container(objects: Objects, kind: str, name: str) -> Any:
    return objects.one(kind, f"headrace-{name}")["spec"]["template"]["spec"]["containers"][0]


def run(script: Path, *arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(Path.home()), **env}
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, env=clean, capture_output=True, text=True, timeout=180, check=False)


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def let_in(postgres: Postgres, sql: str) -> None:
    """What the container does with /credentials/roles.sql."""
    file = postgres.folder / "roles.sql"
    file.write_text(sql)
    file.chmod(0o644)
    postgres.run("psql", "-q", "-X", "-v", "ON_ERROR_STOP=1", "-f", str(file), postgres.url_of("postgres"))


def login(postgres: Postgres, user: str, password: str) -> str:
    """Who USER is to the database."""
    connection = psycopg2.connect(
        host=postgres.host, port=postgres.port, user=user, password=password, dbname="mlflow", connect_timeout=10
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_user")
            return str(cursor.fetchone()[0])
    finally:
        connection.close()


def test_every_generation_of_the_password_logs_in_and_is_one_owner(chart: Objects, postgres: Postgres) -> None:
    sql = secret(chart, "headrace-postgresql", "roles.sql")
    let_in(postgres, sql)
    let_in(postgres, sql)  # as at every start
    for number in (1, 2):
        password = secret(chart, "headrace-postgresql", f"secret-{number}")
        assert login(postgres, f"mlflow_{number}", password) == "mlflow"
    with pytest.raises(psycopg2.OperationalError):
        login(postgres, "mlflow_1", "wrong")


def test_two_generations_later_the_old_password_is_let_in_no_more(chart: Objects, postgres: Postgres) -> None:
    first = secret(chart, "headrace-postgresql", "roles.sql")
    let_in(postgres, first)
    password = secret(chart, "headrace-postgresql", "secret-1")
    later = "\n".join(line for line in first.splitlines() if "mlflow_1" not in line or "rolname ~" in line)
    let_in(postgres, later.replace("'mlflow_1', ", ""))
    with pytest.raises(psycopg2.OperationalError, match="not permitted to log in"):
        login(postgres, "mlflow_1", password)
    let_in(postgres, first)  # a rollback
    assert login(postgres, "mlflow_1", password) == "mlflow"


def test_no_password_reaches_the_server_s_log(chart: Objects, postgres: Postgres) -> None:
    password = secret(chart, "headrace-postgresql", "secret-1")
    with pytest.raises(RuntimeError):
        let_in(postgres, secret(chart, "headrace-postgresql", "roles.sql").replace("LOGIN PASSWORD", "LOGIN PASSWORT"))
    assert password not in postgres.daemon.log.read_text()
    let_in(postgres, secret(chart, "headrace-postgresql", "roles.sql"))


# -- the S3 gateway ---------------------------------------------------------------------------------------------------


@pytest.fixture
def gateway(chart: Objects, tmp_path: Path) -> Iterator[tuple[str, Path, Daemon]]:
    """The gateway with the chart's own arguments; its address, its users' file, and itself."""
    port = free_port()
    places = {":7070": f"127.0.0.1:{port}", "/credentials": str(tmp_path / "users"), "/data": str(tmp_path / "data")}
    places["@headrace-admin"] = f"@{tmp_path}"  # a socket without a file: a killed gateway leaves none in the way
    (tmp_path / "users").mkdir()
    (tmp_path / "data" / "objects" / "headrace").mkdir(parents=True)  # what the init container does
    (tmp_path / "users" / "users.json").write_text(secret(chart, "headrace-s3", "users.json"))
    arguments = container(chart, "StatefulSet", "s3")["args"]
    for there, here in places.items():
        arguments = [each.replace(there, here) for each in arguments]
    keys = {"ROOT_ACCESS_KEY_ID": "root", "ROOT_SECRET_ACCESS_KEY": secret(chart, "headrace-s3", "root")}
    daemon = Daemon("versitygw", [program("versitygw"), *arguments], tmp_path / "log", keys)
    daemon.start()
    try:
        url = f"http://127.0.0.1:{port}"
        daemon.wait_for(lambda: answers(f"{url}/health"), 120)
        yield url, tmp_path / "users" / "users.json", daemon
    finally:
        daemon.kill()


def answers(url: str, **headers: str) -> bool:
    try:
        return httpx.get(url, headers=headers, timeout=60, trust_env=False).is_success
    except httpx.TransportError:
        return False


def client(url: str, access: str, key: str) -> Any:
    named = {"aws_access_key_id": access, "aws_secret_access_key": key, "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=url, config=Config(retries={"max_attempts": 1}, proxies={}), **named)


def writes(s3: Any, name: str = "a") -> bool:
    try:
        s3.put_object(Bucket="headrace", Key=name, Body=b"x")
        return s3.get_object(Bucket="headrace", Key=name)["Body"].read() == b"x"
    except ClientError:
        return False


def test_the_bucket_is_there_and_every_generation_of_the_key_opens_it(chart: Objects, gateway: Any) -> None:
    url = gateway[0]
    for number in (1, 2):
        assert writes(client(url, f"headrace-{number}", secret(chart, "headrace-s3", f"secret-{number}")))
    assert not writes(client(url, "headrace-1", "wrong"))
    assert not writes(client(url, "headrace-3", "unknown"))


def test_a_key_of_the_store_cannot_ask_the_gateway_for_its_users(chart: Objects, gateway: Any) -> None:
    url = gateway[0]
    keys = Credentials("headrace-1", secret(chart, "headrace-s3", "secret-1"))
    request = AWSRequest("PATCH", f"{url}/list-users", headers={"x-amz-content-sha256": EMPTY})
    S3SigV4Auth(keys, "s3", "us-east-1").add_auth(request)
    answer = httpx.request("PATCH", request.url, headers=dict(request.headers), timeout=60, trust_env=False)
    assert answer.is_client_error, answer.text
    assert "headrace-2" not in answer.text


def test_a_killed_gateway_starts_again_over_what_it_left(chart: Objects, gateway: Any) -> None:
    url, _, daemon = gateway
    s3 = client(url, "headrace-1", secret(chart, "headrace-s3", "secret-1"))
    assert writes(s3)
    daemon.kill()
    daemon.start()
    daemon.wait_for(lambda: answers(f"{url}/health"), 120)
    assert s3.get_object(Bucket="headrace", Key="a")["Body"].read() == b"x"


def test_a_new_key_is_taken_without_a_restart_and_no_request_fails_meanwhile(chart: Objects, gateway: Any) -> None:
    url, file, daemon = gateway
    old = client(url, "headrace-1", secret(chart, "headrace-s3", "secret-1"))
    coming = client(url, "headrace-2", secret(chart, "headrace-s3", "secret-2"))
    pid, over, failed, done = daemon.pid, threading.Event(), [], []

    def use() -> None:
        while not over.is_set():
            (done if writes(old, "old") and writes(coming, "new") else failed).append(1)

    user = threading.Thread(target=use)
    user.start()
    try:
        eventually(lambda: len(done) > 3)
        accounts = json.loads(file.read_text())
        accounts["accessAccounts"]["headrace-3"] = {
            **accounts["accessAccounts"]["headrace-2"],
            "access": "headrace-3",
            "secret": "third",
        }
        replaced = file.with_suffix(".new")
        replaced.write_text(json.dumps(accounts))
        replaced.rename(file)  # as the kubelet does when the Secret changes
        eventually(lambda: writes(client(url, "headrace-3", "third")))
        so_far = len(done)
        eventually(lambda: len(done) > so_far + 3)
    finally:
        over.set()
        user.join()
    assert not failed
    assert daemon.pid == pid


# -- MLflow, and `helm test` ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(chart: Objects, postgres: Postgres) -> str:
    """The database's address as MLflow gets it, at the server that runs here."""
    let_in(postgres, secret(chart, "headrace-postgresql", "roles.sql"))
    uri = secret(chart, "headrace-postgresql-client", "uri")
    return uri.replace(f"headrace-postgresql.{NAMESPACE}.svc:5432", f"{postgres.host}:{postgres.port}")


@pytest.fixture(scope="module")
def mlflow(
    chart: Objects, database: str, store: S3Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """MLflow with the chart's own arguments after the chart's own migration; its address and the database's."""
    with ThreadPoolExecutor(2) as pods:
        list(pods.map(migrate, [database] * 2))  # two at once
    port = free_port()
    arguments = [each.replace("5000", str(port)) for each in container(chart, "Deployment", "mlflow")["args"]]
    arguments = [each.replace("0.0.0.0", "127.0.0.1") for each in arguments]
    env = {"MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_DISABLE_TELEMETRY": "true", **store.environment}
    env |= {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    log = tmp_path_factory.mktemp("mlflow") / "log"
    daemon = Daemon("mlflow", [sys.executable, "-m", "mlflow", "server", *arguments], log, env)
    daemon.start()
    try:
        daemon.wait_for(lambda: answers(f"http://127.0.0.1:{port}/health"), START_SECONDS)
        yield f"http://127.0.0.1:{port}", database
    finally:
        daemon.kill()


def migrate(database: str) -> None:
    done = run(FILES / "mlflow" / "migrate.py", env={"MLFLOW_BACKEND_STORE_URI": database})
    assert done.returncode == 0, done.stderr[-2000:]


def test_migrations_can_run_at_once_and_again(mlflow: tuple[str, str]) -> None:
    migrate(mlflow[1])


def test_the_password_is_on_no_command_line_while_tables_are_migrated(mlflow: tuple[str, str]) -> None:
    uri = mlflow[1]
    script = str(FILES / "mlflow" / "migrate.py")
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(Path.home())}
    with subprocess.Popen(
        [sys.executable, script], env={**env, "MLFLOW_BACKEND_STORE_URI": uri}, stderr=subprocess.DEVNULL
    ) as migration:
        seen = set()
        while migration.poll() is None:
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(file.read_bytes())
    assert migration.returncode == 0
    assert any(script.encode() in line for line in seen)
    password = uri.partition("://")[2].partition("@")[0].partition(":")[2]
    assert [line for line in seen if password.encode() in line] == []


def test_a_database_that_is_away_is_waited_for_in_words(postgres: Postgres) -> None:
    uri = f"postgresql+psycopg2://mlflow_1:x@127.0.0.1:{free_port()}/mlflow"
    command = [sys.executable, str(FILES / "mlflow" / "migrate.py")]
    with subprocess.Popen(command, env={"MLFLOW_BACKEND_STORE_URI": uri}, stdout=subprocess.PIPE) as migration:
        assert migration.stdout is not None
        for _ in range(2):
            assert migration.stdout.readline().startswith(b"waiting for the database: ")
        migration.kill()


def test_mlflow_answers_to_its_service_s_names_and_to_no_others(mlflow: tuple[str, str]) -> None:
    page = f"{mlflow[0]}/api/2.0/mlflow/experiments/search?max_results=1"
    for name in ("headrace-mlflow", f"headrace-mlflow.{NAMESPACE}", f"headrace-mlflow.{NAMESPACE}.svc.cluster.local"):
        assert answers(page, host=f"{name}:5000"), name
        assert answers(page, host=name), name
    assert not answers(page, host="evil.example.com")


def tracking_environment(mlflow: tuple[str, str], store: S3Store, **more: str) -> dict[str, str]:
    uri, database = mlflow
    named = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_BACKEND_STORE_URI": database}
    return {**named, "STORE_BUCKET": "headrace", "STORE_PREFIX": "", **store.environment, **more}


def test_helm_test_sees_that_mlflow_its_database_and_the_store_work(mlflow: tuple[str, str], store: S3Store) -> None:
    env = tracking_environment(mlflow, store)
    done = run(FILES / "checks" / "check_tracking.py", "database", "mlflow", "store", env=env)
    assert done.returncode == 0, done.stderr
    assert "MLflow answers and writes to its database" in done.stdout
    assert "s3://headrace can be written to" in done.stdout
    left = store.client().list_objects_v2(Bucket="headrace").get("KeyCount", 0)
    assert left == 0
    models = httpx.get(f"{mlflow[0]}/api/2.0/mlflow/registered-models/search", timeout=60, trust_env=False).json()
    assert not models.get("registered_models")


LOGINS = [
    ({"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "s:cret"}, "Basic bWU6czpjcmV0"),
    ({"MLFLOW_TRACKING_TOKEN": "token"}, "Bearer token"),
    (
        {"MLFLOW_TRACKING_TOKEN": "token", "MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "s:cret"},
        "Basic bWU6czpjcmV0",  # as MLflow's own client does
    ),
]


@pytest.fixture
def asking_mlflow(mlflow: tuple[str, str]) -> Iterator[tuple[str, set[str]]]:
    """MLflow behind a proxy that lets in only who is in its list; the proxy's address and the list."""
    let_in: set[str] = set()

    class Proxy(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, said = 401, b"who are you?"
            if self.headers.get("Authorization") in let_in:
                passed = {"Content-Type": "application/json"}
                given = httpx.request(
                    self.command,
                    mlflow[0] + self.path,
                    content=body,
                    headers=passed,
                    timeout=60,
                    trust_env=False,
                )
                status, said = given.status_code, given.content
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", let_in
        server.shutdown()


@pytest.mark.parametrize(("login", "header"), LOGINS, ids=["password", "token", "both"])
def test_helm_test_logs_in_to_an_mlflow_that_asks(
    asking_mlflow: tuple[str, set[str]], mlflow: tuple[str, str], store: S3Store, login: dict[str, str], header: str
) -> None:
    address, let_in = asking_mlflow
    env = tracking_environment((address, mlflow[1]), store)
    refused = run(FILES / "checks" / "check_tracking.py", "mlflow", env=env)
    assert "mlflow: HTTP Error 401" in refused.stderr
    let_in.add(header)
    done = run(FILES / "checks" / "check_tracking.py", "mlflow", env={**env, **login})
    assert done.returncode == 0, done.stderr


FAULTS = [
    ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "mlflow: URLError"),
    ({"STORE_BUCKET": "nowhere"}, "store: NoSuchBucket"),
    ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "store: ClientError"),
    ({"MLFLOW_BACKEND_STORE_URI": "postgresql://mlflow_1:wrong@127.0.0.1:9/mlflow"}, "database: OperationalError"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=[words for _, words in FAULTS])
def test_helm_test_fails_with_the_part_that_is_broken_and_looks_at_the_others(
    mlflow: tuple[str, str], store: S3Store, fault: dict[str, str], words: str
) -> None:
    env = tracking_environment(mlflow, store, **fault)
    done = run(FILES / "checks" / "check_tracking.py", "database", "mlflow", "store", env=env)
    assert done.returncode == 1, done.stdout
    assert words in done.stderr
    assert len(done.stdout.splitlines()) == 2
