"""The trainer beside a bare PyTorch loop on a GPU: tests/benchmarks/resnet50_gpu.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "resnet50_gpu.py"


SMALL = {"device": "cpu", "size": 32, "width": 0.125, "batch": 4, "pictures": 8, "rounds": 1, "least": 0}


def test_resnet50_in_bfloat16_is_as_fast_as_a_bare_loop() -> None:
    here = SMALL if os.environ.get("HEADRACE_GPU_TESTS_ON") == "cpu" else {}
    words = [f"--{name}={value}" for name, value in here.items()]
    done = subprocess.run([sys.executable, BENCHMARK, *words], capture_output=True, text=True, timeout=280, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ratio" in done.stdout
