"""Training on a real Ray head: two workers, killed in every way, and always the same model in the end.

The straight run of the first fixture is the measure: a run whose worker or driver was killed must give the very same
package, bit for bit, so each of them also shows that resuming is exact.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from headrace.base.errors import InvalidInput, RunFailed, Superseded, Unavailable
from headrace.base.jsonfile import write_json
from headrace.base.processes import ProcessRef, session_members
from headrace.data import split_data
from headrace.local.ray_head import Head, ensure_head, head_environment, stop_head
from headrace.store import Store
from headrace.training import Connection, TrainingRequest, TrainingResult, run_training
from headrace.training.checkpoint import read_checkpoint
from headrace.training.checkpoint_folder import committed
from headrace_models.package import load_package, pack_code
from headrace_testbed.pausing import write_code

pytestmark = pytest.mark.timeout(900)  # a head and three trainings, on a busy machine

TASK = {"name": "image-classification", "args": {"augment": "shift"}}
EPOCHS = 10
MIXTURE = Path(__file__).resolve().parents[2] / "examples" / "own_mixture" / "src"

# Draws from every random generator that must be restored, and has the statistics that must be averaged.
NETWORK = """
import random
import torch
from torch import nn
from pause import Pause

class Net(nn.Module):
    def __init__(self, num_classes, in_channels, fail="", pause=30):
        super().__init__()
        self.fail = fail
        self.pause = Pause(pause)
        self.body = nn.Sequential(nn.Conv2d(in_channels, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.LazyLinear(num_classes))
        self.head[2].initialize_parameters(torch.zeros(1, 8 * 16))

    def forward(self, x):
        if self.fail and self.training and torch.distributed.get_rank() == 1:
            raise ValueError(self.fail)
        if self.training:
            self.pause()
            x = x + 0.01 * random.random()
        return self.head(self.body(x))
"""

HELD_MIXTURE = """
from mixture import Mixtures
from pause import Pause

class Held(Mixtures):
    pause = Pause(30)

    def accumulate(self, inputs, batch):
        self.pause()
        return super().accumulate(inputs, batch)
"""


@dataclass
class Runs:
    """Trainings of one small network on the digits, in a store of their own."""

    store: Store
    fingerprint: str
    code: dict[str, str]
    connection: Connection
    folder: Path
    count: int = 0
    events: dict[str, Path] = field(default_factory=dict)

    def request(self, *, workers: tuple[int, int] = (2, 2), model: Any = None, **train: Any) -> TrainingRequest:
        self.count += 1
        run_id = f"digits-{self.count:08d}".replace("0", "a").replace("1", "b")
        self.events[run_id] = self.folder / f"{run_id}.jsonl"
        settings = {
            "epochs": EPOCHS,
            "batch_size": 63,  # 32 and 31: workers hold batches of different sizes
            "optimizer": {"name": "momentum", "args": {"lr": 0.05}},
            "losses": [{"task": TASK["name"], "name": "cross-entropy", "args": {}, "weight": 1.0}],
            "schedule": {"name": "cosine", "args": {}},
            "seed": 3,
            "precision": "float32",
            "accumulate_steps": 2,
            "clip_norm": 1.0,
            "ema_decay": 0.9,
            "early_stop": None,
            "checkpoint_every_epochs": 1,
            "max_failures": 2,
        }
        part = {
            "tasks": [TASK],
            "model": model or {"name": "net:Net", "args": {}, "code": self.code, "init_from": None, "freeze": []},
            "train": {**settings, **train},
        }
        return TrainingRequest(
            run_id=run_id,
            attempt="1.1",
            train=part,
            split_fingerprint=self.fingerprint,
            store_url=self.store.url,
            checkpoints_uri=self.store.uri("runs", run_id, "checkpoints"),
            events_path=str(self.events[run_id]),
            workers=workers,
        )

    def told(self, request: TrainingRequest, kind: str) -> list[dict[str, Any]]:
        path = self.events[request.run_id]
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for event in map(json.loads, lines) if event["type"] == kind]

    def newest(self, request: TrainingRequest) -> int:
        return max((event["epoch"] for event in self.told(request, "metrics")), default=0)

    def wait_for_epoch(self, request: TrainingRequest, epoch: int) -> None:
        deadline = time.monotonic() + 240
        while self.newest(request) < epoch:
            assert time.monotonic() < deadline, "no such epoch came"
            time.sleep(0.02)

    @property
    def hold(self) -> Path:
        return self.folder / "hold"

    @contextmanager
    def held(self) -> Iterator[None]:
        """For the length of the block trainings stand still after 30 batches, in their third epoch."""
        self.hold.touch()
        try:
            yield
        finally:
            self.hold.unlink()

    def pack(self, **sources: str) -> dict[str, str]:
        """Own code of the modules SOURCES, which may pause, as a request's model names it."""
        sha256, tar = pack_code(write_code(self.folder / "-".join(sources), self.hold, **sources))
        return {"sha256": sha256, "uri": self.store.write_bytes(self.store.uri("code", f"{sha256}.tar"), tar)}


def connection_of(head: Head) -> Connection:
    return Connection(head.address, head_environment(head), str(head.log_dir), head.leader)


@pytest.fixture(scope="module")
def runs(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("training")
    store = Store(str(folder / "store"))
    part = {"source": "builtin:digits", "format": "image-folder", "max_corrupt": 0.01, "tasks": [TASK]}
    part |= dict.fromkeys(("label", "features", "id", "group", "time"))
    part["split"] = {"strategy": "stratified", "train": 0.4, "validation": 0.2, "test": 0.4, "seed": 0}
    split = split_data(part, store=store, source_fingerprint="", tell=print)
    made = Runs(store, split.fingerprint, {}, connection_of(ensure_head(print)), folder)
    made.code = made.pack(net=NETWORK)
    return made


@pytest.fixture(scope="module")
def straight(runs: Runs) -> tuple[TrainingRequest, TrainingResult]:
    request = runs.request()
    return request, run_training(request, connection=runs.connection)


def ray_processes(head: Head, name: str) -> list[ProcessRef]:
    found = []
    for process in session_members(head.leader.pid):
        try:
            title = Path(f"/proc/{process.pid}/cmdline").read_text()
        except OSError:
            continue
        if title.startswith(f"ray::{name}"):
            found.append(process)
    return found


def kill_a_worker(head: Head) -> None:
    workers = ray_processes(head, "RayTrainWorker")
    assert max(workers, key=lambda worker: worker.started).send(signal.SIGKILL)  # an older one is leaving


@pytest.fixture(scope="module")
def in_thread() -> Callable[..., Callable[[], Any]]:
    """Run something in a thread; what is returned waits for it and gives its result or raises its error."""

    def start(work: Callable[[], Any]) -> Callable[[], Any]:
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append(work())
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=run)
        thread.start()

        def result() -> Any:
            thread.join(400)
            assert outcome, "it never came back"
            if isinstance(outcome[0], BaseException):
                raise outcome[0]
            return outcome[0]

        return result

    return start


def test_two_workers_train_a_model_that_is_measured_packaged_and_told_of(
    runs: Runs, straight: tuple[TrainingRequest, TrainingResult]
) -> None:
    request, result = straight
    print(json.dumps(dict(result.seconds), indent=1), result.evaluations[result.package_sha256]["metrics"]["accuracy"])
    assert result.epochs_done == EPOCHS
    evaluation = result.evaluations[result.package_sha256]
    assert evaluation["samples"] == 719
    assert evaluation["metrics"]["accuracy"] > 0.8
    assert result.validation_metrics["accuracy"] > 0.8
    stored = runs.store.read_json(
        runs.store.uri("evaluations", result.package_sha256, f"{request.split_fingerprint}.json")
    )
    assert stored["metrics"] == evaluation["metrics"]
    pictures = Path(runs.store.uri("evaluations", result.package_sha256, request.split_fingerprint)).glob("*.png")
    assert {"loss_curves.png", "confusion_matrix.png"} <= {path.name for path in pictures}
    assert load_package(result.package_uri).sha256 == result.package_sha256
    assert len(committed(runs.store, request.checkpoints_uri) or ()) == 2
    assert [event["epoch"] for event in runs.told(request, "metrics")] == list(range(1, EPOCHS + 1))
    phases = [event["phase"] for event in runs.told(request, "progress")]
    assert [phase for index, phase in enumerate(phases) if phase not in phases[:index]] == [
        "starting workers",
        "loading data",
        "training",
        "validating",
        "packaging",
        "evaluating",
    ]


def test_a_training_that_went_on_still_says_what_its_first_weights_were(
    runs: Runs, head: Head, straight: tuple[TrainingRequest, TrainingResult], in_thread: Any
) -> None:
    model = {
        "name": "net:Net",
        "args": {"pause": 15},  # in the second epoch
        "code": runs.code,
        "init_from": straight[1].package_uri,
        "freeze": ["body."],
    }
    request = runs.request(workers=(1, 1), model=model, epochs=2, schedule={"name": "constant", "args": {}})
    with runs.held():
        training = in_thread(lambda: run_training(request, connection=runs.connection))
        runs.wait_for_epoch(request, 1)
        kill_a_worker(head)
    result = training()
    assert result.epochs_done == 2
    assert "training starts again" in runs.told(request, "message")[-1]["text"]
    assert result.evaluations[result.package_sha256]["metrics"]["accuracy"] > 0.8  # it began with what others gave
    (told,) = [event["text"] for event in runs.told(request, "message") if "init_from" in event["text"]]
    package, first = load_package(result.package_uri), load_package(straight[1].package_uri)
    said = package.manifest.provenance["init_from"]
    assert told == f"model.init_from: {said['told']}" == f"model.init_from: {len(said['loaded'])} weights loaded"
    weights, before = package.model.state_dict(), first.model.state_dict()
    assert set(said["loaded"]) == set(weights)
    frozen = {name for name, _ in package.model.named_parameters() if name.startswith("body.")}
    assert frozen
    assert all(bool((weights[name] == before[name]).all()) for name in frozen)
    assert not bool((weights["head.2.weight"] == before["head.2.weight"]).all())


def test_sharded_weights_survive_a_killed_worker_and_make_the_package_that_ddp_makes(
    runs: Runs, head: Head, straight: tuple[TrainingRequest, TrainingResult], in_thread: Any
) -> None:
    request = runs.request(parallel="fsdp")
    with runs.held():
        training = in_thread(lambda: run_training(request, connection=runs.connection))
        runs.wait_for_epoch(request, 2)
        kill_a_worker(head)
    result = training()
    sharded, plain = load_package(result.package_uri), load_package(straight[1].package_uri)
    shapes = [
        {name: (type(value), value.shape) for name, value in package.model.state_dict().items()}
        for package in (sharded, plain)
    ]
    assert shapes[0] == shapes[1]
    # The best epoch may be another one where two are nearly as good, so the weights of the last are compared.
    (ours, our_state), (theirs, their_state) = (
        read_checkpoint(
            Path(runs.store.path(asked.checkpoints_uri)) / (committed(runs.store, asked.checkpoints_uri) or ())[-1]
        )
        for asked in (request, straight[0])
    )
    assert our_state.keys() == their_state.keys()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert float((value - theirs[name]).abs().max()) < 1e-3, name


@dataclass(frozen=True)
class Headless:
    """A training whose head was killed in mid-training, on a home of its own, and what came of it."""

    request: TrainingRequest
    head: Head
    error: BaseException
    seconds: float


@pytest.fixture(scope="module")
def headless(runs: Runs, in_thread: Any) -> Iterator[Headless]:
    home = Path(tempfile.mkdtemp(prefix="hk", dir="/tmp"))
    try:
        with pytest.MonkeyPatch.context() as patch, runs.held():
            patch.setenv("HEADRACE_HOME", str(home))
            try:
                head = ensure_head(print)
                request = runs.request()
                training = in_thread(lambda: run_training(request, connection=connection_of(head)))
                runs.wait_for_epoch(request, 2)
                for process in session_members(head.leader.pid):
                    process.send(signal.SIGKILL)
                killed = time.monotonic()
                with pytest.raises(Unavailable) as raised:
                    training()
                seconds = time.monotonic() - killed
            finally:
                stop_head()
        yield Headless(request, head, raised.value, seconds)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_a_killed_head_is_named_within_twenty_seconds(headless: Headless) -> None:
    assert headless.seconds < 20
    assert isinstance(headless.error, Unavailable)
    assert headless.error.exit_code == 4
    assert headless.head.address in headless.error.message
    assert headless.error.log == str(headless.head.log_dir)


DRIVER = """
import json, sys
from pathlib import Path
from headrace.training import Connection, TrainingRequest, run_training
record = json.loads(Path(sys.argv[1]).read_text())
run_training(TrainingRequest.from_record(record["request"]), connection=Connection.from_record(record["connection"]))
"""


@dataclass(frozen=True)
class Driverless:
    """The same training, gone on with by a driver that was killed in its middle."""

    request: TrainingRequest
    told: int  # epochs, until then
    newest: int
    seconds: float  # until the workers were gone


@pytest.fixture(scope="module")
def driverless(runs: Runs, head: Head, headless: Headless) -> Driverless:
    request = headless.request
    write_json(runs.folder / "driver.json", {"request": request.to_record(), "connection": runs.connection.to_record()})
    with runs.held():
        left = runs.newest(request)
        driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(runs.folder / "driver.json")])
        try:
            runs.wait_for_epoch(request, left + 2)  # it stands still: nothing more is told
        finally:
            driver.kill()
            driver.wait()
        killed = time.monotonic()
        while ray_processes(head, "RayTrainWorker") and time.monotonic() - killed < 60:
            time.sleep(0.05)
        seconds = time.monotonic() - killed
    return Driverless(request, len(runs.told(request, "metrics")), runs.newest(request), seconds)


