"""What a run costs beyond its training: `headrace run examples/digits.yaml`, warm, beside the same loop under torchrun.

Pairs of runs, one after the other on the same machine; the figure is the median of the differences (DESIGN §12). Every
run has a seed of its own, so that nothing is cached and each makes a version and a hot swap.

    python tests/benchmarks/overhead.py [PAIRS]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SPEC = ROOT / "examples" / "digits.yaml"


def timed(command: list[str]) -> tuple[float, str]:
    """Wall seconds and standard output of one command; its failure ends the benchmark."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} exited {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return time.monotonic() - started, done.stdout


def run_headrace(seed: int) -> tuple[float, dict[str, float]]:
    """Wall seconds of one uncached run and the seconds of its steps."""
    wall, text = timed([str(BIN / "headrace"), "run", str(SPEC), "--json", "--set", f"train.seed={seed}"])
    return wall, {step["name"]: step["seconds"] for step in json.loads(text)["steps"]}


def main(pairs: int = 3) -> None:
    """Warm up once, then PAIRS pairs; print the table."""
    train = yaml.safe_load(SPEC.read_text())["train"]
    first = int(time.time()) % 1_000_000
    run_headrace(first)
    rows = []
    for pair in range(1, pairs + 1):
        wall, steps = run_headrace(first + pair)
        loop = [str(BIN / "torchrun"), "--nproc-per-node", str(train["workers"])]
        bare, _ = timed([*loop, str(ROOT / "tests/benchmarks/bare_loop.py"), str(train["epochs"]), str(first + pair)])
        rows.append({"run": wall, "torchrun": bare, "overhead": wall - bare, **steps})
        print(json.dumps({key: round(value, 2) for key, value in rows[-1].items()}), file=sys.stderr, flush=True)
    print(f"{'seconds':<12}{'median':>8}{'min':>8}{'max':>8}")
    for key in rows[0]:
        values = [row[key] for row in rows]
        print(f"{key:<12}{statistics.median(values):>8.1f}{min(values):>8.1f}{max(values):>8.1f}")


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:]))
