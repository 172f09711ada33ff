"""The stores of the test bed: an S3 store and a PostgreSQL, as those that the chart ships."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from headrace_testbed.postgres import Postgres
from headrace_testbed.s3 import S3Store
from headrace_testbed.waiting import eventually

_HOLDER = """
import sys, signal
from pathlib import Path
from headrace_testbed.postgres import Postgres
from headrace_testbed.s3 import S3Store
with S3Store(Path(sys.argv[1])) as store, Postgres(Path(sys.argv[2])) as postgres:
    print(store.daemon.pid, postgres.daemon.pid, flush=True)
    signal.pause()
"""


def test_the_s3_store_gives_back_what_it_took(tmp_path: Path):
    with S3Store(tmp_path) as store:
        assert store.make_bucket("runs") == "s3://runs"
        client = store.client()
        client.put_object(Bucket="runs", Key="a/b.txt", Body=b"hello", Metadata={"kind": "test"})
        found = client.get_object(Bucket="runs", Key="a/b.txt")
        assert (found["Body"].read(), found["Metadata"]) == (b"hello", {"kind": "test"})
        assert [each["Key"] for each in client.list_objects_v2(Bucket="runs", Prefix="a/")["Contents"]] == ["a/b.txt"]


def test_postgres_keeps_what_was_written_when_it_is_started_again(tmp_path: Path):
    with Postgres(tmp_path) as postgres:
        postgres.run("psql", "-c", "CREATE TABLE kept AS SELECT 42 AS answer", postgres.url)
        dump = postgres.run("pg_dump", "--format=plain", postgres.url)
    assert "COPY public.kept" in dump
    with Postgres(tmp_path) as postgres:
        assert postgres.run("psql", "-tAc", "SELECT answer FROM kept", postgres.url) == "42"


def test_the_stores_end_with_whoever_started_them(tmp_path: Path):
    command = [sys.executable, "-c", _HOLDER, str(tmp_path / "s3"), str(tmp_path / "postgres")]
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}) as holder:
        assert holder.stdout is not None
        stores = [int(pid) for pid in holder.stdout.readline().split()]
        assert len(stores) == 2
        assert all(Path(f"/proc/{pid}").exists() for pid in stores)
        holder.send_signal(signal.SIGKILL)
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in stores))
