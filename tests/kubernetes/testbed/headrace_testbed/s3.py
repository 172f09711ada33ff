"""An S3 store on loopback: Versity's gateway over a folder, so that what speaks S3 is tried against a real server.

It is the store that the chart ships. Objects are plain files in the folder; what S3 knows besides lies beside them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config

from headrace_testbed.builds import program
from headrace_testbed.processes import Daemon, free_port

_START_SECONDS = 120
REGION = "us-east-1"


class S3Store:
    """Versity's gateway with its objects in FOLDER; a context manager.

    Args:
        folder: where objects and log lie.
        access_key: who may do everything.
        secret_key: its secret.
    """

    def __init__(self, folder: Path, access_key: str = "testbed", secret_key: str = "testbed-secret") -> None:
        self.access_key, self.secret_key = access_key, secret_key
        address = f"127.0.0.1:{free_port()}"
        self.endpoint = f"http://{address}"
        self.objects, beside = folder / "objects", folder / "beside"
        for each in (self.objects, beside):
            each.mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [program("versitygw"), "--port", address, "--region", REGION, "--quiet"]
        command += ["--health", "/health", "posix", "--sidecar", beside, self.objects]
        keys = {"ROOT_ACCESS_KEY_ID": access_key, "ROOT_SECRET_ACCESS_KEY": secret_key}
        self.daemon = Daemon("versitygw", command, folder / "versitygw.log", keys)

    def __enter__(self) -> S3Store:
        self.daemon.start()
        try:
            self.daemon.wait_for(self._serves, _START_SECONDS)
        except BaseException:
            self.daemon.kill()
            raise
        return self

    def __exit__(self, *details: object) -> None:
        self.daemon.kill()

    def _serves(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.endpoint}/health", trust_env=False).is_success
        return False

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which boto3, s3fs and all that rests on them find it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def client(self) -> Any:
        """A boto3 client of it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )

    def make_bucket(self, name: str) -> str:
        """Make a bucket; its URI."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"
