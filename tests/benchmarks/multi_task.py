"""One network for two tasks beside one network for each: accuracy and IoU over three seeds.

All three trainings of a seed are those of examples/zoo/multi-task.yaml, with the same network, first weights, batches,
epochs and schedule: `joined` with all its losses, each task alone with that task's only (the other head then gets no
gradient, and what is left is a U-Net, or its contracting side with a linear layer). 70 % of builtin:digit-scenes to
train on, the last weights judged on the rest. Prints a table; 75 to 120 s a training on one quiet core, and a bit more
than twice that with `--set train.epochs=48`, at whose end all have learned what they can.

    python tests/benchmarks/multi_task.py [--results FILE] [SEED:WAY ... | all] [--set KEY=VALUE ...]

With FILE each training is kept there, so that they can be made one at a time; without any SEED:WAY it is only read.
`all` makes all nine, 11 to 18 minutes; nothing is trained unasked, as by `make bench`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from headrace.spec import load_spec

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
import conftest
import zoo

SEEDS = (0, 1, 2)
WAYS = {
    "joined": ("image-classification", "semantic-segmentation"),
    "classification": ("image-classification",),
    "segmentation": ("semantic-segmentation",),
}
METRICS = {"accuracy": "image-classification.accuracy", "IoU": "semantic-segmentation.iou"}
ALONE = {"accuracy": "classification", "IoU": "segmentation"}

Result = dict[str, Any]


def spec_of(seed: int, way: str, settings: Sequence[str]) -> dict[str, Any]:
    """The example with the losses of the tasks that WAY names."""
    spec = load_spec(zoo.EXAMPLES / "multi-task.yaml", [f"train.seed={seed}", *settings]).to_record()
    spec["train"]["losses"] = [loss for loss in spec["train"]["losses"] if loss["task"] in WAYS[way]]
    return spec


def measure(seed: int, way: str, settings: Sequence[str]) -> Result:
    """Train and judge once."""
    done = zoo.train(spec_of(seed, way, settings), *conftest.load_digit_scenes())
    values = {name: done.metrics[metric] for name, metric in METRICS.items()}
    if way != "joined":
        values = {name: value for name, value in values.items() if ALONE[name] == way}
    return {"seed": seed, "way": way, "settings": list(settings), "steps": done.steps, "seconds": done.seconds} | values


def table(results: Sequence[Result]) -> str:
    """RESULTS, a row a seed of which all three trainings are there, and their means."""
    found = {(result["seed"], result["way"]): result for result in results}
    seeds = sorted(seed for seed in {seed for seed, _ in found} if all((seed, way) in found for way in WAYS))
    rows = ["| seed | accuracy alone | joined | IoU alone | joined |", "|---|---|---|---|---|"]
    columns = [(name, way) for name in METRICS for way in (ALONE[name], "joined")]
    values = [[found[seed, way][name] for name, way in columns] for seed in seeds]
    rows += [_row(seed, numbers) for seed, numbers in zip(seeds, values, strict=True)]
    if values:
        means = [statistics.fmean(column) for column in zip(*values, strict=True)]
        rows.append(_row("mean", means))
        rows.append(f"\njoined - alone: accuracy {means[1] - means[0]:+.3f}, IoU {means[3] - means[2]:+.3f}")
    return "\n".join(rows)


def _row(name: object, numbers: Sequence[float]) -> str:
    return f"| {name} | " + " | ".join(f"{number:.3f}" for number in numbers) + " |"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainings", nargs="*", metavar="SEED:WAY", help=f"WAY is one of {', '.join(WAYS)}; or all")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    if not given.trainings and not given.results:
        parser.print_help()
        return
    torch.set_num_threads(1)
    everything = [f"{seed}:{way}" for seed in SEEDS for way in WAYS]
    wanted = everything if given.trainings == ["all"] else given.trainings
    results = []
    for seed, _, way in (name.partition(":") for name in wanted):
        results.append(measure(int(seed), way, given.set))
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
        if given.results:
            with given.results.open("a") as file:
                print(json.dumps(results[-1]), file=file)
    if given.results and given.results.exists():
        results = [json.loads(line) for line in given.results.read_text().splitlines()]
    print(table(results))


if __name__ == "__main__":
    main()
