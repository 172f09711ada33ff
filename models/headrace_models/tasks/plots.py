"""Pictures of an evaluation. Figures are made without pyplot: it keeps state for the whole process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from headrace_models.tasks.judging import ClassificationMetrics, RegressionMetrics

NAMED = 30  # classes up to which each is named on an axis
CURVES = 10  # classes up to which each has a curve of its own


def confusion_matrix(metrics: ClassificationMetrics, classes: Sequence[str]) -> Figure:
    """True classes by predicted ones, coloured by the share of the true class, with the counts written in."""
    counts = metrics.confusion
    few = len(classes) <= NAMED
    side = min(12.0, 3.5 + 0.45 * len(classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=f"Confusion matrix, {int(counts.sum()):,} samples")
    if few:
        places = np.arange(len(classes))
        names = [shortened(name) for name in classes]
        axes.set_xticks(places, names, rotation=45 if max(map(len, names)) > 3 else 0, ha="center")
        axes.set_yticks(places, names)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
    return figure


def precision_recall(metrics: ClassificationMetrics, classes: Sequence[str]) -> Figure:
    """Precision over recall as the threshold on a class's probability falls: all classes together, and each if few."""
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    if len(classes) <= CURVES:
        for place, name in enumerate(classes):
            axes.plot(*metrics.curve(slice(place, place + 1)), linewidth=1, alpha=0.7, label=shortened(name))
    axes.plot(*metrics.curve(slice(None)), color="black", linewidth=2, label="all classes")
    axes.set(xlabel="recall", ylabel="precision", title="Precision and recall", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def predicted_pictures(pictures: Sequence[np.ndarray], true: Sequence[str | None], said: Sequence[str]) -> Figure:
    """Pictures uint8 `[channels, height, width]` under what the model said, red and with the truth where it erred."""
    columns = min(8, len(pictures))
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(1.6 * columns, 1.9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        axes.axis("off")
        if place >= len(pictures):
            continue
        pixels = pictures[place]
        axes.imshow(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255)
        right = true[place] in (None, said[place])
        title = shortened(said[place]) if right else f"{shortened(said[place])}\nnot {shortened(str(true[place]))}"
        axes.set_title(title, fontsize=8, color="black" if right else "red")
    return figure


def predicted_by_true(metrics: RegressionMetrics, name: str) -> Figure:
    """Predictions over true values, with the line on which they would be right."""
    figure = Figure(figsize=(5.4, 5.2), layout="constrained")
    axes = figure.subplots()
    points = np.array(metrics.points).reshape(-1, 2)
    axes.scatter(points[:, 0], points[:, 1], s=8, alpha=0.5)
    if len(points):
        ends = [points.min(), points.max()]
        axes.plot(ends, ends, color="black", linewidth=1)
    axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}", title=f"Predictions, {len(points):,} samples")
    axes.grid(alpha=0.3)
    return figure


def shortened(name: str) -> str:
    """NAME for a label of an axis."""
    name = name.replace("$", r"\$")  # matplotlib would read it as mathematics
    return name if len(name) <= 18 else f"{name[:17]}…"
