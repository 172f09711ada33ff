"""`python -m kuberay_double --kubeconfig FILE [--namespace NS]`: the double as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import logging
from pathlib import Path

from kuberay_double.double import JobsDouble, KubeRayDouble


def main() -> None:
    """Play until interrupted."""
    parser = argparse.ArgumentParser(
        prog="kuberay_double", description="Plays KubeRay, kubelet and Ray. It is none of them."
    )
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--namespace", default="", help="Where; default: everywhere.")
    parser.add_argument(
        "--jobs-only", action="store_true", help="RayJobs alone, without RayClusters, Pods and Services."
    )
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    double = (JobsDouble if asked.jobs_only else KubeRayDouble)(asked.kubeconfig, namespace=asked.namespace)
    asyncio.run(double.run())


if __name__ == "__main__":
    main()
