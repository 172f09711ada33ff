"""The detectors: published sizes, what they compute beside torchvision, and what their losses take in and leave out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
import zoo
from safetensors.torch import load, save
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from headrace.base.errors import InvalidInput
from headrace_models import catalog
from headrace_models.detection.boxes import overlap
from headrace_models.detection.loss import DetectionLoss
from headrace_models.detection.outputs import DetectorOutput, Targets, Threshold, padded, select
from headrace_models.detection.ssd import match, ssd_losses
from headrace_models.detection.yolo import Places, assign, inside
from headrace_models.detection.yolov1 import COORDINATES, NO_OBJECT
from headrace_models.package.write import untied_state

SIZES = {"yolov1": (20, 271_703_550), "ssd300-vgg16": (20, 26_285_486)}
PIXELS = {"yolov1": (448, 448), "ssd300-vgg16": (300, 300)}
SMALL: dict[str, dict[str, Any]] = {
    "yolo": {"width": 8},
    "yolov1": {"width": 0.0625, "grid": 4, "batch_norm": True, "dropout": 0.0},
    "ssd": {"width": 8},
}
ANCHORS = tuple((side, side) for side in (10, 14, 18, 22, 26, 30, 36, 42, 50))
FACTS = {"anchor_sizes": ANCHORS, "image_size": (64, 96)}


def build(name: str, classes: int = 3, channels: int = 3, **args: Any) -> nn.Module:
    target = catalog.get("model", name).load()
    facts = {key: value for key, value in FACTS.items() if key in target.__init__.__code__.co_varnames}
    network: nn.Module = target(classes, in_channels=channels, **{**facts, **args})
    return network


def small(name: str, **args: Any) -> nn.Module:
    torch.manual_seed(0)
    return build(name, **{**SMALL[name], **args})


def targets(*pictures: list[tuple[int, list[float]]], ignore: bool = False) -> Targets:
    """Each picture's (label, box) pairs."""
    most = max(1, *map(len, pictures))
    boxes, labels = torch.zeros(len(pictures), most, 4), torch.full((len(pictures), most), -1)
    for row, objects in enumerate(pictures):
        for place, (label, box) in enumerate(objects):
            boxes[row, place], labels[row, place] = torch.tensor(box), label
    return Targets(boxes, labels, (labels >= 0) & ignore)


TWO = [(0, [10.0, 12.0, 36.0, 40.0]), (2, [50.0, 20.0, 90.0, 60.0])]
ONE = [(1, [30.0, 8.0, 52.0, 30.0])]


def total(losses: dict[str, Tensor] | None) -> Tensor:
    assert losses
    return torch.stack(list(losses.values())).sum()


@pytest.mark.parametrize("name", SIZES)
def test_a_full_size_detector_has_its_published_number_of_parameters(name: str) -> None:
    classes, parameters = SIZES[name]
    with torch.device("meta"):
        network = build(name, classes, image_size=PIXELS[name])
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert catalog.models()[name].parameters == parameters


@pytest.mark.parametrize("name", SIZES)
def test_a_full_size_detector_goes_forward_and_backward_and_through_safetensors(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, SIZES[name][0], image_size=PIXELS[name]).train()
    total(network(torch.randn(1, 3, *PIXELS[name]), targets([(3, [30.0, 50.0, 200.0, 180.0])])).losses).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    state, tied = untied_state(network)
    assert tied == {}
    again = load(save(state))
    assert again.keys() == network.state_dict().keys()
    assert all(torch.equal(value, again[key]) for key, value in network.state_dict().items())


def test_yolov1_gives_seven_by_seven_by_thirty_values_after_twenty_four_convolutions() -> None:
    with torch.device("meta"):
        network = build("yolov1", 20, image_size=(448, 448))
        assert network.features(torch.zeros(1, 3, 448, 448)).shape == (1, 1024, 7, 7)
        assert network.classifier[-1].out_features == 7 * 7 * 30
    assert sum(isinstance(layer, nn.Conv2d) for layer in network.modules()) == 24


def test_fast_yolo_has_nine_convolutions_on_the_same_grid() -> None:
    with torch.device("meta"):
        network = build("yolov1", 20, image_size=(448, 448), convolutions=9)
        assert network.features(torch.zeros(1, 3, 448, 448)).shape == (1, 1024, 7, 7)
        assert network.classifier[-1].out_features == 7 * 7 * 30
    assert sum(isinstance(layer, nn.Conv2d) for layer in network.modules()) == 9


