"""Draws docs/images/monitoring.svg: what is scraped from where, and who reads it.

python docs/images/monitoring.py > docs/images/monitoring.svg
"""

from __future__ import annotations

from svg import AMBER, BLUE, GREY, arrow, box, page, text

from headrace.monitoring import rules, runbooks

ALERTS = len(runbooks.pages())
WAKING = len({alert.name for alert in rules.alerts() if alert.severity == "critical"})


def label(x: float, y: float, words: str) -> str:
    """Words at an arrow."""
    return text(x, y, words, 12, "bold", "#374151")


def aside(x: float, y: float, words: str) -> str:
    """What no box says."""
    return text(x, y, words, 12, fill="#4b5563")


def main() -> None:
    """Print the drawing."""
    parts = [
        text(155, 30, "who serves metrics, at :8080/metrics", 13, "bold", "#4b5563"),
        text(945, 30, "who is told", 13, "bold", "#4b5563"),
        box(
            *(30, 50, 260, 98, "operator, each replica"),
            "runs, deployments, monitors by state;\nqueues, reconciles, the API server;\n"
            "MLflow up, age of the last backup",
            BLUE,
        ),
        box(
            *(30, 182, 260, 80, "pods of endpoints"),
            "requests, latency, batches by version;\nServe's and Ray's own, as kept",
            BLUE,
        ),
        box(30, 296, 260, 80, "pods of trainings", "CPU, memory and GPUs in use,\nas Ray measures them", BLUE),
        box(30, 410, 90, 42, "MLflow", "", GREY),
        box(130, 410, 160, 42, "backup's Lease", "", GREY),
        box(
            *(540, 150, 200, 146, "Prometheus"),
            "reads them every 30 s,\nrecords error shares over\n7 windows, 5 min to 3 days,\njudges the alerts\n"
            "(PrometheusRules)",
            GREY,
        ),
        box(840, 60, 210, 92, "Grafana", "Operators\nTraining\nServing", AMBER),
        box(840, 190, 210, 76, "Alertmanager", f"{ALERTS} alerts: {WAKING} wake somebody,\nthe others wait", AMBER),
        box(840, 306, 210, 76, "docs/runbooks", "for each: what it means,\nhow to look, what to do", AMBER),
        arrow((290, 99), (538, 190)),
        label(415, 122, "ServiceMonitor"),
        arrow((290, 222), (538, 224)),
        label(415, 215, "PodMonitor headrace-serving"),
        arrow((290, 336), (538, 262)),
        label(415, 345, "PodMonitor headrace-training"),
        arrow((740, 190), (838, 106)),
        label(768, 132, "queries"),
        arrow((740, 228), (838, 228)),
        label(790, 220, "fires"),
        arrow((945, 266), (945, 304)),
        arrow((30, 434), (14, 434), (14, 99), (28, 99), dashed=True),
        aside(640, 376, "ModelMonitors: the operator asks Prometheus\nabout one endpoint and tells what came of it"),
        aside(460, 435, "asked by the replica that leads, every 30 s and 60 s"),
    ]
    print(page(1080, 470, *parts))


if __name__ == "__main__":
    main()
