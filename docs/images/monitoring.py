"""Draws docs/images/monitoring.svg: what is scraped from where, and who reads it.

python docs/images/monitoring.py > docs/images/monitoring.svg
"""

from __future__ import annotations

from dataclasses import dataclass

from svg import page, text

WIDTH, HEIGHT = 1080, 470


@dataclass(frozen=True)
class Box:
    """A box of some lines, the first of them bold."""

    x: int
    y: int
    width: int
    height: int
    lines: tuple[str, ...]
    fill: str
    edge: str

    @property
    def left(self) -> tuple[int, int]:
        """Middle of the left side."""
        return self.x, self.y + self.height // 2

    @property
    def right(self) -> tuple[int, int]:
        """Middle of the right side."""
        return self.x + self.width, self.y + self.height // 2

    def draw(self) -> str:
        """As SVG."""
        out = [
            f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="9" '
            f'fill="{self.fill}" stroke="{self.edge}"/>'
        ]
        for index, line in enumerate(self.lines):
            weight, size = ("bold", 15) if index == 0 else ("normal", 12)
            y = self.y + 24 + index * 18
            out.append(text(self.x + self.width / 2, y, line, size, weight))
        return "".join(out)


OURS, THEIRS, MADE = ("#eef2ff", "#6366f1"), ("#f3f4f6", "#6b7280"), ("#fffbeb", "#d97706")
IN_OPERATOR = (
    "operator, each replica",
    "runs, deployments, monitors by state;",
    "queues, reconciles, the API server;",
    "MLflow up, age of the last backup",
)
IN_FRONTS = ("pods of endpoints", "requests, latency, batches by version;", "Serve's and Ray's own, as kept")
IN_PROMETHEUS = (
    "Prometheus",
    "reads them every 30 s,",
    "records error shares over",
    "7 windows, 5 min to 3 days,",
    "judges the alerts",
    "(PrometheusRules)",
)
OPERATOR = Box(30, 50, 260, 98, IN_OPERATOR, *OURS)
FRONTS = Box(30, 182, 260, 80, IN_FRONTS, *OURS)
TRAININGS = Box(30, 296, 260, 80, ("pods of trainings", "CPU, memory and GPUs in use,", "as Ray measures them"), *OURS)
MLFLOW = Box(30, 410, 110, 42, ("MLflow",), *THEIRS)
LEASE = Box(150, 410, 140, 42, ("backup's Lease",), *THEIRS)
PROMETHEUS = Box(540, 150, 200, 146, IN_PROMETHEUS, *THEIRS)
GRAFANA = Box(840, 60, 210, 92, ("Grafana", "Operators", "Training", "Serving"), *MADE)
ALERTS = Box(840, 190, 210, 76, ("Alertmanager", "19 alerts: 5 wake somebody,", "the others wait"), *MADE)
RUNBOOKS = Box(840, 306, 210, 76, ("docs/runbooks", "for each: what it means,", "how to look, what to do"), *MADE)
BOXES = (OPERATOR, FRONTS, TRAININGS, MLFLOW, LEASE, PROMETHEUS, GRAFANA, ALERTS, RUNBOOKS)


def arrow(start: tuple[float, float], end: tuple[float, float], words: str = "", lift: int = -8) -> str:
    """From START to END, with WORDS at its middle."""
    (x1, y1), (x2, y2) = start, end
    line = f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#6b7280" stroke-width="2" marker-end="url(#head)"/>'
    return line + (text((x1 + x2) / 2, (y1 + y2) / 2 + lift, words, 12, "bold", "#374151") if words else "")


def main() -> None:
    """Print the drawing."""
    parts = [
        text(155, 30, "who serves metrics, at :8080/metrics", 13, "bold", "#4b5563"),
        text(945, 30, "who is told", 13, "bold", "#4b5563"),
        *(box.draw() for box in BOXES),
        arrow(OPERATOR.right, (540, 190), "ServiceMonitor", -22),
        arrow(FRONTS.right, (540, 224), "PodMonitor headrace-serving"),
        arrow(TRAININGS.right, (540, 262), "PodMonitor headrace-training", 46),
        arrow((740, 190), GRAFANA.left, "queries", -16),
        arrow((740, 228), ALERTS.left, "fires"),
        arrow((945, 266), (945, 304)),
        '<path d="M14,434 L14,99 L30,99" fill="none" stroke="#9ca3af" stroke-width="2" stroke-dasharray="5 4"/>',
        '<line x1="14" y1="434" x2="30" y2="434" stroke="#9ca3af" stroke-width="2" stroke-dasharray="5 4"/>',
        text(640, 376, "ModelMonitors: the operator asks Prometheus", 12, "normal", "#4b5563"),
        text(640, 393, "about one endpoint and tells what came of it", 12, "normal", "#4b5563"),
        text(450, 435, "asked by the replica that leads, every 30 s and 60 s", 12, "normal", "#4b5563"),
    ]
    print(page(WIDTH, HEIGHT, *parts))


if __name__ == "__main__":
    main()
