"""Measuring packages on the test split, on the workers that have the data: the new model and the champion alike.

A package is measured as it will be served: read from the store, every file held to its hash, in float32.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.base.errors import HeadraceError, InvalidInput, Unavailable, error_from_record
from headrace.data.manifest import Shard
from headrace.spec.measured import is_whole
from headrace.store import Store
from headrace.training.batches import Examples, evaluation_batches
from headrace.training.group import Group
from headrace.training.loop import judge
from headrace.training.progress import Teller
from headrace_models.package import load_package
from headrace_models.tasks.base import Example, Metrics, Sample, Schema, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from headrace_models.package import LoadedModel

BATCH = 64  # samples per forward pass on one worker


def evaluation_uri(store: Store, package_sha256: str, split_fingerprint: str) -> str:
    """Where the metrics of a package on a split's test part lie; plots are in the folder of the same stem."""
    return store.uri("evaluations", package_sha256, f"{split_fingerprint}.json")


def local_package(store: Store, uri: str, into: Path) -> Path:
    """The package at URI as a folder of this machine, fetched if need be.

    Raises:
        InvalidInput: there is none.
        Unavailable: the store does not answer.
    """
    path = store.path(uri)
    if store.local and Path(path).is_dir():
        return Path(path)
    try:
        return store.get_folder(uri, into / uri.rstrip("/").rsplit("/", 1)[-1])
    except FileNotFoundError as error:
        raise InvalidInput(f"there is no package at {uri}", action="was it removed from the store?") from error


def require_comparable(task: Task, names: Sequence[str], schema: Schema) -> None:
    """Raise InvalidInput unless TASK can be measured on data of SCHEMA for the tasks called NAMES."""
    if set(task.names) != set(names):
        given, wanted = " and ".join(task.names), " and ".join(names)
        raise InvalidInput(f"it does {given}, not {wanted}", action="compare models of one task")
    if task.schema.classes != schema.classes:
        ours, theirs = set(schema.classes), set(task.schema.classes)
        parts = [f"it does not know {', '.join(sorted(ours - theirs))}"] if ours - theirs else []
        parts += [f"it knows {', '.join(sorted(theirs - ours))}, which the data lacks"] if theirs - ours else []
        raise InvalidInput(
            f"its classes are others: {'; '.join(parts) or 'their order differs'}",
            action="compare models of one data set",
        )
    missing = [column for column in task.schema.columns if column not in schema.columns]
    if missing:
        raise InvalidInput(f"it needs the columns {', '.join(missing)}", action="compare models of one data set")


@dataclass(frozen=True)
class Evaluation:
    """What all workers together measured of one package."""

    package: LoadedModel
    metrics: Metrics
    samples: int

    def record(self, split_fingerprint: str) -> dict[str, Any]:
        """As it is stored."""
        return {
            "metrics": self.metrics.compute() if self.samples else {},
            "samples": self.samples,
            "package_sha256": self.package.sha256,
            "split_fingerprint": split_fingerprint,
        }


