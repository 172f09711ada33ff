"""Runs the tiers of tests that this machine can run, and ends by saying what it left out and why.

One place knows the tiers, so that `make test`, its single-tier siblings and CI cannot differ. With CI=true a tier that
is left out fails the run: a green CI must mean that everything ran. The tiers of clusters mostly wait, so they run
beside the local one; what they print is shown when they are over.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
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
BESIDE = ("kubernetes", "node")  # these run, one after the other, beside
MAIN = "local"  # this one, where it is asked for
SHORT = {"node": "without the tests marked long, which `make test-scenarios` runs"}
HEARTBEAT_SECONDS = 120
SHOWN_FAILURES = 5  # once more at the very end, which is what is kept of a long log
SHOWN_CHARACTERS = 1500  # of each
CUDA = "import sys, torch; sys.exit(not torch.cuda.is_available())"  # in a process of its own: torch is slow to import
_Output = IO[bytes] | int | None  # a file that shows later what is printed; None shows it at once


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
    failures: list[str] = field(default_factory=list)  # of each failed test its name and the end of what it said


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
    if (
        tier == "gpu"
        and os.environ.get("HEADRACE_GPU_TESTS_ON", "cuda") == "cuda"
        and _call([sys.executable, "-c", CUDA], subprocess.DEVNULL)
    ):
        return "there is no CUDA device"
    return ""


def run_pytest(tier: str, output: _Output) -> Outcome:
    """Run one tier with pytest and read its counts back from the report it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", f"tests/{tier}", f"--junit-xml={report}", "--durations=40", "-q"]
        if tier == "unit":  # the tier that starts nothing: its tests do not fight for the machine
            command += ["-n", "2", *(f"--cov={package}" for package in COVERED)]
            command += ["--cov-report=term:skip-covered", f"--cov-fail-under={COVERAGE_FLOOR}"]
        if tier in ("models", "kubernetes"):  # two workers, each file's tests in one: one core, one control plane each
            command += ["-n", "2", "--dist", "loadfile"]
        if tier in SHORT:
            command += ["-m", "not long"]
        code = _call(command, output)
        outcome = Outcome(tier, ok=code == 0)
        if report.exists():
            suite = ElementTree.parse(report).getroot().find("testsuite")
            if suite is not None:
                outcome.failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
                outcome.skipped = int(suite.get("skipped", 0))
                outcome.passed = int(suite.get("tests", 0)) - outcome.failed - outcome.skipped
                outcome.failures = [
                    _told(case, bad) for case in suite for bad in case if bad.tag in ("failure", "error")
                ]
        return outcome


def _told(case: ElementTree.Element, bad: ElementTree.Element) -> str:
    return f"{case.get('classname')}::{case.get('name')}\n{(bad.text or '')[-SHOWN_CHARACTERS:]}"


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


def run_beside(tiers: list[str], main: str) -> list[Outcome]:
    """Run TIERS, one after the other, beside MAIN; what each of them printed is shown in the end."""
    print(f"\n=== {', '.join(tiers)} === (beside what follows; shown when it is over)", flush=True)
    with ExitStack() as files:
        outputs = {tier: files.enter_context(tempfile.TemporaryFile()) for tier in tiers}
        lane = ThreadPoolExecutor(max_workers=1)
        files.callback(lane.shutdown, cancel_futures=True)  # after Ctrl-C the next tier must not begin
        beside = {tier: lane.submit(run, tier, output) for tier, output in outputs.items()}
        outcomes = [run(main)]
        for tier, outcome in beside.items():
            while not wait([outcome], HEARTBEAT_SECONDS).done:
                print(f"... the {tier} tier still runs", flush=True)
            outputs[tier].seek(0)
            print(f"\n=== {tier} ===\n{outputs[tier].read().decode(errors='replace')}", flush=True)
            outcomes.append(outcome.result())
    return outcomes


def run_all(tiers: list[str]) -> list[Outcome]:
    """Run TIERS in their order, those that mostly wait beside the one that computes."""
    beside = [tier for tier in tiers if tier in BESIDE]
    if not beside or MAIN not in tiers:
        return [run(tier) for tier in tiers]
    return [*(run(tier) for tier in tiers if tier not in (*BESIDE, MAIN)), *run_beside(beside, MAIN)]


def main() -> int:
    """Run the tiers named on the command line."""
    # A shell that runs us in the background has us ignore Ctrl-C, and so would all processes of the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    outcomes = run_all(sys.argv[1:])
    failures = [failure for o in outcomes for failure in o.failures]
    for failure in failures[:SHOWN_FAILURES]:
        print(f"\n--- failed: {failure}")
    if len(failures) > SHOWN_FAILURES:
        print(f"\n--- and {len(failures) - SHOWN_FAILURES} more: see above")
    print("\ntier        passed  failed  skipped  seconds")
    for o in outcomes:
        words = f"left out: {o.left_out}" if o.left_out else (SHORT.get(o.tier, "") if o.ok else "FAILED")
        print(f"{o.tier:<12}{o.passed:>6}{o.failed:>8}{o.skipped:>9}{o.seconds:>9.0f}  {words}")
    if not any(o.left_out for o in outcomes):
        print("No tier was left out." if len(outcomes) > 1 else "")
    print(f"{sum(o.passed for o in outcomes)} passed, {sum(o.failed for o in outcomes)} failed")
    return 0 if all(o.ok for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
