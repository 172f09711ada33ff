"""Pictures of how a detector did."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from headrace_models.detection.outputs import PADDING
from headrace_models.tasks.base import Example
from headrace_models.tasks.detection_metrics import DetectionMetrics
from headrace_models.tasks.plots import ROWS, drawn_table, shortened

CURVES = 20  # classes with a curve of their own; of more, those with the most objects
SHOWN = 0.3  # least score of a detection that is drawn
COLUMNS = (("IoU .50", 0), ("IoU .75", 5))


def colour_of(label: int) -> tuple[float, ...]:
    """The colour of a class in all pictures."""
    return tuple(matplotlib.colormaps["tab10"](label % 10))


def precision_recall(metrics: DetectionMetrics, classes: Sequence[str]) -> Figure:
    """Precision over recall at an overlap of .50 as the score falls, a curve a class."""
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    for label in np.argsort(-metrics.wanted, kind="stable")[:CURVES].tolist():
        if metrics.wanted[label]:
            recall, precision, _ = metrics.curve(label)
            axes.plot(recall, precision, label=shortened(classes[label]), linewidth=1.5, color=colour_of(label))
    axes.set(xlabel="recall", ylabel="precision", title="Precision and recall at IoU .50")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)
    return figure


def average_precision(metrics: DetectionMetrics, classes: Sequence[str]) -> Figure:
    """A table: objects, detections and average precisions of each class, those with the most objects first."""
    values = metrics.average_precisions()
    shown = np.argsort(-metrics.wanted, kind="stable")[:ROWS].tolist()
    rows = [
        [
            shortened(classes[label]),
            f"{int(metrics.wanted[label]):,}",
            f"{len(metrics.scores(label)):,}",
            *(_number(values[label, place]) for _, place in COLUMNS),
            _number(float(values[label].mean())),
        ]
        for label in shown
    ]
    whole = metrics.compute()
    counts = [f"{int(metrics.wanted.sum()):,}", f"{sum(len(metrics.scores(k)) for k in range(metrics.classes)):,}"]
    rows.append(["all", *counts, *(_number(whole[name]) for name in ("map50", "map75", "map"))])
    names = ["class", "objects", "detections", *(name for name, _ in COLUMNS), "IoU .50 to .95"]
    return drawn_table("Average precision", names, rows)


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def drawn_boxes(examples: Sequence[Example], found: Sequence[np.ndarray], classes: Sequence[str]) -> Figure:
    """Pictures with what was FOUND (boxes, scores, labels of each, in their pixels); dashed white is what there is."""
    columns = min(4, len(examples))
    rows = -(-len(examples) // columns)
    _, height, width = examples[0]["image"].shape
    figure = Figure(figsize=(3 * columns, 3 * rows * height / width), layout="constrained")
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if place < len(examples):
            _draw(axes, examples[place], *(part[place] for part in found), classes=classes)
    return figure


def _draw(
    axes: Axes,
    example: Example,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    classes: Sequence[str],
) -> None:
    pixels = example["image"]
    shown = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    extent = (0, shown.shape[1], shown.shape[0], 0)  # boxes are edges of pixels, not their centres
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=extent)
    for box in example.get("boxes", ()):
        axes.add_patch(_rectangle(box, (1.0, 1.0, 1.0), "--"))
    for box, score, label in zip(boxes, scores, labels.tolist(), strict=True):
        if label == PADDING or score < SHOWN:
            continue
        axes.add_patch(_rectangle(box, colour_of(label), "-"))
        words = f"{shortened(classes[label])} {score:.2f}"
        axes.text(box[0], box[1], words, fontsize=5, color="white", va="bottom").set_bbox(
            {"facecolor": colour_of(label), "edgecolor": "none", "pad": 0.5}
        )


def _rectangle(box: np.ndarray, colour: tuple[float, ...], style: str) -> Rectangle:
    x1, y1, x2, y2 = (float(side) for side in box)
    return Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linestyle=style, linewidth=1)
