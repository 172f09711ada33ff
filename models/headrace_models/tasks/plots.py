"""Pictures of an evaluation. Figures are made without pyplot: it keeps state for the whole process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from headrace_models.tasks.judging import ClassificationMetrics, RegressionMetrics

NAMED = 30  # classes on an axis
ROWS = 60  # classes in a table
CURVES = 10  # classes up to which each has a curve of its own


def confusion_matrix(metrics: ClassificationMetrics, classes: Sequence[str]) -> Figure:
    """True classes by predicted ones, coloured by the share of the true class, with the counts written in.

    Of more than NAMED classes those that are mistaken, or taken by mistake, the most stand there, the rest as one.
    """
    counts, names = metrics.confusion, [shortened(name) for name in classes]
    title = f"Confusion matrix, {int(counts.sum()):,} samples"
    if len(classes) > NAMED:
        chosen = _most_confused(counts)
        title = f"{title}\nthe {NAMED} of {len(classes):,} classes that are confused the most"
        counts, names = _with_others(counts, chosen), [*(names[place] for place in chosen), "all others"]
    side = min(15.0, 3.5 + 0.45 * len(names))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    places = np.arange(len(names))
    turned = max(map(len, names)) > 3
    axes.set_xticks(places, names, rotation=45 if turned else 0, ha="right" if turned else "center")
    axes.set_yticks(places, names)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
    return figure


def _most_confused(counts: np.ndarray) -> list[int]:
    """The NAMED classes with the most mistakes in their row and column, in their own order."""
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    return sorted(np.argsort(-mistakes, kind="stable")[:NAMED].tolist())


def _with_others(counts: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """COUNTS of the CHOSEN classes; the last row and column are all others together."""
    group = np.full(len(counts), len(chosen))
    group[chosen] = np.arange(len(chosen))
    joined = np.zeros((len(chosen) + 1, len(counts)), np.int64)
    np.add.at(joined, group, counts)
    result = np.zeros((len(chosen) + 1, len(chosen) + 1), np.int64)
    np.add.at(result.T, group, joined.T)
    return result


def class_report(metrics: ClassificationMetrics, classes: Sequence[str]) -> Figure:
    """A table: precision, recall, F1 and support of each class, and their averages as scikit-learn names them.

    Of more than ROWS classes those with the lowest F1 stand there, the ones with the most samples first among equals.
    """
    each = metrics.of_classes()
    shown, title = list(range(len(classes))), "Each class"
    if len(classes) > ROWS:
        shown = [n for n in np.lexsort((-each.support, each.f1)).tolist() if each.support[n]][:ROWS]
        title = f"The {len(shown)} of {len(classes):,} classes with the lowest F1"
    measures = np.stack(each[:3], axis=1)
    rows = [[shortened(classes[n]), *map(_number, measures[n]), f"{int(each.support[n]):,}"] for n in shown]
    total, counted = int(each.support.sum()), (each.support + each.predicted) > 0
    for name, weights in (("macro avg", counted.astype(float)), ("weighted avg", each.support.astype(float))):
        averages = (measures * weights[:, None]).sum(axis=0) / max(1.0, weights.sum())
        rows.append([name, *map(_number, averages), f"{total:,}"])
    return drawn_table(title, ("class", "precision", "recall", "F1", "support"), rows)


def _number(value: float) -> str:
    return f"{value:.3f}"


def drawn_table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Figure:
    """ROWS of text under the NAMES of their columns."""
    figure = Figure(figsize=(6.4, 0.9 + 0.2 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    widths = [0.28, *([0.72 / (len(names) - 1)] * (len(names) - 1))]
    table = axes.table(cellText=rows, colLabels=names, colWidths=widths, loc="upper center", cellLoc="right")
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    axes.set_title(title)
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


def predicted_pictures(
    pictures: Sequence[np.ndarray],
    true: Sequence[str | None],
    said: Sequence[str],
    heat: Sequence[np.ndarray] | None = None,
) -> Figure:
    """Pictures uint8 `[channels, height, width]` under what the model said, red and with the truth where it erred.

    HEAT `[height, width]`, from 0, lies over each of them if it is given: the brighter the more.
    """
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
        if heat is not None:
            most = float(heat[place].max())
            axes.imshow(heat[place], cmap="inferno", alpha=0.6, vmin=0, vmax=most or 1.0)
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
