"""One home, one Ray head and two small models for the whole tier: a head takes ten seconds, its first endpoint twenty.

The home's path is short, as Ray's sockets lie below it. Whatever was started for it is ended with it, also what a test
that failed has left behind: processes are known by the home in their environment.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.base.jsonfile import sha256_of
from headrace.base.processes import ProcessRef
from headrace.local.ray_head import Head, ensure_head, stop_head
from headrace.serving.contract import StableVersion
from headrace_testbed import builds, toolchain
from headrace_testbed.s3 import S3Store
from headrace_testbed.s3_trouble import environment, new_bucket, without_pauses

if TYPE_CHECKING:
    from kfp_stand_in.commands import Bed

_NOT_INHERITED = ("HEADRACE_STORE", "HEADRACE_EVENTS", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
_SET = ("HEADRACE_HOME", "OMP_NUM_THREADS", "PYTHONPATH")


def _processes_of(home: Path) -> Iterator[ProcessRef]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"HEADRACE_HOME={home}".encode() in variables:
                found = ProcessRef.of(int(entry.name))
                if found is not None:
                    yield found


def _end_all(home: Path) -> None:
    for number, seconds in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
        left = list(_processes_of(home))
        for process in left:
            process.send(number)
        for process in left:
            process.wait(seconds / len(left))


@pytest.fixture(scope="session", autouse=True)
def headrace_home(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A home of this session's own, in the environment of everything it starts; kept for its logs if a test failed."""
    home = Path(tempfile.mkdtemp(prefix="hr", dir="/tmp"))
    before = {name: os.environ.pop(name, None) for name in (*_NOT_INHERITED, *_SET)}
    os.environ["HEADRACE_HOME"] = str(home)
    os.environ["OMP_NUM_THREADS"] = "1"
    (home / "site").mkdir()  # there from the beginning: a process does not look again for a folder that was not
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(home / "site"), before["PYTHONPATH"])))
    try:
        yield home
    finally:
        stop_head()
        _end_all(home)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        if request.session.testsfailed:
            print(f"the logs are in {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def on_the_path(headrace_home: Path) -> Path:
    """An empty folder for packages that every process of this session sees, those that run already too."""
    return headrace_home / "site"


@pytest.fixture(scope="module")
def head(headrace_home: Path) -> Head:
    """The home's Ray head, looked up anew by each module: `test_ray_head_life` leaves another one than it found."""
    return ensure_head(print)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    """A real S3 server, once for the tier; it is built the first time."""
    if "versitygw" in builds.missing() and (reason := toolchain.why_not()):
        pytest.skip(f"an S3 server has to be built: {reason}")
    with S3Store(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Store) -> Iterator[str]:
    """The URI of a bucket of this test's own, in the environment of this process and of what it starts."""
    with environment(s3_server.environment):
        yield new_bucket(s3_server)


@pytest.fixture
def pauses() -> Iterator[list[float]]:
    """How long this process would have waited before each repetition of a request to S3; it does not wait."""
    with without_pauses() as noted:
        yield noted


@pytest.fixture(scope="session")
def digit_pictures() -> list[bytes]:
    """Real digits as PNG files, eight by eight, grey."""
    from PIL import Image
    from sklearn.datasets import load_digits

    pictures = []
    for pixels in load_digits().images[:128]:
        file = io.BytesIO()
        Image.fromarray((pixels * 15).astype("uint8")).save(file, "PNG")
        pictures.append(file.getvalue())
    return pictures


@pytest.fixture(scope="session")
def digits_package(headrace_home: Path, digit_pictures: list[bytes]) -> Callable[[str], StableVersion]:
    """Packages of an untrained network that classifies digits: the version's number is its seed."""
    import torch

    from headrace_models.package import build_model, write_package
    from headrace_models.tasks import Sample, Schema, build_task

    schema = Schema("label", tuple("0123456789"))
    task = build_task({"name": "image-classification", "args": {}}, schema)
    samples = [Sample(str(n), data, {"label": str(n % 10)}) for n, data in enumerate(digit_pictures)]
    task.learn([task.summarise(samples)])
    record = {"name": "mlp", "args": {}}

    def package(version: str) -> StableVersion:
        torch.manual_seed(int(version))
        folder = headrace_home / "store" / "packages" / sha256_of(["test", version])
        sha256 = write_package(
            folder,
            task=task,
            model=build_model(record, task),
            model_record=record,
            code_folder=None,
            provenance={"version": version},
            example=task.request(samples[:2]),
        )
        return StableVersion(version, str(folder), sha256)

    return package


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Bed]:
    """A home that knows the target `kubeflow`, whose Kubeflow is the stand-in, and commands on it."""
    from headrace_pipelines.kubeflow import following
    from kfp_stand_in import Beats, KubeflowStandIn, World
    from kfp_stand_in.bed import forget_sites
    from kfp_stand_in.commands import Bed

    forget_sites(monkeypatch)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(following, "POLL_SECONDS", 0.05)
    with KubeflowStandIn(World(beats=Beats(scale=0.005))) as stand_in:
        found = Bed(tmp_path, stand_in, capfd)
        found.target()
        yield found