def test_a_killed_driver_frees_the_workers(driverless: Driverless) -> None:
    assert driverless.seconds < 60
    assert driverless.newest < EPOCHS


def test_a_killed_worker_costs_no_epoch_and_with_a_killed_head_and_driver_no_bit_of_the_model(
    runs: Runs, head: Head, straight: tuple[TrainingRequest, TrainingResult], driverless: Driverless, in_thread: Any
) -> None:
    request = driverless.request
    torn = Path(request.checkpoints_uri) / "checkpoint_torn"
    torn.mkdir()
    runs.store.claim_attempt(request.run_id, "2.1")
    with runs.held():
        training = in_thread(lambda: run_training(replace(request, attempt="2.1"), connection=runs.connection))
        runs.wait_for_epoch(request, driverless.newest + 1)
        kill_a_worker(head)
    result = training()
    assert result.package_sha256 == straight[1].package_sha256
    assert not torn.exists()
    assert "training starts again" in runs.told(request, "message")[-1]["text"]
    epochs = [event["epoch"] for event in runs.told(request, "metrics")][driverless.told :]
    assert epochs == list(range(epochs[0], EPOCHS + 1))
    assert epochs[0] >= driverless.newest  # of the epochs since the newest checkpoint at most one is told again
    with pytest.raises(Superseded):
        run_training(request, connection=runs.connection)