@pytest.mark.parametrize(("head", "changed"), [("cell", [5]), ("whole", list(range(16)))])
def test_a_cell_of_yolov1_sees_itself_or_the_whole_picture(head: str, changed: list[int]) -> None:
    network = small("yolov1", head=head).eval()
    network.features, network.pool = nn.Identity(), nn.Identity()
    channels = network.classifier[0].in_features // (1 if head == "cell" else 16)
    maps, size = torch.randn(1, channels, 4, 4), (64, 96)
    with torch.no_grad():
        before = network.cells(maps)
        maps[:, :, 1, 1] += 1
        apart = (network.cells(maps) - before).abs().amax(dim=2)[0]
    assert before.shape == (1, 16, 3 + 2 * 5)
    assert apart.nonzero().flatten().tolist() == changed
    assert network.boxes_of(before[..., 3:].unflatten(2, (2, 5)), size).shape == (1, 16, 2, 4)


def test_a_narrow_ssd300_keeps_the_default_boxes_and_the_names() -> None:
    full, narrow = (build("ssd300-vgg16", 20, image_size=(300, 300), width=width) for width in (1.0, 0.0625))
    assert full.state_dict().keys() == narrow.state_dict().keys()
    image = torch.zeros(1, 3, 300, 300)
    maps = narrow.maps(image)
    assert [x.shape[2] for x in maps] == [38, 19, 10, 5, 3, 1]
    assert len(narrow.defaults(maps, (300, 300))) == 8732
    trained = build("ssd300-vgg16", image_size=(300, 300), width=0.0625, batch_norm=True).train()
    total(trained(torch.randn(2, 3, 300, 300), targets(TWO, ONE)).losses).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained.parameters())


@pytest.fixture(scope="module")
def published() -> tuple[nn.Module, nn.Module, Tensor]:
    """torchvision's SSD300 and ours with the same weights, and a picture."""
    torch.manual_seed(0)
    theirs = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=21).eval()
    own = build("ssd300-vgg16", 20, image_size=(300, 300)).eval()
    own.load_state_dict(theirs.state_dict())
    return theirs, own, torch.randn(1, 3, 300, 300)


