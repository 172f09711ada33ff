"""Classifiers on features made by hand: what vision did before networks, and still the quickest honest baseline.

A fixed layer turns each picture into a vector; what is learned is one linear layer. The loss decides what it is:
`hinge` makes it a linear support vector machine (weight decay widens its margin), `cross-entropy` softmax regression.

All features are computed on the task's normalised pictures: gradients and local binary patterns do not care, and values
are put into bins over two standard deviations on both sides of the mean, the outer bins being open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from headrace.base.errors import InvalidInput

SPREAD = 2.0  # standard deviations on both sides of the mean that bins divide evenly
SAME = 1e-4  # brighter by less than this counts as equal: interpolation rounds, a grey level is 0.008 or more


def grey(x: Tensor) -> Tensor:
    """The mean of the channels, `[batch, height, width]`."""
    return x.mean(dim=1)


def quantised(values: Tensor, levels: int) -> Tensor:
    """VALUES as whole numbers from 0 to LEVELS - 1."""
    return ((values + SPREAD) * (levels / (2 * SPREAD))).floor().clamp(0, levels - 1).long()


def counted(places: Tensor, bins: int) -> Tensor:
    """The histogram `[batch, bins]` of PLACES `[batch, ...]`, each row's sum being 1."""
    flat = places.flatten(1)
    empty = torch.zeros(len(flat), bins, device=flat.device)
    return empty.scatter_add_(1, flat, torch.ones_like(flat, dtype=empty.dtype)) / flat.shape[1]


