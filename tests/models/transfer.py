"""Learning from few samples: from scratch, and from a model of other classes, by the specs of examples/zoo.

python tests/models/transfer.py [SEED...] prints a table; about half a minute a seed on one thread.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import zoo
from conftest import load_digit_scenes

from headrace_models.package import write_package
from headrace_models.tasks import Sample, Schema

LOW, HIGH = tuple("01234"), tuple("56789")
FEW = 20  # samples of each of HIGH to learn from
WAYS: Mapping[str, Mapping[str, Any]] = {  # what each way changes of transfer.yaml
    "from scratch": {"layer_decay": 1.0},  # the decay is for layers that know something already
    "fine-tuned": {},
    "fine-tuned, first stage frozen": {"freeze": ["conv.", "norm.", "stages.0."]},
}


class Halves:
    """`builtin:digit-scenes` as pictures of 0 to 4, and of 5 to 9, the latter few to learn from."""

    def __init__(self) -> None:
        training, test, _ = load_digit_scenes()
        self.low = _of(training, LOW), _of(test, LOW), Schema("label", LOW)
        self._high, self._high_test = _of(training, HIGH), _of(test, HIGH)

    def high(self, seed: int) -> tuple[list[Sample], list[Sample], Schema]:
        """FEW samples a class, others for each SEED, and all that are there to judge by."""
        order = list(self._high)
        random.Random(seed).shuffle(order)
        few = [sample for name in HIGH for sample in [s for s in order if s.labels["label"] == name][:FEW]]
        return few, self._high_test, Schema("label", HIGH)


def _of(samples: Sequence[Sample], classes: Sequence[str]) -> list[Sample]:
    named = [(sample, sample.labels["annotation"]["names"][0]) for sample in samples]
    return [Sample(sample.sample_id, sample.payload, {"label": name}) for sample, name in named if name in classes]


def base(seed: int, data: Halves, folder: str) -> zoo.Trained:
    """What transfer-base.yaml gives; its package is written to FOLDER."""
    spec = zoo.example("transfer-base")
    spec["train"]["seed"] = seed
    done = zoo.train(spec, *data.low)
    write_package(
        folder,
        task=done.task,
        model=done.model.eval(),
        model_record=spec["model"],
        code_folder=None,
        provenance={},
        example=done.task.request(data.low[1][:1]),
    )
    return done


def carried_over(seed: int, data: Halves, folder: str, way: str) -> zoo.Trained:
    """What transfer.yaml gives, in one of WAYS; FOLDER has the package to start from."""
    spec, changes = zoo.example("transfer"), WAYS[way]
    spec["train"]["seed"] = seed
    spec["model"]["init_from"] = None if way == "from scratch" else folder
    spec["model"]["freeze"] = changes.get("freeze", [])
    if "layer_decay" in changes:
        spec["train"]["optimizer"]["args"]["layer_decay"] = changes["layer_decay"]
    return zoo.train(spec, *data.high(seed))


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    data, rows = Halves(), []
    print(f"| seed | the model of 0 to 4 | {' | '.join(WAYS)} |\n|---|{'---|' * (1 + len(WAYS))}", flush=True)
    for seed in map(int, sys.argv[1:] or "012"):
        with tempfile.TemporaryDirectory() as folder:
            done = [base(seed, data, folder), *(carried_over(seed, data, folder, way) for way in WAYS)]
        rows.append([each.metrics["accuracy"] for each in done])
        print(_row(seed, rows[-1]), flush=True)
    print(_row("mean", [statistics.fmean(column) for column in zip(*rows, strict=True)]))


def _row(name: object, numbers: Sequence[float]) -> str:
    return f"| {name} | " + " | ".join(f"{number:.3f}" for number in numbers) + " |"


if __name__ == "__main__":
    main()
