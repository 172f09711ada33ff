"""Draws docs/images/architecture.svg: the parts of Headrace on a cluster and who talks to whom.

python docs/images/architecture.py > docs/images/architecture.svg
"""

from __future__ import annotations

from svg import AMBER, BLUE, GREEN, GREY, arrow, box, page, text

WIDTH, HEIGHT = 1120, 710


def frame(x: float, y: float, width: float, height: float, name: str) -> str:
    """A namespace or place, dashed, with its name."""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="14" fill="none" stroke="#9ca3af" '
        'stroke-dasharray="7 5"/>' + text(x + 14, y + 22, name, 13, "bold", anchor="start")
    )


def main() -> None:
    """Print the drawing."""
    parts = [
        box(
            40,
            20,
            330,
            76,
            "headrace run spec.yaml --on prod",
            "judges the spec, writes its parts,\nfollows the run",
            BLUE,
        ),
        box(780, 20, 300, 76, "a client of the endpoint", "Open Inference Protocol (V2)", BLUE),
        frame(20, 130, 1080, 220, "a workspace: namespace of a team"),
        box(
            *(40, 170, 250, 140),
            "Kubeflow Pipelines",
            "split → train → register → deploy,\neach a pod of headrace/runtime\n(the same IR as on a laptop)",
            GREEN,
        ),
        box(350, 165, 180, 66, "TrainingRun", "what is to be trained", AMBER),
        box(350, 250, 180, 66, "ModelDeployment", "which version answers", AMBER),
        box(590, 165, 220, 66, "RayJob", "head + workers, one attempt", GREEN),
        box(590, 250, 220, 66, "RayService", "the front and its replicas", GREEN),
        text(840, 190, "a lost head is the next attempt,\nfrom the newest checkpoint", 12, anchor="start"),
        text(840, 300, "a new version is swapped in\nwhile the old one answers", 12, anchor="start"),
        frame(20, 390, 620, 130, "headrace-system"),
        box(40, 426, 210, 76, "headrace operator", "two replicas, one Lease", GREEN),
        box(290, 426, 150, 76, "MLflow", "runs, registry", GREEN),
        box(470, 426, 150, 76, "PostgreSQL", "or yours", AMBER),
        box(680, 426, 190, 76, "S3 store", "splits, checkpoints,\npackages; or yours", AMBER),
        box(910, 426, 170, 76, "KubeRay", "pods of Ray clusters", GREY),
        frame(20, 550, 1080, 140, "watching"),
        box(40, 586, 210, 84, "Prometheus", "operator, Ray, fronts;\nrules", GREY),
        box(290, 586, 150, 84, "Alertmanager", "each alert has\na runbook", GREY),
        box(470, 586, 150, 84, "Grafana", "operators, training,\nserving", GREY),
        box(680, 586, 190, 84, "headrace backup", "CronJob: database,\nregistry, objects", GREEN),
        arrow((165, 96), (165, 168)),
        text(180, 118, "the IR, by KFP's API", 12, anchor="start"),
        arrow((290, 198), (348, 198)),
        arrow((290, 283), (348, 283)),
        arrow((530, 198), (588, 198)),
        arrow((530, 283), (588, 283)),
        arrow((1060, 96), (1060, 262), (812, 262)),
        text(905, 118, "HTTP, through a Service", 12, anchor="start"),
        arrow((145, 426), (145, 368), (440, 368), (440, 318)),
        text(160, 384, "watches both, writes RayJobs and RayServices", 12, anchor="start"),
        arrow((620, 316), (620, 410), (365, 410), (365, 424)),
        text(560, 404, "metrics, tags", 12),
        arrow((740, 316), (740, 424)),
        text(750, 384, "files, by fsspec", 12, anchor="start"),
        arrow((995, 426), (995, 338), (790, 338), (790, 318)),
        arrow((440, 464), (468, 464)),
        arrow((145, 586), (145, 504)),
        arrow((250, 640), (288, 640)),
        arrow((545, 586), (545, 566), (195, 566), (195, 584)),
        arrow((775, 586), (775, 504)),
        arrow((700, 586), (700, 536), (545, 536), (545, 504)),
    ]
    print(page(WIDTH, HEIGHT, *parts))


if __name__ == "__main__":
    main()
