"""Trains what a spec says in this very process: the parts of a run's train step, without Ray.

python tests/models/zoo.py [NAME...] prints a table of the specs in examples/zoo, trained on digits or shapes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headrace.spec import load_spec
from headrace.training.batches import Examples, evaluation_batches, seed_of, share_out
from headrace.training.checkpoint import seed_everything
from headrace.training.components import make_learner, make_model, make_objective
from headrace.training.group import Group
from headrace.training.initialise import Matching
from headrace.training.loop import judge
from headrace.training.progress import Teller
from headrace_models.tasks import Sample, Schema, Task, build_tasks

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "zoo"
ALONE = Group(0, 1, torch.device("cpu"))


@dataclass(frozen=True)
class Trained:
    """What came of it."""

    task: Task
    model: torch.nn.Module
    metrics: Mapping[str, float]
    losses: Sequence[float | None]  # of each epoch, where there is one
    steps: int
    seconds: float
    init: Matching | None = None  # what was taken of `init_from`


def example(name: str) -> dict[str, Any]:
    """The canonical record of examples/zoo/NAME.yaml."""
    return load_spec(EXAMPLES / f"{name}.yaml").to_record()


def train(
    spec: Mapping[str, Any],
    training: Sequence[Sample],
    test: Sequence[Sample],
    schema: Schema,
    group: Group = ALONE,
) -> Trained:
    """Train on TRAINING as SPEC's `tasks`, `model` and `train` say, and judge the last weights on TEST."""
    settings, silent = spec["train"], Teller(speaks=False)
    task = build_tasks(spec["tasks"], schema)
    task.learn([task.summarise(training)])
    examples, schedule = Examples(training, task), share_out(int(settings["batch_size"]), [len(training)])
    seed_everything(seed_of(settings["seed"], "model"))
    taken: list[Matching] = []
    model = make_model(spec["model"], task, None, task.request(training[:1]), on_init=taken.append)
    objective = make_objective(settings, task, group.device)
    learner = make_learner(settings, model, objective, group, schedule, own_code=False)
    started, losses = time.monotonic(), []
    for epoch in range(1, int(settings["epochs"]) + 1):
        batches = learner.batches(examples, schedule, seed=int(settings["seed"]), epoch=epoch)
        losses.append(learner.epoch(epoch, batches, schedule, silent, int(settings["epochs"])))
    seconds = time.monotonic() - started
    metrics, _, _ = judge(model, None, task, evaluation_batches(Examples(test, task), task, 256), group)
    return Trained(task, model, metrics.compute(), losses, schedule.batches * len(losses), seconds, *taken)


def main() -> None:
    """Print the table: each spec trained on 70 % of its built-in data, its last weights judged on the rest."""
    from conftest import load_digit_scenes, load_digits, load_shapes

    torch.set_num_threads(1)
    data = {"builtin:digits": load_digits, "builtin:shapes": load_shapes, "builtin:digit-scenes": load_digit_scenes}
    specs = {name: example(name) for name in sys.argv[1:] or sorted(path.stem for path in EXAMPLES.glob("*.yaml"))}
    print("| spec | parameters | steps | seconds | metric | value |\n|---|---|---|---|---|---|", flush=True)
    for name, spec in specs.items():
        if spec["data"]["source"] not in data:
            continue
        done = train(spec, *data[spec["data"]["source"]]())
        size = sum(parameter.numel() for parameter in done.model.parameters())
        metric = done.task.card.primary_metric
        value = done.metrics[metric]
        print(f"| {name} | {size:,} | {done.steps} | {done.seconds:.1f} | {metric} | {value:.3f} |", flush=True)


if __name__ == "__main__":
    main()
