"""One network that learns two tasks at once is about as good at each as one that learns that task alone."""

from __future__ import annotations

import pytest
import zoo
from conftest import Split, load_digit_scenes

CLASSIFICATION, SEGMENTATION = "image-classification", "semantic-segmentation"


@pytest.fixture(scope="module")
def scenes() -> Split:
    return load_digit_scenes()


def trained(scenes: Split, *tasks: str) -> zoo.Trained:
    """examples/zoo/multi-task.yaml with the losses of TASKS only, on smaller pictures and shorter: 320 steps."""
    spec = zoo.example("multi-task")
    spec["model"]["args"]["depth"] = 3
    spec["train"]["epochs"] = 8
    for task in spec["tasks"]:
        task["args"]["image_size"] = 16
    spec["train"]["losses"] = [loss for loss in spec["train"]["losses"] if loss["task"] in tasks]
    return zoo.train(spec, *scenes)


def test_two_tasks_together_are_learned_about_as_well_as_each_alone(scenes: Split) -> None:
    """tests/benchmarks/multi_task.py has the example's own size and three seeds (docs/models/segmentation.md)."""
    joined = trained(scenes, CLASSIFICATION, SEGMENTATION)
    for task, metric in ((CLASSIFICATION, "accuracy"), (SEGMENTATION, "iou")):
        name = f"{task}.{metric}"
        alone = trained(scenes, task)
        print(name, "alone", alone.metrics[name], "joined", joined.metrics[name])
        assert alone.steps == joined.steps
        assert joined.metrics[name] > alone.metrics[name] - 0.05


def test_a_task_without_a_loss_leaves_its_head_as_it_was(scenes: Split) -> None:
    """What makes the comparison fair: alone, a task has the same first weights, and the other's head plays no part."""
    training, test, schema = scenes
    spec = zoo.example("multi-task")
    spec["model"]["args"] |= {"width": 4, "depth": 2}
    spec["train"]["epochs"] = 1
    states = []
    for losses in (spec["train"]["losses"][:1], spec["train"]["losses"][1:]):
        few = {**spec, "train": {**spec["train"], "losses": losses}}
        states.append(zoo.train(few, training[:64], test[:8], schema).model.state_dict())
    same = {name for name in states[0] if bool((states[0][name] == states[1][name]).all())}
    assert not any(name.startswith("heads.") for name in same if name.endswith("weight"))
    spec["train"]["epochs"] = 0
    first = zoo.train(spec, training[:64], test[:8], schema).model.state_dict()
    for state, head in zip(states, ("heads.semantic", "heads.image"), strict=True):
        kept = [name for name in state if name.startswith(head) and not name.endswith("tracked")]
        kept = [name for name in kept if "running" not in name]
        assert kept
        assert all(bool((state[name] == first[name]).all()) for name in kept)