class Evaluator:
    """Evaluates packages on one split's test part, one after the other; all workers call it alike.

    SHARD is this worker's share of the test part; WHOLE gives all of it, where whoever draws takes the pictures from.
    """

    def __init__(
        self,
        store: Store,
        split_fingerprint: str,
        shard: Sequence[Sample],
        whole: Callable[[], Shard],
        schema: Schema,
        group: Group,
        teller: Teller,
    ) -> None:
        self._store = store
        self._fingerprint = split_fingerprint
        self._shard = shard
        self._whole = whole
        self._schema = schema
        self._group = group
        self._teller = teller

    def stored(self, uri: str, tasks: Sequence[str]) -> dict[str, Any] | None:
        """The evaluation of the package at URI that the store has already, with every metric of TASKS."""
        sha256 = uri.rstrip("/").rsplit("/", 1)[-1]
        found = self._store.read_json(evaluation_uri(self._store, sha256, self._fingerprint))
        return found if isinstance(found, dict) and is_whole(found, tasks) else None

    def measure(self, uri: str, tasks: Sequence[str]) -> Evaluation:
        """Measure the package at URI. Raises on every worker if it fails on one."""
        with tempfile.TemporaryDirectory(prefix="headrace-package-") as scratch:
            package, error = self._load(uri, tasks, Path(scratch))
            errors = [found for found in self._group.gather(error and error.to_record()) if found]
            if errors or package is None:
                raise _told(error_from_record(errors[0]))
            examples = Examples(self._shard, package.task)
            batches = evaluation_batches(examples, package.task, BATCH)
            metrics, _, samples = judge(package.model, None, package.task, batches, self._group, self._teller)
        return Evaluation(package, metrics, samples)

    def _load(self, uri: str, tasks: Sequence[str], scratch: Path) -> tuple[LoadedModel | None, HeadraceError | None]:
        try:
            folder = local_package(self._store, uri, scratch)
            package = load_package(folder, str(self._group.device))
            require_comparable(package.task, tasks, self._schema)
            return package, None
        except HeadraceError as error:
            return None, error
        except Exception as error:  # a package may carry anybody's code
            return None, InvalidInput(f"{type(error).__name__}: {error}")

    def write(self, evaluation: Evaluation, history: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Store an evaluation with its pictures, the record last; returns the record.

        The last worker draws: the first one has the most to do already.
        """
        record = evaluation.record(self._fingerprint)
        uri = evaluation_uri(self._store, evaluation.package.sha256, self._fingerprint)
        note = None
        if self._group.rank == self._group.world - 1:
            pictures, note = self._pictures(evaluation, history)
            for name, picture in pictures.items():
                self._store.write_bytes(f"{uri.removesuffix('.json')}/{name}", picture)
        for told in filter(None, self._group.gather(note)):  # the record stands for the whole: after the pictures
            self._teller.message(told)
        if self._group.first:
            self._store.write_json(uri, record)
        return record

    def _pictures(
        self, evaluation: Evaluation, history: Sequence[Mapping[str, Any]]
    ) -> tuple[dict[str, bytes], str | None]:
        import matplotlib

        matplotlib.use("Agg")
        task, note = evaluation.package.task, None
        figures: dict[str, Figure | bytes] = {}
        if evaluation.samples:
            figures.update(task.plots(evaluation.metrics))
        whole = self._whole()
        shown = [task.decode(whole[index]) for index in task.to_show(len(whole), whole.label)]
        if shown:
            outputs = evaluation.package.forward(task.collate(shown))
            figures.update(task.example_pictures(shown, outputs))
            explained, note = _explanations(evaluation.package, shown)
            figures.update(explained)
        if history:
            figures["loss_curves"] = loss_curves(history)
        drawn = {
            f"{name}.gif" if isinstance(figure, bytes) else f"{name}.png": _encoded(figure)
            for name, figure in figures.items()
        }
        return drawn, note


def _explanations(package: LoadedModel, shown: Sequence[Example]) -> tuple[dict[str, Figure], str | None]:
    """The pictures for which the network itself is asked, or why there are none: the model is none the worse."""
    try:
        return package.task.explanations(package.model, shown), None
    except InvalidInput as error:
        return {}, f"{package.manifest.model['name']} is not explained: {error.message} ({error.action})"
    except Exception as error:  # gradients of anybody's code
        return {}, f"{package.manifest.model['name']} is not explained: {type(error).__name__}: {error}"


def _told(error: HeadraceError) -> HeadraceError:
    """ERROR of one worker as all raise it: a store that is down is no fault of the package."""
    return error if isinstance(error, Unavailable) else InvalidInput(error.message, action="")


def _encoded(figure: Figure | bytes) -> bytes:
    if isinstance(figure, bytes):
        return figure
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def loss_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Training and validation loss by epoch, and the other validation metrics beside them."""
    from matplotlib.figure import Figure as NewFigure

    names = {name for entry in history for name in entry["metrics"]}
    losses = [name for name in ("train.loss", "validation.loss") if name in names]
    others = sorted(name for name in names if name.startswith("validation.") and name not in losses)
    figure = NewFigure(figsize=(9, 3.5), layout="constrained")
    for axes, shown in zip(figure.subplots(1, 2), (losses, others), strict=True):
        for name in shown:
            points = [(entry["epoch"], entry["metrics"][name]) for entry in history if name in entry["metrics"]]
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 50 else None, label=name)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if shown:
            axes.legend(fontsize="small")
    return figure
