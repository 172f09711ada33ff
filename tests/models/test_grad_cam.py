"""Grad-CAM: the map is the paper's formula, finds what the network looks at, and leaves the network as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import png
from torch import Tensor, nn

from headrace.base.errors import InvalidInput
from headrace.store import Store
from headrace.training.evaluate import Evaluator, evaluation_uri
from headrace.training.group import Group
from headrace.training.progress import Teller
from headrace_models import catalog
from headrace_models.package import build_model, load_package, write_package
from headrace_models.tasks import Sample, Schema, Task, build_task
from headrace_models.tasks.grad_cam import find_layer, grad_cam
from headrace_models.tasks.multi_task import MultiTask

SCHEMA = Schema("label", ("across", "upright"))
SIDE, PATCH = 32, 10
RANDOM = np.random.default_rng(0)
WITHOUT_PLACES = {"mlp", "low-level-features", "nearest-neighbours"}


class Tiny(nn.Module):
    """Convolution, activation in place as many networks have it, and a head that is not linear in the places."""

    def __init__(self, *, pooled: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.pooled = pooled
        self.head = nn.Linear(4 if pooled else 4 * 36, 3)

    def places(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()

    def top(self, places: Tensor) -> Tensor:
        return self.head(places.mean(dim=(2, 3)) if self.pooled else places.flatten(1).tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.act(self.conv(x)))


def test_under_a_mean_and_a_linear_layer_the_map_is_the_weighted_sum_of_channels() -> None:
    torch.manual_seed(0)
    network, pictures = Tiny(pooled=True).eval(), torch.randn(5, 2, 6, 6)
    maps, chosen = grad_cam(network, network, pictures)
    with torch.no_grad():
        assert torch.equal(chosen, network(pictures).argmax(dim=1))
        weights = network.head.weight[chosen] / 36  # dy/dA is the weight over the number of places
        wanted = torch.einsum("nk,nkhw->nhw", weights, network.places(pictures)).relu()
    torch.testing.assert_close(maps, wanted)
    assert maps.max() > 0


def test_under_any_head_the_map_is_the_formula_by_autograd() -> None:
    torch.manual_seed(1)
    network, pictures = Tiny(pooled=False).eval(), torch.randn(4, 2, 6, 6)
    maps, chosen = grad_cam(network, network, pictures)
    for row in range(4):  # each picture alone, without hooks
        places = network.places(pictures[row : row + 1]).detach().requires_grad_()
        network.top(places)[0, chosen[row]].backward()
        assert places.grad is not None
        alpha = places.grad.mean(dim=(2, 3))[0]
        torch.testing.assert_close(maps[row], (alpha[:, None, None] * places[0]).sum(dim=0).relu().detach())


def test_a_coarser_map_is_stretched_to_the_picture() -> None:
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv2d(1, 3, 3, stride=4, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 6 * 4, 2))
    maps, _ = grad_cam(network.eval(), network, torch.randn(2, 1, 24, 16))
    assert maps.shape == (2, 24, 16)
    assert (maps >= 0).all()


# what it finds


def stripes(number: int) -> tuple[Sample, tuple[int, int]]:
    """Noise, and in one corner a patch with stripes: their direction alone is the class. (sample, the patch's edge)"""
    rng = np.random.default_rng(number)
    pixels = rng.integers(90, 166, (SIDE, SIDE)).astype(np.uint8)
    top, left = (int(rng.integers(0, 2)) * (SIDE - PATCH) for _ in range(2))
    lines = np.where(np.arange(PATCH) // 2 % 2, 250, 5)[:, None] * np.ones((1, PATCH), int)
    across = number % 2 == 0
    pixels[top : top + PATCH, left : left + PATCH] = lines if across else lines.T
    return Sample(str(number), png(pixels), {"label": "across" if across else "upright"}), (top, left)


def test_a_network_that_looks_at_a_patch_has_its_heat_there(
    learned: Callable[..., Task], fit: Callable[..., Any]
) -> None:
    train, unseen = [stripes(n)[0] for n in range(400)], [stripes(n) for n in range(400, 500)]
    task = learned("image-classification", train, SCHEMA)
    network, metrics = fit(
        task, train, [sample for sample, _ in unseen], {"name": "resnet8", "args": {"width": 8}}, epochs=3
    )
    assert metrics["accuracy"] > 0.95  # measured: 1.0
    (pictures,) = task.inputs(task.collate([task.decode(sample) for sample, _ in unseen]))
    maps, _ = grad_cam(network, network, pictures)
    hits = []
    for (_, (top, left)), heat in zip(unseen, maps, strict=True):
        row, column = divmod(int(heat.argmax()), SIDE)
        hits.append(top <= row < top + PATCH and left <= column < left + PATCH)
    assert np.mean(hits) >= 0.9  # measured: 1.0; by chance: .1


# on any network


def prepared(size: int = 64, **args: Any) -> Task:
    task = build_task({"name": "image-classification", "args": args}, SCHEMA)
    pixels = {"image_size": [size, size], "channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3}
    task.preprocessing = {**pixels, "class_counts": [4, 4]}
    return task


def examples(count: int = 3, size: int = 64) -> list[dict[str, Any]]:
    return [{"image": RANDOM.integers(0, 256, (3, size, size), dtype=np.uint8), "label": n % 2} for n in range(count)]


NETWORKS = [card for card in catalog.models().values() if card.suits(["image-classification"])]


@pytest.mark.parametrize("card", NETWORKS, ids=lambda card: card.name)
def test_every_network_of_the_zoo_is_explained_or_says_that_it_has_no_places(card: Any) -> None:
    torch.manual_seed(0)
    task = prepared(explain="grad-cam")
    network = build_model({"name": card.name, "args": dict(card.debug)}, task).eval().requires_grad_(False)
    shown = examples()
    if card.name in WITHOUT_PLACES:
        with pytest.raises(InvalidInput, match="no layer"):
            task.explanations(network, shown)
        return
    (pictures,) = task.inputs(task.collate(shown))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.inference_mode():
        wanted = network(pictures)
    assert set(task.explanations(network, shown)) == {"grad_cam"}
    maps, chosen = grad_cam(network, network, pictures)
    assert maps.shape == (3, 64, 64)
    assert maps.isfinite().all()
    assert torch.equal(chosen, wanted.argmax(dim=1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_layer_is_found_by_what_the_scores_depend_on_or_named() -> None:
    torch.manual_seed(0)
    network = build_model({"name": "resnet8", "args": {"width": 4}}, prepared()).eval()
    picture = torch.randn(1, 3, 64, 64)
    last = find_layer(network, network, picture)
    assert last.call == 0
    named = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    other = find_layer(network, network, picture, named[0])
    assert other.name == named[0] != last.name
    task = prepared(explain="grad-cam", explain_layer=named[0])
    assert set(task.explanations(network, examples())) == {"grad_cam"}
    with pytest.raises(InvalidInput, match=rf"no layer '{named[0]}x'; there are {named[0]}"):
        find_layer(network, network, picture, f"{named[0]}x")
    head = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    with pytest.raises(InvalidInput, match=f"'{head}' is not one that"):
        find_layer(network, network, picture, head)


def test_a_branch_that_the_scores_do_not_depend_on_is_passed_over() -> None:
    class Branched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.aside = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)
            self.head = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            places = self.body(x)
            self.aside(places)
            return self.head(places.mean(dim=(2, 3)))

    network = Branched().eval()
    assert find_layer(network, network, torch.randn(1, 1, 8, 8)).name == "body"


@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("name", ["alexnet", "vgg11"])
def test_a_pool_that_enlarges_is_passed_over_unless_it_is_named(name: str, size: int) -> None:
    torch.manual_seed(0)
    task = prepared(size)
    record = {"name": name, "args": dict(catalog.models()[name].debug)}
    network = build_model(record, task).eval()
    (pictures,) = task.inputs(task.collate(examples(size=size)))
    (pool,) = [each for each, module in network.named_modules() if isinstance(module, nn.AdaptiveAvgPool2d)]
    found = find_layer(network, network, pictures[:1])
    assert found.name != pool
    assert find_layer(network, network, pictures[:1], pool).name == pool
    maps, _ = grad_cam(network, network, pictures)
    assert all(heat.max() > heat.min() for heat in maps), found


def test_nothing_is_drawn_unless_it_is_asked_for() -> None:
    network = build_model({"name": "resnet8", "args": {"width": 4}}, prepared()).eval()
    assert prepared().explanations(network, examples()) == {}
    assert prepared(explain="grad-cam").explanations(network, []) == {}


def test_one_network_for_several_tasks_is_explained_by_its_classification() -> None:
    torch.manual_seed(0)
    masked = build_task({"name": "semantic-segmentation"}, Schema("annotation", SCHEMA.classes))
    masked.preprocessing = prepared(32).preprocessing
    joined = MultiTask([prepared(32, explain="grad-cam"), masked])
    network = build_model({"name": "multi-task", "args": {"width": 4, "depth": 2}}, joined).eval()
    assert set(joined.explanations(network, examples(size=32))) == {"grad_cam"}
    assert not network._forward_hooks


def colour(label: str) -> Sample:
    return Sample("x", png(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)), {"label": label})


def packed(folder: Path, task: Task, name: str) -> str:
    record = {"name": name, "args": dict(catalog.models()[name].debug)}
    return write_package(
        folder,
        task=task,
        model=build_model(record, task),
        model_record=record,
        code_folder=None,
        provenance={},
        example=task.request([colour("across")]),
    )


def test_a_package_is_explained_as_it_is_judged(tmp_path: Path) -> None:
    packed(tmp_path / "p", prepared(explain="grad-cam"), "resnet8")
    package = load_package(tmp_path / "p")
    shown = examples()
    package.forward(package.task.collate(shown))  # under inference_mode, with the same normalisation
    (figure,) = package.task.explanations(package.model, shown).values()
    assert len([axes for axes in figure.axes if len(axes.images) == 2]) == 3


class Whole(list[Sample]):
    """The test split as who draws it asks for it."""

    def label(self, index: int) -> str:
        return str(self[index].labels["label"])


@pytest.mark.parametrize("name", ["resnet8", "mlp"])
def test_an_evaluation_draws_the_maps_or_tells_why_there_are_none(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADRACE_EVENTS", raising=False)
    store = Store(str(tmp_path / "store"))
    sha256 = packed(tmp_path / "p", prepared(explain="grad-cam"), name)
    uri = store.put_folder(tmp_path / "p", store.uri("packages", sha256), marker="headrace.json")
    test = Whole([colour(SCHEMA.classes[n % 2]) for n in range(6)])
    alone = Group(0, 1, torch.device("cpu"))
    evaluator = Evaluator(store, "split", test, lambda: test, SCHEMA, alone, Teller(speaks=True))  # type: ignore[arg-type,return-value]
    record = evaluator.write(evaluator.measure(uri, ["image-classification"]))
    assert record["samples"] == 6
    assert evaluator.stored(uri, ["image-classification"]) == record
    drawn = {path.name for path in Path(store.path(evaluation_uri(store, sha256, "split"))).with_suffix("").iterdir()}
    assert {"example_predictions.png", "class_report.png", "confusion_matrix.png"} <= drawn
    assert ("grad_cam.png" in drawn) is (name == "resnet8")
    assert ("mlp is not explained: the network has no layer" in capfd.readouterr().err) is (name == "mlp")
