"""Reads our Containerfiles, so that a machine without a container engine builds from the very files that engines read.

Only what those files use is known; anything else is refused by name and line, never passed over. Pure: text to values.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_CONFIGURED = ("ENV", "LABEL", "USER", "WORKDIR", "STOPSIGNAL", "ENTRYPOINT", "CMD")


@dataclass(frozen=True)
class Run:
    """A command of a stage.

    Args:
        command: for /bin/sh.
        caches: folders that outlive the build, by their path in the stage.
    """

    command: str
    caches: tuple[str, ...] = ()


@dataclass(frozen=True)
class Copy:
    """Files that come into a stage: of the build's context, or of another stage."""

    sources: tuple[str, ...]
    target: str
    stage: str | None = None


@dataclass
class Stage:
    """What stands between two FROM."""

    base: str
    steps: list[Run | Copy] = field(default_factory=list)
    configuration: list[tuple[str, str]] = field(default_factory=list)


class NotUnderstood(ValueError):
    """A Containerfile says what this reader does not know."""


def parse(file: Path, arguments: Mapping[str, str]) -> dict[str, Stage]:
    """The stages of FILE by name, the last one as `""`. ARGUMENTS replace the defaults of its ARGs."""
    stages: dict[str, Stage] = {}
    known: dict[str, str] = {}
    stage: Stage | None = None
    for number, line in _lines(file.read_text(encoding="utf-8")):
        word, _, rest = line.partition(" ")
        rest = re.sub(r"\$\{(\w+)\}", lambda found: known.get(found[1], found[0]), rest.strip())
        if word == "ARG":
            name, _, default = rest.partition("=")
            known[name] = arguments.get(name, default or known.get(name, ""))
        elif word == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = stages[name] = Stage(base)
        elif stage is None or word not in ("RUN", "COPY", *_CONFIGURED):
            raise NotUnderstood(f"{file.name}, line {number}: {word} is not known here; known are ARG, FROM, RUN, COPY")
        else:
            _add(stage, word, rest)
    return stages


def _lines(text: str) -> list[tuple[int, str]]:
    """The instructions of TEXT, each on one line, with the number of the line where it begins."""
    found: list[tuple[int, str]] = []
    going_on = False
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        part = line.strip().removesuffix("\\").strip()
        if going_on:
            found[-1] = found[-1][0], f"{found[-1][1]} {part}"
        else:
            found.append((number, part))
        going_on = line.rstrip().endswith("\\")
    return found


def _add(stage: Stage, word: str, rest: str) -> None:
    if word == "RUN":
        mounts = re.findall(r"--mount=type=cache,target=(\S+) ", rest)
        stage.steps.append(Run(re.sub(r"--mount=\S+ ", "", rest).strip(), tuple(mounts)))
    elif word == "COPY":
        parts = shlex.split(rest)
        origin = parts.pop(0).removeprefix("--from=") if parts[0].startswith("--from=") else None
        stage.steps.append(Copy(tuple(parts[:-1]), parts[-1], origin))
    else:
        stage.configuration.append((word, rest))


def oci_config(stage: Stage) -> dict[str, object]:
    """What a container of STAGE runs, as the `config` of an OCI image."""
    config: dict[str, object] = {}
    for word, rest in stage.configuration:
        if word == "ENV":
            config.setdefault("Env", [])
            config["Env"] += shlex.split(rest)  # type: ignore[operator]
        elif word == "LABEL":
            pairs = dict(pair.split("=", 1) for pair in shlex.split(rest))
            config["Labels"] = {**config.get("Labels", {}), **pairs}  # type: ignore[dict-item]
        else:
            key = {"USER": "User", "WORKDIR": "WorkingDir", "STOPSIGNAL": "StopSignal", "ENTRYPOINT": "Entrypoint"}
            config[key.get(word, "Cmd")] = json.loads(rest) if rest.startswith("[") else rest
    return config
