"""Own code whose training stands still in its middle while a file is there.

What a test kills in mid-training it must find there, however busy the machine is and however quick the training.
"""

from __future__ import annotations

from pathlib import Path

_PAUSE = """
import time
from pathlib import Path


class Pause:
    def __init__(self, batches):
        self.left = batches

    def __call__(self):
        self.left -= 1
        deadline = time.monotonic() + 1800  # if nobody is left who would let it go on
        while self.left < 0 and Path({hold!r}).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
"""


def write_code(folder: Path, hold: Path, **sources: str) -> Path:
    """Make FOLDER of the modules SOURCES, which may `from pause import Pause`; returns it.

    A `Pause(batches)` is called once a batch; after so many of its process it returns only when there is no HOLD.
    """
    folder.mkdir(parents=True)
    for name, text in {**sources, "pause": _PAUSE.format(hold=str(hold))}.items():
        (folder / f"{name}.py").write_text(text)
    return folder
