"""What the drawings of this folder are made of: lines of text, boxes, arrows, and the page around them."""

from __future__ import annotations

GREEN, AMBER, BLUE, GREY = (
    ("#f0fdf4", "#16a34a"),
    ("#fffbeb", "#d97706"),
    ("#eef2ff", "#6366f1"),
    ("#f3f4f6", "#6b7280"),
)


def text(
    x: float,
    y: float,
    words: str,
    size: int = 13,
    weight: str = "normal",
    fill: str = "#1f2937",
    anchor: str = "middle",
) -> str:
    """Lines of text, the first at Y."""
    return "".join(
        f'<text x="{x}" y="{y + i * (size + 4)}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="{anchor}">{line}</text>'
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


def page(width: int, height: int, *parts: str) -> str:
    """The whole drawing."""
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
            '<defs><marker id="head" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">'
            '<path d="M0,0 L9,4 L0,8 z" fill="#6b7280"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *parts,
            "</svg>",
        )
    )
