"""The benchmark of joined tasks trains nothing that it was not asked for: `make bench` calls it without words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "multi_task.py"


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, BENCHMARK, *words], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_words_it_says_how_it_is_used() -> None:
    told = run()
    assert told.startswith("usage: multi_task.py")
    assert "SEED:WAY" in told
    assert "| seed |" not in told


def test_trainings_that_a_file_has_are_put_into_the_table(tmp_path: Path) -> None:
    ways = {
        "joined": {"accuracy": 0.97, "IoU": 0.8},
        "classification": {"accuracy": 0.96},
        "segmentation": {"IoU": 0.7},
    }
    lines = [json.dumps({"seed": 1, "way": way, **values}) for way, values in ways.items()]
    (tmp_path / "results").write_text("\n".join(lines))
    told = run("--results", str(tmp_path / "results"))
    assert "| 1 | 0.960 | 0.970 | 0.700 | 0.800 |" in told
    assert "joined - alone: accuracy +0.010, IoU +0.100" in told