class Hog(nn.Module):
    """Histograms of oriented gradients (Dalal & Triggs 2005, section 6).

    `[batch, channels, height, width]` to `[batch, blocks * 4 * bins]`. Centred differences, the channel with the
    largest one at each pixel, 9 orientations of half a turn, votes of the gradient's size shared linearly between the
    nearest orientations and cells, blocks of 2x2 cells that overlap by one cell, L2-Hys with a ceiling of 0.2. Differs
    from the paper: no Gaussian window lies over a block.
    """

    def __init__(self, cell: int, bins: int = 9, ceiling: float = 0.2, eps: float = 0.01) -> None:
        super().__init__()
        self.cell, self.bins, self.ceiling, self.eps = cell, bins, ceiling, eps
        reach = torch.arange(2 * cell - cell % 2) - (2 * cell - cell % 2 - 1) / 2  # pixels from the cell's centre
        share = 1 - reach.abs() / cell
        self.window: Tensor
        self.register_buffer("window", torch.outer(share, share).repeat(bins, 1, 1, 1), persistent=False)

    def votes(self, x: Tensor) -> Tensor:
        """What each pixel gives to each orientation, `[batch, bins, height, width]`."""
        padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        right = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
        down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
        largest = (right.square() + down.square()).argmax(dim=1, keepdim=True)
        right, down = right.gather(1, largest), down.gather(1, largest)
        place = torch.atan2(down, right) * (self.bins / math.pi) - 0.5
        centres = torch.arange(self.bins, device=x.device).view(1, -1, 1, 1)
        away = (place - centres).remainder(self.bins)
        away = torch.minimum(away, self.bins - away)
        return (1.0 - away).clamp(min=0) * (right.square() + down.square()).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        votes = self.votes(x)
        cells = functional.conv2d(votes, self.window, stride=self.cell, padding=self.cell // 2, groups=self.bins)
        blocks = functional.unfold(cells, 2)  # [batch, bins * 4, blocks]
        for ceiling in (self.ceiling, math.inf):
            blocks = blocks / (blocks.square().sum(dim=1, keepdim=True) + self.eps**2).sqrt()
            blocks = blocks.clamp(max=ceiling)
        return blocks.flatten(1)


class LocalBinaryPatterns(nn.Module):
    """Rotation-invariant uniform patterns of 8 neighbours at radius 1 (Ojala et al. 2002, eq. 9).

    `[batch, channels, height, width]` to `[batch, 10 * grid * grid]`: the share of each of the 10 patterns in each of
    GRID x GRID regions (the paper has one region, the whole).
    """

    NEIGHBOURS = 8

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def patterns(self, x: Tensor) -> Tensor:
        """The pattern of each pixel, 0 to 9, `[batch, height, width]`."""
        centre = grey(x)
        padded = functional.pad(centre[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
        bits = []
        for neighbour in range(self.NEIGHBOURS):
            turn = 2 * math.pi * neighbour / self.NEIGHBOURS
            bits.append(_shifted(padded, -math.sin(turn), math.cos(turn)) >= centre - SAME)
        ring = torch.stack(bits).long()
        changes = (ring != ring.roll(1, dims=0)).sum(dim=0)
        return torch.where(changes <= 2, ring.sum(dim=0), self.NEIGHBOURS + 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        shown = functional.one_hot(self.patterns(x), self.NEIGHBOURS + 2).permute(0, 3, 1, 2).float()
        return functional.adaptive_avg_pool2d(shown, self.grid).flatten(1)


def _shifted(padded: Tensor, down: float, right: float) -> Tensor:
    """The values DOWN and RIGHT of each pixel (-1 to 1), between pixels by bilinear interpolation."""
    height, width = padded.shape[-2] - 2, padded.shape[-1] - 2
    total = torch.zeros_like(padded[:, 1:-1, 1:-1])
    for y in (-1, 0, 1):
        for x in (-1, 0, 1):
            share = max(0.0, 1 - abs(down - y)) * max(0.0, 1 - abs(right - x))
            if share > 0:
                total = total + share * padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]
    return total


class ColourHistogram(nn.Module):
    """The joint histogram of a picture's colours (Swain & Ballard 1991, section 2).

    `[batch, channels, height, width]` to `[batch, bins ** channels]`: 4 bins a channel for colour, 16 for grey.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bins = 16 if channels == 1 else 4
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        levels = quantised(x, self.bins)
        place = levels[:, 0]
        for channel in range(1, self.channels):
            place = place * self.bins + levels[:, channel]
        return counted(place, self.bins**self.channels)


class CoOccurrence(nn.Module):
    """Texture features of grey-level co-occurrence matrices (Haralick et al. 1973, appendix 1).

    `[batch, channels, height, width]` to `[batch, 10]`: angular second moment, contrast, correlation, inverse
    difference moment and entropy (f1, f2, f3, f5, f9) of the symmetric matrices of 8 levels at distance 1, each as its
    mean and its range over the four directions.
    """

    DIRECTIONS = ((0, 1), (-1, 1), (1, 0), (1, 1))  # down, right

    def __init__(self, levels: int = 8) -> None:
        super().__init__()
        self.levels = levels

    def matrix(self, level: Tensor, down: int, right: int) -> Tensor:
        """The matrix `[batch, levels, levels]` of LEVEL `[batch, height, width]`, symmetric, with a sum of 1."""
        height, width = level.shape[-2:]
        here = level[:, max(0, -down) : height - max(0, down), : width - right]
        there = level[:, max(0, down) : height - max(0, -down), right:]
        pairs = counted(here * self.levels + there, self.levels**2).view(-1, self.levels, self.levels)
        return (pairs + pairs.transpose(1, 2)) / 2

    def measures(self, matrix: Tensor) -> Tensor:
        """The five features `[batch, 5]` of MATRIX."""
        place = torch.arange(self.levels, device=matrix.device, dtype=matrix.dtype)
        row, column = place[:, None], place[None, :]
        mean = (matrix * row).sum(dim=(1, 2))
        variance = (matrix * row.square()).sum(dim=(1, 2)) - mean.square()
        shared = (matrix * row * column).sum(dim=(1, 2)) - mean.square()
        apart = (row - column).square()
        return torch.stack(
            [
                matrix.square().sum(dim=(1, 2)),
                (matrix * apart).sum(dim=(1, 2)),
                torch.where(
                    variance > 1e-6, shared / variance.clamp(min=1e-6), 1.0
                ),  # a flat picture agrees with itself
                (matrix / (1 + apart)).sum(dim=(1, 2)),
                -torch.special.xlogy(matrix, matrix).sum(dim=(1, 2)),
            ],
            dim=1,
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        level = quantised(grey(x), self.levels)
        each = torch.stack([self.measures(self.matrix(level, *way)) for way in self.DIRECTIONS])
        return torch.cat([each.mean(dim=0), each.amax(dim=0) - each.amin(dim=0)], dim=1)


class LowLevelFeatures(nn.Module):
    """Several features of a picture, joined: `[batch, in_channels, height, width]` to `[batch, size]`.

    Args:
        features: any of hog, lbp, colour-histogram, glcm.
        cell: pixels of a HOG cell's side; None: a quarter of the shorter side, from 2 to 8.

    Raises:
        InvalidInput: a block of HOG is larger than the pictures.
    """

    def __init__(self, in_channels: int, image_size: Sequence[int], features: Sequence[str], cell: int | None) -> None:
        super().__init__()
        side = min(image_size)
        cell = min(8, max(2, side // 4)) if cell is None else cell
        if "hog" in features and side < 2 * cell:
            raise InvalidInput(
                f"a HOG block of 2x2 cells of {cell} pixels does not fit into pictures of {side} pixels",
                action=f"set model.args.cell to {max(1, side // 2)} or less",
            )
        make: dict[str, Callable[[], nn.Module]] = {
            "hog": lambda: Hog(cell),
            "lbp": lambda: LocalBinaryPatterns(min(4, max(1, side // 4))),
            "colour-histogram": lambda: ColourHistogram(in_channels),
            "glcm": CoOccurrence,
        }
        self.parts = nn.ModuleList(make[name]() for name in features)
        self.size = self(torch.zeros(1, in_channels, *image_size)).shape[1]

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """See the class; in single precision also where autocast is on, and without gradients."""
        with torch.autocast(x.device.type, enabled=False):
            return torch.cat([part(x.float()) for part in self.parts], dim=1)


class FeatureClassifier(nn.Module):
    """Low-level features, scaled to mean 0 and variance 1 as they come in training, and one linear layer.

    Input `[batch, in_channels, height, width]`, output `[batch, num_classes]`. Nothing but the linear layer is trained.
    To expect: digits with HOG accuracy .97 and more, in seconds (features-svm.yaml and features-softmax.yaml of
    examples/zoo).

    Args:
        features, cell: as in `LowLevelFeatures`.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: Sequence[int],
        features: Sequence[str] = ("hog",),
        cell: int | None = None,
    ) -> None:
        super().__init__()
        self.features = LowLevelFeatures(in_channels, image_size, features, cell)
        self.scale = nn.BatchNorm1d(self.features.size, eps=1e-4, affine=False)
        self.head = nn.Linear(self.features.size, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, height, width]` to `[batch, num_classes]`."""
        scores: Tensor = self.head(self.scale(self.features(x)))
        return scores
