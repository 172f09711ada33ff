"""Draws docs/images/run.svg: one run, from data to endpoint, with what lies behind each step.

python docs/images/run.py > docs/images/run.svg
"""

from __future__ import annotations

from svg import page, text

STEPS = (
    ("split", "scan, check, divide", "manifest (Parquet)", "fsspec"),
    ("train", "N workers, DDP,\ncheckpoints, evaluation", "package (safetensors)", "Ray Train"),
    ("register", "gate against numbers\nand the champion", "version + tags", "MLflow"),
    ("deploy", "hot swap, then\nthe alias moves", "endpoint (V2)", "Ray Serve"),
)
WIDTH, HEIGHT, STEP, GAP, LEFT = 1040, 330, 190, 40, 70


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """A line with a head at its end."""
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#6b7280" stroke-width="2" marker-end="url(#head)"/>'


def main() -> None:
    """Print the drawing."""
    out = [
        '<rect x="60" y="14" width="920" height="40" rx="8" fill="#eef2ff" stroke="#6366f1"/>',
        text(520, 39, "spec.yaml  →  headrace run  →  one Kubeflow pipeline (kfp.local on a laptop)", 15, "bold"),
    ]
    for index, (name, does, makes, by) in enumerate(STEPS):
        x = LEFT + index * (STEP + GAP)
        middle = x + STEP / 2
        out += [
            arrow(middle, 54, middle, 84),
            f'<rect x="{x}" y="86" width="{STEP}" height="100" rx="10" fill="#f0fdf4" stroke="#16a34a"/>',
            text(middle, 110, name, 17, "bold"),
            text(middle, 133, does, 13),
            text(middle, 178, by, 12, "bold", "#15803d"),
            arrow(middle, 186, middle, 222),
            f'<rect x="{x}" y="224" width="{STEP}" height="38" rx="6" fill="#fffbeb" stroke="#d97706"/>',
            text(middle, 248, makes, 13),
        ]
        if index:
            out.append(arrow(x - GAP, 136, x - 2, 136))
    out += [
        text(520, 294, "Everything is stored by its hash: a step whose inputs did not change is not run again.", 13),
        text(
            520, 314, "Kill any part: headrace resume goes on from the newest checkpoint, in the same MLflow run.", 13
        ),
    ]
    print(page(WIDTH, HEIGHT, *out))


if __name__ == "__main__":
    main()
