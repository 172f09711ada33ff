"""Draws docs/images/reconcile.svg: how a change of an object becomes an action.

python docs/images/reconcile.py > docs/images/reconcile.svg
"""

from __future__ import annotations

from svg import AMBER, BLUE, GREEN, GREY, arrow, box, page, text

WIDTH, HEIGHT = 1040, 500


def main() -> None:
    """Print the drawing."""
    parts = [
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
    ]
    print(page(WIDTH, HEIGHT, *parts))


if __name__ == "__main__":
    main()
