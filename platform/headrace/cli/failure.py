"""How a command fails: one line of what happened, one of what to do, an exit code, and the traceback in a log file.

The one place that knows which extra brings which foreign package.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from headrace.base.errors import HeadraceError, MissingExtra
from headrace.cli.output import Output, run_record

LOG_LARGEST_BYTES = 1_000_000

EXTRAS = {
    "aiohttp": "operator",
    "kfp": "pipelines",
    "kfp_server_api": "pipelines",
    "kubernetes": "pipelines",
    "kubernetes_asyncio": "operator",
    "prometheus_client": "operator",
    "starlette": "serve",
    **dict.fromkeys(
        (
            "PIL",
            "matplotlib",
            "mlflow",
            "numpy",
            "pandas",
            "psutil",
            "pyarrow",
            "ray",
            "safetensors",
            "scipy",
            "sklearn",
            "torch",
            "torchvision",
        ),
        "train",
    ),
}
UNLOGGED = ("usage", "confirmation-needed", "unknown-target", "spec-invalid", "targets-invalid")  # the words say it all
WHOLE = ("run", "resume")  # commands that need every part
FULL_RECORD = ("run", "status", "resume", "cancel")  # commands whose JSON is a run's record


def as_headrace_error(error: BaseException, command: str) -> HeadraceError:
    """ERROR as one of ours: a missing package names the extra that brings it, the unforeseen is called what it is."""
    if isinstance(error, HeadraceError):
        return error
    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get((error.name or "").split(".")[0])):
        return MissingExtra("all" if command in WHOLE else extra, f"headrace {command}".rstrip())
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("headrace"):
        return HeadraceError(f"{error.name} is not installed", action="pip install --force-reinstall headrace")
    if isinstance(error, OSError) and error.filename is not None:
        return HeadraceError(f"{error.filename}: {error.strerror}", action="check the path and its rights", code="os")
    text = " ".join(str(error).split())[:300]
    return HeadraceError(
        f"{type(error).__name__}: {text}" if text else type(error).__name__,
        action="this is a bug of Headrace, please report it with the log; --debug shows the traceback",
        code="internal",
    )


def write_log(error: BaseException, arguments: list[str]) -> str | None:
    """Add ERROR's traceback to the log of the command line; the log's path, None where it cannot be written."""
    try:
        from headrace.base.home import folder

        path = folder("logs") / "cli.log"
        if path.exists() and path.stat().st_size > LOG_LARGEST_BYTES:
            path.replace(path.with_suffix(".log.1"))
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"\n{time.strftime('%Y-%m-%dT%H:%M:%S%z')} headrace {' '.join(arguments)}\n")
            file.write("".join(traceback.format_exception(error)))
        path.chmod(0o600)
    except OSError:
        return None
    return str(path)


def error_record(error: HeadraceError, log: str | None) -> dict[str, Any]:
    """The `error` and `findings` of a command's JSON object."""
    return {
        "error": {
            "code": error.code,
            "step": None,
            "message": error.message,
            "action": error.action,
            "log": error.log or log,
        },
        "findings": [asdict(finding) for finding in error.findings] or None,
    }


def fail(error: BaseException, *, command: str, arguments: list[str], output: Output, debug: bool) -> int:
    """Tell ERROR; returns the exit code."""
    known = as_headrace_error(error, command)
    log = None if known.code in UNLOGGED else write_log(error, arguments)
    record = error_record(known, log)
    if output.as_json and not output.reported:
        output.write_json(run_record(record) if command in FULL_RECORD else record)
    for line in lines(record):
        output.tell(line)
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    return known.exit_code


def lines(record: Mapping[str, Any]) -> list[str]:
    """An error record as a person reads it; the log is named where looking into it may help."""
    error, findings = record["error"], record.get("findings") or []
    told = [f"error: {error['message']}"]
    for finding in findings:
        told.append(f"  {finding['where']}: {finding['given']}" if finding["given"] else f"  {finding['where']}")
        allowed = f"allowed: {finding['allowed']}" if finding["allowed"] else ""
        told += [f"      {text}" for text in (allowed, finding["action"]) if text]
    if error["action"]:
        told.append(f"  do: {error['action']}")
    if error["log"] and not findings:
        told.append(f"  log: {error['log']}")
    return told
