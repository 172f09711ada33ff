"""Runs the tiers of tests that this machine can run, and ends by saying what it left out and why.

One place knows the tiers, so that `make test`, its single-tier siblings and CI cannot differ. With CI=true a tier that
is left out fails the run: a green CI must mean that everything ran. The kubernetes tier mostly waits, so it runs beside
those that compute; what it prints is shown when it is over.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
TEST_BED = ROOT / "tests" / "kubernetes" / "testbed"
sys.path.insert(0, str(TEST_BED))

from headrace_testbed import node_tier, toolchain  # noqa: E402

COVERED = (
    "headrace.base",
    "headrace.spec",
    "headrace.store",
    "headrace.data",
    "headrace.steps",
    "headrace.serving.contract",
    "headrace.serving.protocol",
    "headrace_models.catalog",
)
COVERAGE_FLOOR = 90  # percent of the pure core, by the unit tier alone
BESIDE = "kubernetes"  # this tier runs beside
COMPUTING = ("local", "node")  # these, where both are asked for
HEARTBEAT_SECONDS = 120
_Output = IO[bytes] | None  # a file that shows later what is printed; None shows it at once


@dataclass
class Outcome:
    """What a tier came to."""

    tier: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    ok: bool = True
    left_out: str = ""


def left_out(tier: str) -> str:
    """Why this machine cannot run TIER, or nothing."""
    if tier == "local" and (sys.platform != "linux" or not Path("/proc/self/stat").exists()):
        return "the local tier supervises processes through Linux's /proc"
    if tier == "local" and shutil.which("ss") is None:
        return "the local tier reads listeners with ss (Debian: apt-get install iproute2)"
    if tier == "kubernetes":
        return toolchain.why_not()
    if tier == "node":
        return node_tier.why_not()
    return ""


def run_pytest(tier: str, output: _Output) -> Outcome:
    """Run one tier with pytest and read its counts back from the report it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", f"tests/{tier}", f"--junit-xml={report}", "--durations=8", "-q"]
        if tier == "unit":  # the tier that starts nothing: its tests do not fight for the machine
            command += ["-n", "2", *(f"--cov={package}" for package in COVERED)]
            command += ["--cov-report=term:skip-covered", f"--cov-fail-under={COVERAGE_FLOOR}"]
        if tier == "kubernetes":  # a control plane for each of two workers, and each file's tests in one of them
            command += ["-n", "2", "--dist", "loadfile"]
        if tier == "node":
            command += ["-m", "not long"]
        code = _call(command, output)
        outcome = Outcome(tier, ok=code == 0)
        if report.exists():
            suite = ElementTree.parse(report).getroot().find("testsuite")
            if suite is not None:
                outcome.failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
                outcome.skipped = int(suite.get("skipped", 0))
                outcome.passed = int(suite.get("tests", 0)) - outcome.failed - outcome.skipped
        return outcome


BUILDERS = {"kubernetes": "headrace_testbed.builds", "node": "headrace_testbed.node_tier"}


def _call(command: list[str], output: _Output, folder: Path = ROOT) -> int:
    return subprocess.run(command, cwd=folder, stdout=output, stderr=output, check=False).returncode


def run(tier: str, output: _Output = None) -> Outcome:
    """Run one tier, or say why not."""
    if output is None:
        print(f"\n=== {tier} ===", flush=True)
    started = time.monotonic()
    if reason := left_out(tier):
        return Outcome(tier, left_out=reason, ok=os.environ.get("CI") != "true")
    if tier == "check":
        outcome = Outcome(tier, ok=_call(["make", "--no-print-directory", "check"], output) == 0)
    elif tier in BUILDERS and _call([sys.executable, "-m", BUILDERS[tier]], output, TEST_BED):
        outcome = Outcome(tier, ok=False)
    else:
        outcome = run_pytest(tier, output)
    outcome.seconds = time.monotonic() - started
    return outcome


def run_beside(tier: str, others: Iterable[str]) -> list[Outcome]:
    """Run TIER beside OTHERS, which run one after the other; what it printed is shown in the end."""
    print(f"\n=== {tier} === (runs beside what follows; shown when it is over)", flush=True)
    ended: list[Outcome] = []
    with tempfile.TemporaryFile() as output:
        lane = threading.Thread(target=lambda: ended.append(run(tier, output)))
        lane.start()
        outcomes = [run(each) for each in others]
        while lane.is_alive():
            lane.join(HEARTBEAT_SECONDS)
            if lane.is_alive():
                print(f"... the {tier} tier still runs", flush=True)
        output.seek(0)
        print(f"\n=== {tier} ===\n{output.read().decode(errors='replace')}", flush=True)
    return [*outcomes, *(ended or [Outcome(tier, ok=False)])]


def run_all(tiers: list[str]) -> list[Outcome]:
    """Run TIERS in their order, the one that mostly waits beside those that compute."""
    if BESIDE not in tiers or not set(COMPUTING) & set(tiers):
        return [run(tier) for tier in tiers]
    first = [run(tier) for tier in tiers if tier not in (BESIDE, *COMPUTING)]
    return [*first, *run_beside(BESIDE, [tier for tier in tiers if tier in COMPUTING])]


def main() -> int:
    """Run the tiers named on the command line."""
    # A shell that runs us in the background has us ignore Ctrl-C, and so would all processes of the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    outcomes = run_all(sys.argv[1:])
    print("\ntier        passed  failed  skipped  seconds")
    for o in outcomes:
        words = f"left out: {o.left_out}" if o.left_out else ("" if o.ok else "FAILED")
        print(f"{o.tier:<12}{o.passed:>6}{o.failed:>8}{o.skipped:>9}{o.seconds:>9.0f}  {words}")
    if not any(o.left_out for o in outcomes):
        print("Nothing was left out." if len(outcomes) > 1 else "")
    print(f"{sum(o.passed for o in outcomes)} passed, {sum(o.failed for o in outcomes)} failed")
    return 0 if all(o.ok for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
