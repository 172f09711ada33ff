"""The VOC files of generated sets: annotations as the format `voc` reads them, and what scenes are drawn with.

All numbers come from Python's own generator and whole arithmetic, neither of which changes with a library's version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Object:
    """A drawn object: its class and its box, whole pixels counted from 0, the far sides exclusive."""

    name: str
    left: int
    top: int
    right: int
    bottom: int

    def overlap(self, other: Object) -> float:
        """The share of the smaller box that lies in the other."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        common = max(0, width) * max(0, height)
        return common / min(self._area, other._area)

    @property
    def _area(self) -> int:
        return (self.right - self.left) * (self.bottom - self.top)


def sheet(name: str, height: int, width: int, channels: int, objects: Sequence[Object]) -> bytes:
    """The XML of the picture called NAME. VOC counts pixels from 1 and boxes include their last one."""
    return "\n".join(_lines(name, height, width, channels, objects)).encode()


def _lines(name: str, height: int, width: int, channels: int, objects: Sequence[Object]) -> Iterator[str]:
    yield f"<annotation><filename>{name}</filename>"
    yield f"<size><width>{width}</width><height>{height}</height><depth>{channels}</depth></size>"
    for drawn in objects:
        yield f"<object><name>{drawn.name}</name><difficult>0</difficult><bndbox>"
        yield f"<xmin>{drawn.left + 1}</xmin><ymin>{drawn.top + 1}</ymin>"
        yield f"<xmax>{drawn.right}</xmax><ymax>{drawn.bottom}</ymax></bndbox></object>"
    yield "</annotation>\n"
