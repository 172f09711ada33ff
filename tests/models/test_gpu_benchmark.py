"""The benchmark for a GPU runs where there is none: its code on the CPU at a tiny size, and by default not at all."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "resnet50_gpu.py"
TINY = ["--device", "cpu", "--size", "32", "--width", "0.125", "--batch", "4", "--pictures", "8", "--rounds", "1"]


def run(*words: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, BENCHMARK, *words], capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stdout + done.stderr


def test_it_measures_both_loops_and_judges_their_ratio() -> None:
    code, told = run(*TINY, "--least", "0")
    assert code == 0, told
    rates = dict(re.findall(r"^(headrace|bare|ratio) +([0-9.]+)", told, re.MULTILINE))
    assert set(rates) == {"headrace", "bare", "ratio"}
    assert float(rates["ratio"]) == pytest.approx(float(rates["headrace"]) / float(rates["bare"]), rel=0.05)
    code, told = run(*TINY, "--least", "1000")
    assert code == 1, told


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: it would be measured")
def test_without_a_gpu_it_says_so() -> None:
    code, told = run()
    assert (code, told.strip()) == (0, "there is no CUDA device here: nothing was measured")
