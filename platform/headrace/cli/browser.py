"""Opening a page where there is somebody to look at it."""

from __future__ import annotations

import os
import sys


def open_page(url: str) -> None:
    """Open URL in the person's browser; does nothing on a machine without a screen, or in a pipe."""
    screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if screen and sys.stdout.isatty():
        import webbrowser

        webbrowser.open(url)
