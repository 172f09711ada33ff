"""Draws docs/images/reconcile.svg: how a change of an object becomes an action.

python docs/images/reconcile.py > docs/images/reconcile.svg
"""

from __future__ import annotations

WIDTH, HEIGHT = 1040, 500
GREEN, AMBER, BLUE, GREY = (
    ("#f0fdf4", "#16a34a"),
    ("#fffbeb", "#d97706"),
    ("#eef2ff", "#6366f1"),
    ("#f3f4f6", "#6b7280"),
)


def text(x: float, y: float, words: str, size: int = 13, weight: str = "normal", fill: str = "#1f2937") -> str:
    """Centred lines of text."""
    return "".join(
        f'<text x="{x}" y="{y + i * (size + 4)}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="middle">{line}</text>'
        for i, line in enumerate(words.split("\n"))
    )


def box(x: float, y: float, width: float, height: float, name: str, does: str, colours: tuple[str, str]) -> str:
    """A part: its name and what it does."""
    middle = x + width / 2
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" fill="{colours[0]}" stroke="{colours[1]}"/>'
        + text(middle, y + 24, name, 16, "bold")
        + text(middle, y + 46, does)
    )


def arrow(*points: tuple[float, float], dashed: bool = False) -> str:
    """A line through POINTS with a head at its end."""
    path = " ".join(f"{x},{y}" for x, y in points)
    dashes = ' stroke-dasharray="6 4"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="#6b7280" stroke-width="2"{dashes} marker-end="url(#head)"/>'


def main() -> None:
    """Print the drawing."""
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        '<defs><marker id="head" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">'
        '<path d="M0,0 L9,4 L0,8 z" fill="#6b7280"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        box(40, 20, 960, 58, "API server", "", BLUE),
        box(40, 150, 190, 90, "informer", "list, then watch;\nlist anew after 410", GREEN),
        box(40, 330, 190, 90, "store", "compact JSON,\nindexed by primary", AMBER),
        box(300, 150, 190, 90, "queue", "each key once,\none worker a key", GREEN),
        box(300, 330, 190, 90, "worker", "8 of each controller", GREEN),
        box(560, 330, 190, 90, "plan (yours)", "pure: what is wanted,\nwhat is there", AMBER),
        box(810, 330, 190, 90, "executor", "actions in order,\nthen the status", GREEN),
        box(810, 150, 190, 90, "guard", "the lease was renewed\nless than 10 s ago", GREY),
        arrow((135, 78), (135, 148)),
        text(180, 118, "events"),
        arrow((135, 240), (135, 328)),
        text(104, 290, "object"),
        arrow((230, 195), (298, 195)),
        text(264, 185, "keys"),
        arrow((395, 240), (395, 328)),
        text(420, 290, "key"),
        arrow((230, 375), (298, 375)),
        text(264, 365, "objects"),
        arrow((490, 375), (558, 375)),
        arrow((750, 375), (808, 375)),
        text(779, 365, "Plan"),
        arrow((905, 330), (905, 242)),
        arrow((905, 150), (905, 80)),
        text(955, 118, "writes"),
        arrow((840, 330), (840, 290), (520, 290), (520, 210), (492, 210), dashed=True),
        text(680, 266, "failed: later and later", 12),
        text(680, 282, "Wait, again_after_seconds: at that time", 12),
        arrow((905, 420), (905, 456), (395, 456), (395, 422), dashed=True),
        text(650, 474, "no new plan of this key until the store has seen what was written", 12),
        "</svg>",
    ]
    print("\n".join(out))


if __name__ == "__main__":
    main()
