"""Pictures of how a segmentation did."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from headrace_models.tasks.base import Example
from headrace_models.tasks.plots import shortened
from headrace_models.tasks.segmentation_metrics import SegmentationMetrics

SHOWN = 6  # pictures
BARS = 40  # classes
UNKNOWN = 255


def _colours(count: int) -> np.ndarray:
    """uint8 [count, 3]: the background black, each class another colour."""
    table = [(0.0, 0.0, 0.0), *(matplotlib.colormaps["tab20"](n % 20)[:3] for n in range(count - 1))]
    return (255 * np.array(table)).astype(np.uint8)


def iou_bars(metrics: SegmentationMetrics, classes: Sequence[str]) -> Figure:
    """The IoU of each class, those with the most pixels first."""
    values, pixels = metrics.ious(), metrics.confusion.sum(axis=1)
    shown = [n for n in np.argsort(-pixels, kind="stable").tolist() if not np.isnan(values[n])][:BARS]
    figure = Figure(figsize=(6.4, 1.2 + 0.26 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.barh([shortened(classes[n]) for n in shown], [values[n] for n in shown], color="#6366f1")
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="IoU", title=f"IoU by class, mean {np.nanmean(values):.3f}")
    axes.grid(axis="x", alpha=0.3)
    return figure


def masks(examples: Sequence[Example], said: np.ndarray, classes: Sequence[str]) -> Figure:
    """Pictures, their masks (grey where a pixel does not count) and those SAID, class numbers [n, height, width]."""
    colours = _colours(len(classes))
    count = min(SHOWN, len(examples))
    figure = Figure(figsize=(2.1 * count, 6.4), layout="constrained")
    grid = figure.subplots(3, count, squeeze=False)
    for place in range(count):
        pixels, true = examples[place]["image"], examples[place].get("mask")
        grid[0, place].imshow(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0), cmap="gray")
        if true is not None:
            shown = colours[np.where(true == UNKNOWN, 0, true)]
            shown[true == UNKNOWN] = 128
            grid[1, place].imshow(shown)
        grid[2, place].imshow(colours[said[place]])
    for axes, name in zip(grid[:, 0], ("picture", "mask", "model"), strict=True):
        axes.set_ylabel(name)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    there = sorted({int(n) for n in np.unique(said[:count])} - {0})[:12]
    if there:
        patches = [Patch(color=colours[n] / 255, label=shortened(classes[n])) for n in there]
        figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=7)
    return figure