def test_ssd300_computes_what_torchvisions_computes_with_the_same_weights(published: Any) -> None:
    theirs, own, image = published
    with torch.inference_mode():
        features = list(theirs.backbone(image).values())
        wanted = theirs.head(features)
        anchors = theirs.anchor_generator(ImageList(image, [(300, 300)]), features)[0]
        maps = own.maps(image)
        torch.testing.assert_close(own.head.classification_head(maps), wanted["cls_logits"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own.head.regression_head(maps), wanted["bbox_regression"], rtol=1e-4, atol=1e-5)
    defaults = own.defaults(maps, (300, 300))
    assert defaults.shape == (8732, 4)
    torch.testing.assert_close(defaults, anchors, rtol=0, atol=1e-3)


def test_the_losses_of_ssd_are_torchvisions(published: Any) -> None:
    theirs, own, image = published
    true = targets([(4, [20.0, 30.0, 90.0, 160.0]), (11, [100.0, 10.0, 250.0, 280.0]), (4, [60.0, 60.0, 84.0, 80.0])])
    with torch.inference_mode():
        maps = own.maps(image)
        scores, by = own.head.classification_head(maps), own.head.regression_head(maps)
        defaults = own.defaults(maps, (300, 300))
        mine = ssd_losses(scores, by, defaults, true)
        matched = [theirs.proposal_matcher(torchvision.ops.box_iou(true.boxes[0], defaults))]
        wanted = theirs.compute_loss(
            [{"boxes": true.boxes[0], "labels": true.labels[0] + 1}],
            {"cls_logits": scores, "bbox_regression": by},
            [defaults],
            matched,
        )
    assert int((matched[0] >= 0).sum()) == int(match(defaults, true).positive.sum()) > 10
    assert mine["classification"].item() == pytest.approx(wanted["classification"].item(), rel=1e-4)
    assert mine["box"].item() == pytest.approx(wanted["bbox_regression"].item(), rel=1e-4)


def test_ssd300_refuses_another_size_and_says_what_to_do() -> None:
    with pytest.raises(InvalidInput, match="300x300") as raised:
        build("ssd300-vgg16", image_size=(192, 256))
    assert "image_size: 300" in raised.value.action


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("pixels", [(64, 96), (75, 50)], ids=str)
def test_a_detector_gives_losses_in_training_and_detections_in_evaluation(name: str, pixels: tuple[int, int]) -> None:
    network = (
        small(name, channels=1, image_size=pixels, score_threshold=0.0)
        if name == "yolov1"
        else small(name, channels=1, score_threshold=0.0)
    )
    image, true = torch.randn(2, 1, *pixels), targets([(0, [5.0, 6.0, 30.0, 40.0])], [])
    trained = network.train()(image, true)
    assert isinstance(trained, DetectorOutput)
    assert trained.detections is None
    total(trained.losses).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    judged = network.eval()(image, true)
    assert judged.losses is not None
    assert judged.losses.keys() == trained.losses.keys()
    served = network(image)
    assert served.losses is None
    for boxes, scores, labels in (served.detections, judged.detections):
        assert boxes.shape == (2, 100, 4)
        assert (scores[:, :-1] >= scores[:, 1:]).all()
        found = labels >= 0
        assert found.any()
        assert (scores[~found] == 0).all()
        assert (boxes[found] >= 0).all()
        assert (boxes[found].amax(dim=0) <= torch.tensor([pixels[1], pixels[0]] * 2)).all()
        assert (boxes[found][:, 2:] > boxes[found][:, :2]).all()


@pytest.mark.parametrize("name", SMALL)
def test_a_detector_learns_in_sixteen_bits_with_losses_and_boxes_in_thirty_two(name: str) -> None:
    network = small(name, score_threshold=0.0)
    image, true = torch.randn(2, 3, 64, 96), targets(TWO, ONE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained = network.train()(image, true)
        judged = network.eval()(image, true)
    assert all(value.dtype == torch.float32 for value in (trained.losses or {}).values())
    total(trained.losses).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    assert judged.detections.boxes.dtype == judged.detections.scores.dtype == torch.float32
    exact = network(image, true)
    for part, value in exact.losses.items():
        assert judged.losses[part].item() == pytest.approx(value.item(), rel=0.1, abs=0.05)


@pytest.mark.parametrize("name", SMALL)
def test_a_batchs_losses_are_the_means_of_its_pictures(name: str) -> None:
    network = small(name).eval()  # batch norm then sees each picture alone
    image = torch.randn(3, 3, 64, 96)
    together = network(image, targets(TWO, ONE, [])).losses
    alone = [network(image[row : row + 1], targets(each)).losses for row, each in enumerate((TWO, ONE, []))]
    for part, value in together.items():
        assert value.item() == pytest.approx(sum(losses[part].item() for losses in alone) / 3, rel=1e-4)


def finds_what_it_is_shown(network: nn.Module, ask: Callable[..., Any], steps: int = 80) -> None:
    """Train NETWORK, called by ASK, on two pictures; it must find their objects and be sure of nothing else.

    STEPS are as many as bring every seed's overlap to .76 or more (four were measured).
    """
    network.train()
    image, true = torch.randn(2, 3, 64, 96), targets(TWO, ONE)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        total(ask(network, image, true).losses).backward()
        optimizer.step()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of these two pictures
            module.reset_running_stats()
    with torch.no_grad():
        ask(network, image, true)
        found = ask(network.eval(), image).detections
    assert found is not None
    for row, objects in enumerate((TWO, ONE)):
        ranked = list(zip(found.labels[row].tolist(), found.boxes[row], strict=True))
        best = dict(reversed(ranked))  # the first of each class stays
        for label, box in objects:
            assert overlap(best[label][None], torch.tensor([box])).item() > 0.6
        confident = found.scores[row] > 0.5
        assert set(found.labels[row][confident].tolist()) <= {label for label, _ in objects}


@pytest.mark.parametrize("name", SMALL)
def test_a_detector_finds_what_it_was_shown(name: str) -> None:
    network = small(name, **({"width": 0.125} if name == "yolov1" else {}))
    finds_what_it_is_shown(network, lambda network, *given: network(*given), steps=120 if name == "yolov1" else 80)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_ignored_is_neither_learned_nor_learned_as_background(name: str) -> None:
    network = small(name).eval()
    image = torch.randn(1, 3, 64, 96)
    nothing, ignored, wanted = (
        network(image, true).losses for true in (targets([]), targets(TWO, ignore=True), targets(TWO))
    )
    assert ignored["box"] == nothing["box"] == 0
    assert wanted["box"] > 0
    if name == "ssd":  # only the hardest negatives count, so one that falls out may be replaced by its equal
        assert ignored["classification"] <= nothing["classification"]
    else:
        assert total(ignored) < total(nothing)


def test_yolo_learns_an_object_at_places_inside_it_whose_box_and_score_are_best() -> None:
    centres = torch.tensor([[x + 4.0, y + 4.0] for y in range(0, 64, 8) for x in range(0, 64, 8)])
    places = Places(centres, torch.full((64,), 8.0))
    true = targets([(1, [0.0, 0.0, 40.0, 40.0]), (0, [20.0, 20.0, 60.0, 60.0]), (1, [50.0, 2.0, 53.0, 5.0])])
    boxes = true.boxes[:, :1].expand(1, 64, 4).clone()  # all places say the first object's box ...
    boxes[:, 40:] = true.boxes[:, 1]  # ... or the second one's
    scores = torch.full((1, 64, 2), 0.1)
    scores[0, 10, 1] = 0.9
    given = assign(scores, boxes, places, true)
    within = inside(places, true)
    assert given.positive.any()
    assert within.gather(1, given.object[:, None])[0, 0][given.positive[0]].all()
    assert given.quality[0, 10] == given.quality[0].max() == 1.0  # the best place is as good as its box
    assert given.object[0, 10] == 0
    assert set(given.object[0][given.positive[0]].tolist()) == {0, 1, 2}  # the smallest object has a place too
    assert (given.quality[~given.positive] == 0).all()
    for number in range(3):
        assert (given.positive & (given.object == number)).sum() <= 10


def test_ssd_gives_each_object_a_default_box_however_little_it_fits() -> None:
    defaults = torch.tensor([[0.0, 0.0, 20.0, 20.0], [20.0, 0.0, 40.0, 20.0], [0.0, 20.0, 20.0, 40.0]])
    true = targets([(0, [1.0, 1.0, 19.0, 20.0]), (1, [22.0, 2.0, 26.0, 6.0])])
    matched = match(defaults, true)
    assert matched.positive.tolist() == [[True, True, False]]
    assert matched.object[0, :2].tolist() == [0, 1]
    same = targets([(0, [1.0, 1.0, 19.0, 20.0]), (1, [2.0, 2.0, 9.0, 9.0])])  # both are nearest to the first one
    assert match(defaults, same).object[0, 0] == 1
    assert match(defaults, targets([])).positive.sum() == 0
    other = Targets(true.boxes, true.labels, torch.tensor([[True, False]]))
    assert match(defaults, other).ignored.tolist() == [[True, False, False]]


@pytest.mark.parametrize(
    ("anchors", "used"),
    [(((9, 9), (300, 300)), [0, 3]), (((90, 80),), [2]), (((16, 16), (35, 34), (47, 48)), [0, 1, 2])],
)
def test_ssd_puts_boxes_on_the_map_made_for_their_size_and_trains_all_it_has(anchors: Any, used: list[int]) -> None:
    network = small("ssd", anchor_sizes=anchors)
    assert network.used == used
    sides = [96 // x.shape[3] for x in network.maps(torch.zeros(1, 3, 64, 96))]
    assert sides == [4 * 2**level for level in used]
    total(network.train()(torch.randn(2, 3, 64, 96), targets(ONE, [])).losses).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())  # DDP waits for each


def test_the_loss_of_yolov1_is_equation_three() -> None:
    network = small("yolov1", grid=3, boxes=2)
    network.grid = 3
    torch.manual_seed(1)
    scores, predicted = torch.rand(1, 9, 3), torch.rand(1, 9, 2, 5)
    side = 60
    true = targets([(2, [4.0, 6.0, 30.0, 16.0]), (1, [41.0, 44.0, 59.0, 58.0])])
    wanted = {"box": 0.0, "confidence": 0.0, "classification": 0.0}
    cells = {0: (true.boxes[0, 0], 2), 8: (true.boxes[0, 1], 1)}
    boxes = network.boxes_of(predicted, (side, side))
    for cell in range(9):
        responsible, ratio = -1, 0.0
        if cell in cells:
            box, label = cells[cell]
            shared = overlap(boxes[0, cell], box[None])[:, 0]
            responsible, ratio = int(shared.argmax()), float(shared.max())
            x, y = (box[0] + box[2]) / 2 / side * 3, (box[1] + box[3]) / 2 / side * 3
            px, py, pw, ph, _ = predicted[0, cell, responsible].tolist()
            wanted["box"] += COORDINATES * float((px - x % 1) ** 2 + (py - y % 1) ** 2)
            for root, length in ((pw, box[2] - box[0]), (ph, box[3] - box[1])):
                wanted["box"] += COORDINATES * (root - math.sqrt(float(length) / side)) ** 2
            wanted["classification"] += sum((float(scores[0, cell, k]) - (k == label)) ** 2 for k in range(3))
        for number in range(2):
            confidence = float(predicted[0, cell, number, 4])
            if number == responsible:
                wanted["confidence"] += (confidence - ratio) ** 2
            else:
                wanted["confidence"] += NO_OBJECT * confidence**2
    given = network.losses(scores, predicted, true, (side, side))
    assert {name: value.item() for name, value in given.items()} == pytest.approx(wanted, rel=1e-4)


def test_detections_are_suppressed_class_by_class_and_come_best_first() -> None:
    box = torch.tensor([[10.0, 10, 30, 30], [11, 10, 31, 30], [50, 50, 90, 120], [5, 5, 5, 9]])
    scores = torch.tensor([[0.6, 0.0], [0.9, 0.4], [0.0, 0.7], [0.8, 0.8]])
    found = select(box[None], scores[None], Threshold(0.3, 0.5, detections=5), (100, 80))
    assert found.labels.tolist() == [[0, 1, 1, -1, -1]]
    assert found.scores[0, :3].tolist() == pytest.approx([0.9, 0.7, 0.4])
    assert found.boxes[0, 1].tolist() == [50, 50, 80, 100]  # clipped to 80 across and 100 down
    apart = torch.stack([box, box + 1], dim=1)  # a box for each class of a candidate
    assert select(apart[None], scores[None], Threshold(0.3), (100, 80)).boxes[0, 2].tolist() == [12, 11, 32, 31]
    assert select(box[None], scores[None], Threshold(0.95), (100, 80)).labels.max() == -1


def test_padding_fills_up_to_the_same_number_of_rows() -> None:
    some = (torch.ones(2, 4), torch.tensor([0.9, 0.8]), torch.tensor([1, 0]))
    none = (torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    found = padded([some, none], 3)
    assert found.labels.tolist() == [[1, 0, -1], [-1, -1, -1]]
    assert found.boxes.shape == (2, 3, 4)


def test_the_loss_weighs_a_detectors_losses_by_name_and_knows_no_others() -> None:
    losses = {"box": torch.tensor(2.0), "classification": torch.tensor(3.0)}
    assert DetectionLoss()(losses) == 5
    assert DetectionLoss({"box": 0.5})(losses) == 4
    with pytest.raises(InvalidInput, match="boxes") as raised:
        DetectionLoss({"boxes": 1.0})(losses)
    assert "did you mean box?" in raised.value.action


# small sizes on shapes, as examples/zoo says, which train for two workers' batch norm and twice as long


@pytest.mark.parametrize(
    ("name", "epochs", "least"),
    [
        ("yolo", 14, 0.8),  # measured, four seeds: .78 to .91
        ("ssd", 20, 0.8),  # .81 to .96
    ],
)
def test_a_small_detector_finds_shapes(shapes: Any, name: str, epochs: int, least: float) -> None:
    """Seed 0, one thread, batches of 8; weights that learned nothing have .00 to .09."""
    spec = zoo.example(name)
    done = zoo.train({**spec, "train": {**spec["train"], "epochs": epochs, "batch_size": 8}}, *shapes)
    assert done.metrics["map50"] >= least
    assert 0 < done.metrics["map"] < done.metrics["map50"]
    assert done.losses[-1] < done.losses[0] / 2
