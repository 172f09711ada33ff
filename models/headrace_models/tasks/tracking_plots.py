"""Pictures of tracks: where objects went, and a film of them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from headrace_models.tasks.tracking_metrics import TrackingMetrics
from headrace_models.tracking.tracker import Tracked

VIDEOS = 4  # drawn beside each other
SIDE = 256  # least pixels of a film's shorter side
MILLISECONDS = 125  # of a frame


def colour_of(track: int) -> tuple[int, int, int]:
    """The colour of a track in all pictures."""
    red, green, blue = matplotlib.colormaps["tab20"](track % 20)[:3]
    return round(255 * red), round(255 * green), round(255 * blue)


def paths(metrics: TrackingMetrics, size: tuple[int, int]) -> Figure:
    """The centres of true boxes (grey) and of the tracks' (a colour each) in the first videos; SIZE is (height,
    width)."""
    videos = list(metrics.tracked().values())[:VIDEOS]
    figure = Figure(figsize=(3.2 * max(1, len(videos)), 3.6), layout="constrained")
    for axes, frames in zip(np.ravel(figure.subplots(1, max(1, len(videos)), squeeze=False)), videos, strict=False):
        true = ((track, box) for seen, _ in frames for track, box in zip(seen.tracks, seen.true_boxes, strict=True))
        told = ((track, box) for _, tracked in frames for track, box in zip(tracked.tracks, tracked.boxes, strict=True))
        for path in _centres(true).values():
            axes.plot(*zip(*path, strict=True), color="0.75", linewidth=4, solid_capstyle="round")
        for track, path in _centres(told).items():
            axes.plot(*zip(*path, strict=True), color=np.array(colour_of(track)) / 255, linewidth=1.5, label=str(track))
        _frame(axes, size, f"{len(frames)} frames")
    return figure


def _frame(axes: Axes, size: tuple[int, int], title: str) -> None:
    axes.set(xlim=(0, size[1]), ylim=(size[0], 0), title=title, aspect="equal")
    axes.tick_params(labelsize=7)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=6, title="track", title_fontsize=6)


def _centres(boxes: Iterable[tuple[int, np.ndarray]]) -> dict[int, list[tuple[float, float]]]:
    found: dict[int, list[tuple[float, float]]] = {}
    for track, (x1, y1, x2, y2) in boxes:
        found.setdefault(int(track), []).append((float(x1 + x2) / 2, float(y1 + y2) / 2))
    return found


def film(frames: Sequence[np.ndarray], told: Sequence[Tracked]) -> bytes:
    """A GIF of FRAMES, uint8 [channels, height, width] each, with the boxes and numbers of the tracks TOLD of each."""
    pictures = [_drawn(pixels, tracked) for pixels, tracked in zip(frames, told, strict=True)]
    file = io.BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=MILLISECONDS, loop=0)
    return file.getvalue()


def _drawn(pixels: np.ndarray, tracked: Tracked) -> Image.Image:
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    factor = max(1, -(-SIDE // min(image.size)))
    image = image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for box, track in zip(tracked.boxes * factor, tracked.tracks.tolist(), strict=True):
        draw.rectangle([float(side) for side in box], outline=colour_of(track), width=2)
        draw.text((float(box[0]) + 3, float(box[1]) + 1), str(track), fill=colour_of(track))
    return image
