"""Features made by hand, against small cases worked out by hand, and the classifiers on them.

Held once to scikit-image 0.26.0, which is no dependency, on eight pictures of 32x32: `local_binary_pattern` (8, 1,
"uniform") is equal at every pixel inside the border, `graycomatrix` and `graycoprops` to 1e-6; its `hog` (no sharing of
votes) has a cosine of .94 to .97 with ours.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import two_workers
import zoo

from headrace.base.errors import InvalidInput
from headrace_models.classification.features import (
    ColourHistogram,
    CoOccurrence,
    FeatureClassifier,
    Hog,
    LocalBinaryPatterns,
)


def test_a_ramp_to_the_right_votes_for_the_two_orientations_beside_zero() -> None:
    """The gradient points at angle 0, half-way between the centres of the first (10°) and the last bin (170°)."""
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    votes = Hog(cell=4).votes(ramp)[0, :, 4, 4]
    assert votes.tolist() == pytest.approx([1.0, 0, 0, 0, 0, 0, 0, 0, 1.0], abs=1e-5)


def test_a_ramp_at_a_bins_centre_votes_for_that_bin_alone() -> None:
    angle = math.radians(50)  # the third of nine bins of 20°
    down, right = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    picture = (math.cos(angle) * right + math.sin(angle) * down)[None, None]
    votes = Hog(cell=4).votes(picture)[0, :, 4, 4]
    assert votes.tolist() == pytest.approx([0, 0, 2, 0, 0, 0, 0, 0, 0], abs=1e-4)


@pytest.mark.parametrize("cell", [3, 4])
def test_a_vote_is_shared_between_the_nearest_cells(cell: int) -> None:
    """A pixel's shares of all cells sum to 1, and in the middle of a cell (or beside it) it is that cell's."""
    hog = Hog(cell, bins=1)
    places = torch.nn.functional.conv2d(
        torch.ones(1, 1, 5 * cell, 5 * cell), hog.window, stride=cell, padding=cell // 2
    )
    assert places.shape == (1, 1, 5, 5)
    assert float(places[0, 0, 2, 2]) == pytest.approx(cell**2)
    assert float(hog.window.max()) == pytest.approx(1.0 if cell % 2 else (1 - 0.5 / cell) ** 2)


def test_the_strongest_channel_gives_the_gradient() -> None:
    ramp = torch.arange(8.0).expand(8, 8)
    picture = torch.stack([0.5 * ramp, 3 * ramp.T])[None]
    votes = Hog(cell=4).votes(picture)[0, :, 4, 4]
    assert votes.tolist() == pytest.approx([0, 0, 0, 0, 6, 0, 0, 0, 0], abs=1e-4)


def test_a_block_is_normed_cut_off_and_normed_again() -> None:
    """Four cells, all of whose votes lie in one bin: 1/2 each, cut to .2, then 1/2 again."""
    down = torch.arange(8.0)[:, None].expand(1, 1, 8, 8)
    vector = Hog(cell=4, eps=1e-6)(down).view(9, 4)
    assert vector[4].tolist() == pytest.approx([0.5] * 4, abs=1e-4)
    assert float(vector[:4].abs().max()) == pytest.approx(0, abs=1e-5)


def test_hog_does_not_change_with_light() -> None:
    torch.manual_seed(0)
    picture = torch.randn(2, 3, 16, 16)
    hog = Hog(cell=4, eps=1e-6)
    torch.testing.assert_close(hog(picture), hog(3 * picture + 5), rtol=1e-3, atol=1e-4)


def test_patterns_of_a_spot_an_edge_and_a_flat_place() -> None:
    picture = torch.zeros(1, 1, 7, 7)
    picture[0, 0, 3, 3] = 1.0
    pattern = LocalBinaryPatterns(grid=1).patterns(picture)[0]
    assert pattern[3, 3] == 0  # all neighbours are darker
    assert pattern[0, 0] == 8  # flat: none is
    edge = torch.zeros(1, 1, 7, 7)
    edge[..., 3:] = 1.0
    assert LocalBinaryPatterns(grid=1).patterns(edge)[0, 3, 3] == 5  # above, below, and three to the right


def test_patterns_do_not_change_with_light_or_a_quarter_turn() -> None:
    torch.manual_seed(0)
    picture = torch.randn(2, 1, 9, 9)
    features = LocalBinaryPatterns(grid=1)
    assert torch.equal(features.patterns(picture), features.patterns(2 * picture + 1))
    inner = features.patterns(picture)[:, 1:-1, 1:-1]
    turned = features.patterns(picture.rot90(1, (2, 3)))[:, 1:-1, 1:-1]
    assert torch.equal(inner.rot90(1, (1, 2)), turned)


def test_a_colour_histogram_counts_joint_colours() -> None:
    picture = torch.full((1, 3, 2, 2), -9.0)
    picture[0, :, 0, 0] = torch.tensor([9.0, -9.0, 0.1])
    histogram = ColourHistogram(3)(picture)[0]
    assert histogram[0] == 0.75
    assert histogram[3 * 16 + 0 * 4 + 2] == 0.25
    assert ColourHistogram(1)(torch.zeros(1, 1, 4, 4)).shape == (1, 16)


def test_haralicks_example_gives_his_matrix() -> None:
    """Haralick et al. 1973, figure 3: the 4x4 picture of 4 levels and its matrix for 0°, of 24 ordered pairs."""
    level = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1], [0, 2, 2, 2], [2, 2, 3, 3]]])
    matrix = CoOccurrence(levels=4).matrix(level, 0, 1)[0] * 24
    assert matrix.round().tolist() == [[4, 2, 1, 0], [2, 4, 0, 0], [1, 0, 6, 1], [0, 0, 1, 2]]


def test_measures_of_a_matrix_follow_their_formulas() -> None:
    torch.manual_seed(0)
    p = torch.rand(3, 3, dtype=torch.float64)
    p = (p + p.T) / (p + p.T).sum()
    given = CoOccurrence(levels=3).measures(p[None])[0].tolist()
    cells = [(i, j, float(p[i, j])) for i in range(3) for j in range(3)]
    mean = sum(i * v for i, _, v in cells)
    variance = sum((i - mean) ** 2 * v for i, _, v in cells)
    assert given == pytest.approx(
        [
            sum(v * v for _, _, v in cells),
            sum((i - j) ** 2 * v for i, j, v in cells),
            sum((i - mean) * (j - mean) * v for i, j, v in cells) / variance,
            sum(v / (1 + (i - j) ** 2) for i, j, v in cells),
            -sum(v * math.log(v) for _, _, v in cells),
        ]
    )


def test_only_the_linear_layer_is_trained() -> None:
    network = FeatureClassifier(4, 3, (16, 16), features=("hog", "lbp", "colour-histogram", "glcm"))
    assert [name for name, _ in network.named_parameters()] == ["head.weight", "head.bias"]
    assert network.head.in_features == 9 * 36 + 10 * 16 + 64 + 10
    scores = network(torch.randn(3, 3, 16, 16))
    assert scores.shape == (3, 4)
    scores.sum().backward()
    assert torch.isfinite(network.head.weight.grad).all()  # type: ignore[arg-type]
    assert torch.isfinite(network.eval()(torch.zeros(1, 3, 16, 16))).all()


def test_a_cell_too_large_for_the_pictures_is_refused() -> None:
    with pytest.raises(InvalidInput, match="2x2 cells of 8 pixels does not fit into pictures of 12"):
        FeatureClassifier(2, 1, (12, 40), cell=8)


@pytest.mark.parametrize("name", ["features-svm", "features-softmax"])
def test_features_and_a_linear_layer_read_digits(digits: Any, name: str) -> None:
    """Seed 0, one thread; its values stand in docs/models/image-classification.md. Four seeds: .967 to .985."""
    assert zoo.train(zoo.example(name), *digits).metrics["accuracy"] >= 0.97


ON_TWO_WORKERS = """
from headrace_models.classification.features import FeatureClassifier
torch.manual_seed(0)
model = FeatureClassifier(3, 1, (8, 8), ["hog", "lbp", "colour-histogram", "glcm"], cell=2)
settings |= {
    "losses": [{"name": "hinge", "args": {}, "task": "image-classification", "weight": 1.0}],
    "optimizer": {"name": "sgd", "args": {"lr": 0.1}},
}
group, schedule = Group(rank, 2, torch.device("cpu")), share_out(8, [16, 16])
trainer = make_trainer(settings, model, make_objective(settings, task, group.device), group, schedule, own_code=False)
generator = torch.Generator().manual_seed(rank)
pictures = torch.randint(0, 255, (4, 4, 1, 8, 8), dtype=torch.uint8, generator=generator)
batches = [{"image": picture, "label": torch.arange(4) % 3} for picture in pictures]
before = model.head.weight.detach().clone()
trainer.epoch(1, batches, schedule, Teller(speaks=False), 1)
assert not torch.equal(before, model.head.weight)
own = torch.cat([value.detach().double().flatten() for value in model.state_dict().values()])
both = [torch.zeros_like(own) for _ in range(2)]
dist.all_gather(both, own)
assert torch.equal(*both)
dist.destroy_process_group()
"""


def test_features_train_on_two_workers_which_end_with_the_same_state(tmp_path: Path) -> None:
    two_workers.run(ON_TWO_WORKERS, tmp_path)
