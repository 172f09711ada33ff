"""`make zoo`: every system of the zoo from data to an answering endpoint, by the command a person would type.

Each spec of examples/zoo goes through `headrace run` with two Ray workers, in a home of its own where nothing is
cached; then tritonclient sends the endpoint one V2 request made of test samples, whose answer must be the registered
package's own. What came of it is kept in docs/models/zoo.json, a row a spec, from which docs/models/zoo.md is written.

    make zoo                               # all, one after the other: about three quarters of an hour on two cores
    make zoo ONLY="yolo unet"              # these; the other rows stay as they were
    make zoo BCCD=FOLDER                   # where Shenggan/BCCD_Dataset lies; its specs are left out where it is not
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SPECS = ROOT / "examples" / "zoo"
KEPT = ROOT / "docs" / "models" / "zoo.json"
TABLE = ROOT / "docs" / "models" / "zoo.md"
HEADRACE = str(Path(sys.executable).with_name("headrace"))
COLUMNS = (
    *("spec", "model", "parameters", "data", "steps", "seconds", "load", "test metric", "to reach"),
    *("registered", "answer", "commit"),
)
WORKERS = 2
ROWS = 8  # most samples of the request

# What a system has to reach: on the spec's own data, or in general.
# (metric, at least, what else is known of it)
DIGITS = ("accuracy", 0.97, "")
SHAPES = ("map50", 0.70, "")
TO_REACH: Mapping[str, tuple[str, float | None, str]] = {
    "builtin:digits": DIGITS,
    "builtin:shapes": SHAPES,
    "resnet8": ("accuracy", 0.98, ""),
    "bccd-yolo": ("map50", 0.80, ".88 in 90 s with 431k parameters"),
    "bccd-ssd": ("map50", 0.80, ""),
    "bccd-faster-rcnn": ("map50", 0.80, ".86 in 110 s"),
    "bccd-fast-rcnn": ("map50", 0.60, ""),
    "bccd-rcnn": ("map50", 0.50, ""),
    "multi-task": (
        "image-classification.accuracy",
        None,
        "accuracy .942, IoU .908 on other pictures of digits with masks",
    ),
    "transfer": (
        "accuracy",
        None,
        "better than from scratch: .540 here; on halves of CIFAR .62 to .64 where scratch has .57",
    ),
    "tracking-sort": ("mota", None, "on TUD-Campus MOTA .627 (tests/models, given the detections)"),
}


def main() -> int:
    """Run the specs, keep their rows, and write the table; 1 if a spec failed or fell short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="names of specs; none: all")
    parser.add_argument("--bccd", help="the folder of the blood cells, with Annotations and JPEGImages")
    parser.add_argument("--table", action="store_true", help="run nothing, only write the table from the rows kept")
    given = parser.parse_args()
    specs = chosen(given.only)
    if not given.table:
        # A home's path must be short: Ray puts sockets into it.
        home = Path(tempfile.mkdtemp(prefix="hz", dir="/tmp" if Path("/tmp").is_dir() else None))  # noqa: S108
        os.environ["HEADRACE_HOME"] = str(home)
        try:
            for place, path in enumerate(specs, 1):
                print(f"\n== {path.stem} ({place} of {len(specs)})", flush=True)
                row = run(path, given.bccd)
                keep(row)
                print(f"   {verdict(row)}", flush=True)
        finally:
            subprocess.run([HEADRACE, "down", "--yes"], check=False)
            shutil.rmtree(home, ignore_errors=True)
    rows = kept()
    if rows:
        TABLE.write_text(page(rows), encoding="utf-8")
        print(f"\n{TABLE.relative_to(ROOT)}: {len(rows)} of {len(chosen([]))} specs")
    wrong = [row for row in rows if row["spec"] in {path.stem for path in specs} and is_wrong(row)]
    for row in wrong:
        print(f"{row['spec']}: {verdict(row)}")
    return 1 if wrong else 0


def chosen(names: Sequence[str]) -> list[Path]:
    """The specs called NAMES, or all, in the table's order."""
    paths = {path.stem: path for path in sorted(SPECS.glob("*.yaml"))}
    if unknown := sorted(set(names) - set(paths)):
        sys.exit(f"there is no spec {', '.join(unknown)} in {SPECS.relative_to(ROOT)}; there are: {', '.join(paths)}")
    return [paths[name] for name in names or paths]


def kept() -> list[dict[str, Any]]:
    """The rows that there are, in the table's order; those of specs that are gone are left out."""
    rows = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    return [rows[path.stem] for path in chosen([]) if path.stem in rows]