def test_a_model_that_counts_is_the_same_to_the_bit_where_a_worker_was_killed(
    runs: Runs, head: Head, in_thread: Any
) -> None:
    """examples/own_mixture: statistics of two workers, in the same epochs, checkpoints and packages as gradients."""
    code = runs.pack(mixture=(MIXTURE / "mixture.py").read_text(), held=HELD_MIXTURE)
    args = {"components": 3, "tolerance": -1e9}  # never settled, though shifted pictures let the loss rise
    model = {"name": "held:Held", "args": args, "code": code, "init_from": None, "freeze": []}
    nothing = {"optimizer": {"name": "adam", "args": {}}, "schedule": {"name": "constant", "args": {}}}
    nothing |= {"accumulate_steps": 1, "clip_norm": None, "ema_decay": None}
    first = run_training(runs.request(model=model, **nothing), connection=runs.connection)
    request = runs.request(model=model, **nothing)
    with runs.held():
        training = in_thread(lambda: run_training(request, connection=runs.connection))
        runs.wait_for_epoch(request, 2)
        kill_a_worker(head)
    second = training()
    assert second.package_sha256 == first.package_sha256
    told = runs.told(request, "metrics")
    assert [event["epoch"] for event in told] == list(range(1, EPOCHS + 1))
    assert told[-1]["metrics"]["train.loss"] < told[0]["metrics"]["train.loss"]  # the negative log-likelihood
    assert "train.learning_rate" not in told[0]["metrics"]
    assert "training starts again" in runs.told(request, "message")[0]["text"]
    assert first.evaluations[first.package_sha256]["metrics"]["accuracy"] > 0.7


