"""What people type is frozen here: commands, options, and how quickly help comes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import typer.main

from headrace.cli.main import app

COMMANDS: dict[str, set[str]] = {
    "init": {"FOLDER", "--output/-o", "--force", "--json"},
    "plan": {"SPEC", "--set", "--json"},
    "split": {"SPEC", "--set", "--json"},
    "models": {"NAME", "--json"},
    "lr-find": {"SPEC", "--from", "--to", "--steps", "--set", "--json"},
    "schema": set(),
    "compile": {"--output/-o", "--json"},
    "run": {"SPEC", "--on", "--set", "--no-cache", "--detach", "--json"},
    "status": {"RUN", "--on", "--json"},
    "logs": {"RUN", "--on", "--follow/-f"},
    "cancel": {"RUN", "--on", "--json"},
    "resume": {"RUN", "--on", "--detach", "--json"},
    "runs": {"--on", "--json"},
    "schedule": {"SPEC", "--cron", "--on", "--name", "--set", "--json"},
    "schedules": {"--on", "--json"},
    "pause": {"SCHEDULE", "--on", "--json"},
    "unpause": {"SCHEDULE", "--on", "--json"},
    "unschedule": {"SCHEDULE", "--on", "--yes/-y", "--json"},
    "deploy": {"MODEL[@ALIAS|/VERSION]", "--name", "--replicas", "--alias", "--yes/-y", "--json"},
    "deployments": {"--on", "--json"},
    "undeploy": {"NAME", "--on", "--yes/-y", "--json"},
    "predict": {"NAME|MODEL@ALIAS", "FILE", "--input", "--output/-o", "--json"},
    "ui": {"--open", "--json"},
    "up": {"--json"},
    "down": {"--yes/-y", "--json"},
    "doctor": {"--json"},
    "backup": {
        *("DEST", "--on", "--include", "--artifacts", "--keep", "--verify", "--json"),
        *("--namespace", "--lease-namespace"),
    },
    "restore": {
        *("SRC", "--on", "--include", "--existing", "--map-store", "--namespace", "--dry-run", "--yes/-y", "--json"),
    },
    "operator": {
        "--namespace",
        "--workers",
        "--metrics-address",
        "--health-address",
        "--leader-election",
        "--lease-namespace",
        "--lease-name",
        "--runtime-image",
        "--mlflow-interval-seconds",
        "--kubeconfig",
        "--service-account-folder",
        "--log-level",
        "--log-format",
    },
    "gc": {"--forget-runs", "--yes/-y", "--json"},
}
HEAVY = ("torch", "torchvision", "ray", "mlflow", "kfp", "pyarrow", "sklearn", "matplotlib")
LAZY = """
import contextlib, io, sys
from headrace.cli.main import execute
assert "rich" not in sys.modules, "rich"
assert "pydantic" not in sys.modules, "pydantic"
with contextlib.redirect_stdout(io.StringIO()) as shown:
    codes = [execute(words.split()) for words in sys.argv[1:]]
print(codes, [name for name in {heavy!r} if name in sys.modules])
"""


def test_commands_and_options_are_these() -> None:
    group: Any = typer.main.get_command(app)
    found = {
        name: {
            "/".join(parameter.opts) if parameter.opts[0].startswith("-") else parameter.metavar
            for parameter in command.params
        }
        for name, command in group.commands.items()
    }
    assert found == COMMANDS


def test_every_command_and_option_says_what_it_does() -> None:
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        assert command.help, name
        assert len(command.help.splitlines()[0]) <= 64, f"{name}: it would be cut in the list of commands"
        assert all(parameter.help for parameter in command.params), name


def test_what_the_base_install_can_do_imports_nothing_heavy(tmp_path: Any) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text('{name: x, task: image-classification, data: {source: "builtin:digits"}, model: resnet8}')
    words = ["--help", f"plan {spec}", "models", "models resnet8", "schema", "run --help"]
    environment = {**os.environ, "HEADRACE_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", LAZY.format(heavy=HEAVY), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[0, 0, 0, 0, 0, 0] []", done.stderr