def keep(row: Mapping[str, Any]) -> None:
    """Put ROW in the place of an older one, if there is one; one that was left out replaces none."""
    rows = {each["spec"]: each for each in kept()}
    if "left_out" not in row or row["spec"] not in rows:
        rows[row["spec"]] = row
    KEPT.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", encoding="utf-8")


# one system


def run(path: Path, bccd: str | None) -> dict[str, Any]:
    """The row of the spec at PATH: what `headrace run` and one request to its endpoint came to."""
    from headrace.spec import load_spec

    row: dict[str, Any] = {"spec": path.stem, "at": datetime.now(UTC).isoformat(timespec="seconds"), **circumstances()}
    row["learns"] = learns(path)
    settings = [f"train.workers={WORKERS}"]
    if path.stem.startswith("bccd-"):
        source = Path(bccd).resolve() if bccd else (SPECS / _source(path)).resolve()
        if not (source / "Annotations").is_dir():
            return {**row, "left_out": "the pictures of blood cells are not on this machine (BCCD=FOLDER)"}
        settings.append(f"data.source={source}")
    given = load_spec(path, overrides=settings).to_record()
    row.update(tasks=[task["name"] for task in given["tasks"]], model=given["model"]["name"], data=_source(path))
    command = [HEADRACE, "run", str(path), *(word for one in settings for word in ("--set", one)), "--json"]
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    row["run_seconds"] = time.monotonic() - started
    result = json.loads(done.stdout) if done.stdout.strip() else {}
    row["metrics"] = result.get("metrics") or {}
    if done.returncode != 0:
        said = result.get("error") or {}
        return {**row, "error": said.get("message") or f"headrace run ended with {done.returncode}"}
    row["train_seconds"] = next(step["seconds"] for step in result["steps"] if step["name"] == "train")
    row["version"] = f"{result['model']['name']} {result['model']['version']}"
    try:
        row.update(learned(given, result))
        row["answer"], row["answered_rows"] = ask(result)
    except Exception as error:  # told in its row, and the next spec's turn
        row["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
    finally:
        undeploy = [HEADRACE, "undeploy", result["endpoint"]["model"], "--yes"]
        subprocess.run(undeploy, check=False, stdout=subprocess.DEVNULL)
    return row


def learns(path: Path) -> str:
    """A hash of what the spec at PATH says of its training: a row with another one is out of date."""
    from headrace.base.jsonfile import sha256_of
    from headrace.spec.yaml_reader import read_yaml

    whole = read_yaml(path.read_text(encoding="utf-8")).value
    return sha256_of({part: whole.get(part) for part in ("task", "data", "model", "train")})[:12]


def circumstances() -> dict[str, Any]:
    """The machine as the run finds it."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processor = names[0] if names else platform.machine()
    return {
        "machine": f"{len(os.sched_getaffinity(0))} cores of an {processor}, {memory:.0f} GiB, no GPU",
        "load": round(os.getloadavg()[0], 1),
        "commit": commit.stdout.strip(),
    }


def learned(given: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """Steps of the training, and the size of the network that came of it."""
    from headrace.training.batches import share_out
    from headrace_models.package.load import load_package

    client, version = _version(result)
    history = client.get_metric_history(version.run_id, "train.samples_per_second")
    manifest = _manifest(version)
    sizes = [len(manifest.shard("train", rank, WORKERS)) for rank in range(WORKERS)]
    batches = share_out(int(given["train"]["batch_size"]), sizes).batches
    model = load_package(version.tags["headrace.package_uri"]).model
    return {
        "epochs": len(history),
        "steps": len(history) * batches,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trained_on": sum(sizes),
    }


def ask(result: Mapping[str, Any]) -> tuple[str, int]:
    """The endpoint's answer to one V2 request of test samples, in words, and how many samples they were.

    Raises:
        AssertionError: the registered package itself answers otherwise.
    """
    import numpy as np
    import tritonclient.http as v2
    from tritonclient.utils import np_to_triton_dtype

    from headrace_models.package.load import load_package

    _, version = _version(result)
    package = load_package(version.tags["headrace.package_uri"])
    shard = _manifest(version).shard("test", 0, 1)
    places = list(package.task.to_show(len(shard), shard.label))[:ROWS]
    arrays = package.task.request([shard[place] for place in places])
    tensors = []
    for name, array in arrays.items():
        tensors.append(v2.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        tensors[-1].set_data_from_numpy(array)
    endpoint = result["endpoint"]
    with v2.InferenceServerClient(endpoint["url"].partition("://")[2], network_timeout=120) as client:
        answer = client.infer(endpoint["model"], tensors)
    expected = package.predict(arrays)
    said = {}
    for name, array in expected.items():
        given = answer.as_numpy(name)
        if array.dtype == object:
            given = np.array([each.decode() for each in given.ravel()], dtype=object).reshape(array.shape)
            assert (given == array).all(), f"{name}: the endpoint says {given}, the package {array}"
        else:
            np.testing.assert_allclose(given, array, rtol=1e-3, atol=1e-3, err_msg=name)
        said[name] = given[0]
    return "; ".join(f"{name} {_word(value)}" for name, value in said.items()), len(places)


def _word(value: Any) -> str:
    if getattr(value, "shape", ()):
        return "x".join(map(str, value.shape))
    return f"{value:.3g}" if hasattr(value, "dtype") and value.dtype.kind == "f" else str(value)


def _version(result: Mapping[str, Any]) -> tuple[Any, Any]:
    import mlflow

    client = mlflow.MlflowClient(result["mlflow"]["tracking_uri"])
    return client, client.get_model_version(result["model"]["name"], result["model"]["version"])


def _manifest(version: Any) -> Any:
    from headrace.base import home
    from headrace.data import Manifest
    from headrace.store import Store

    return Manifest(Store(home.store_url()), version.tags["headrace.split_fingerprint"])


def _source(path: Path) -> str:
    import yaml

    return str(yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["source"])


# the table


def reach(row: Mapping[str, Any]) -> tuple[str, float | None, str]:
    """What the system of ROW has to reach."""
    return TO_REACH.get(row["spec"]) or TO_REACH.get(row.get("data", "")) or ("", None, "")


def is_wrong(row: Mapping[str, Any]) -> bool:
    """Whether the system failed, or fell short of what it has to reach."""
    metric, least, _ = reach(row)
    if "left_out" in row or "error" in row or least is None:
        return "error" in row
    return not row["metrics"].get(metric, 0.0) >= least  # so that what is no number falls short as well


def verdict(row: Mapping[str, Any]) -> str:
    """ROW in a line."""
    if "left_out" in row:
        return f"left out: {row['left_out']}"
    if "error" in row:
        return f"FAILED: {row['error']}"
    _, least, _ = reach(row)
    short = f", SHORT of {least}" if is_wrong(row) else ""
    return f"{_metrics(row)}{short}; train step {row['train_seconds']:.0f} s; answered {row['answer']}"


def _metrics(row: Mapping[str, Any]) -> str:
    from headrace_models import catalog

    several = len(row["tasks"]) > 1
    names = [(f"{name}." if several else "") + catalog.tasks()[name].primary_metric for name in row["tasks"]]
    return ", ".join(f"{name} {row['metrics'][name]:.3f}" for name in names if name in row["metrics"])


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """docs/models/zoo.md."""
    done = [row for row in rows if "left_out" not in row]
    machines = sorted({row["machine"] for row in done})
    days = sorted({row["at"][:10] for row in done})
    lines = [
        "# What every system of the zoo reached",
        "",
        "Written by `make zoo`: each spec of [examples/zoo](../../examples/zoo) through `headrace run` with two Ray",
        "workers (split, train, judge, register, deploy), then one V2 request by tritonclient, whose answer was the",
        "registered package's own. *Seconds* are those of the train step, in brackets those of the whole command;",
        "*load* is the machine's load average just before, the end of the spec before included: above 4, other work",
        "shared the cores and the seconds are too many. *To reach* is what the project has set itself for the small",
        "size, and what else is known.",
        "",
        f"Machine: {'; '.join(machines)}. Days: {', '.join(days)}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
        *(_line(row) for row in rows),
        "",
    ]
    return "\n".join(lines)


def _line(row: Mapping[str, Any]) -> str:
    spec = f"[{row['spec']}](../../examples/zoo/{row['spec']}.yaml)"
    if "left_out" in row:
        return f"| {spec} | | | | | | | {row['left_out']} | | | | |"
    data = "BCCD" if row["spec"].startswith("bccd-") else row["data"]
    if "error" in row:
        told = f"**failed**: {row['error']}"
        return f"| {spec} | {row['model']} | | {data} | | | {row['load']} | {told} | | | | {row['commit']} |"
    metric, least, more = reach(row)
    goal = f"{metric} ≥ {least}" if least is not None else ""
    goal = f"{goal} ({more})" if goal and more else goal or more or "-"
    metrics = f"**{_metrics(row)}**" if is_wrong(row) else _metrics(row)
    return (
        f"| {spec} | {row['model']} | {row['parameters']:,} | {data}, {row['trained_on']:,} | {row['steps']:,} "
        f"| {row['train_seconds']:.0f} ({row['run_seconds']:.0f}) | {row['load']} | {metrics} | {goal} "
        f"| {row['version']} | {row['answered_rows']} rows; the first: {row['answer']} | {row['commit']} |"
    )


if __name__ == "__main__":
    sys.exit(main())