def test_models_that_exist_are_only_measured_and_one_that_cannot_be_is_named(
    runs: Runs, straight: tuple[TrainingRequest, TrainingResult]
) -> None:
    request, result = straight
    measured = dict(result.evaluations[result.package_sha256])
    evaluations = Path(runs.store.uri("evaluations", result.package_sha256))
    shutil.rmtree(evaluations)
    gone = runs.store.uri("packages", "0" * 64)
    again = replace(runs.request(workers=(1, 2)), train_needed=False, package_uri=result.package_uri, evaluate=(gone,))
    second = run_training(again, connection=replace(runs.connection, single_machine=False))  # so with Ray's elasticity
    assert second.evaluations[result.package_sha256]["samples"] == measured["samples"]
    assert second.evaluations[result.package_sha256]["metrics"] == pytest.approx(measured["metrics"])
    assert "no package" in second.evaluation_errors[gone]
    assert (evaluations / f"{request.split_fingerprint}.json").exists()


def test_an_error_in_the_users_own_code_ends_the_run_at_once_in_the_users_words(runs: Runs) -> None:
    model = {"name": "net:Net", "args": {"fail": "my own words"}, "code": runs.code, "init_from": None, "freeze": []}
    request = runs.request(model=model)
    with pytest.raises(RunFailed) as raised:
        run_training(request, connection=runs.connection)
    assert "ValueError: my own words" in raised.value.message
    assert "net.py" in raised.value.message
    assert not runs.told(request, "metrics")


def test_a_loss_that_is_not_a_number_is_told_with_its_place_and_not_tried_again(runs: Runs) -> None:
    request = runs.request(workers=(1, 1), clip_norm=None, optimizer={"name": "sgd", "args": {"lr": 1e30}})
    with pytest.raises(RunFailed) as raised:
        run_training(request, connection=runs.connection)
    assert raised.value.code == "loss-not-finite"
    assert "epoch 1" in raised.value.message
    assert len([e for e in runs.told(request, "progress") if e["phase"] == "loading data"]) == 1


def test_more_workers_than_there_are_cpus_are_refused_before_anything_starts(runs: Runs, head: Head) -> None:
    with pytest.raises(InvalidInput) as raised:
        run_training(runs.request(workers=(99, 99)), connection=runs.connection)
    assert raised.value.code == "not-enough-resources"
    assert "99 CPUs" in raised.value.message
    assert str(head.num_cpus) in raised.value.message
