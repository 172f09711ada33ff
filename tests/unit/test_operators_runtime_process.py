"""`headrace operator` where its extra is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("missing", ["aiohttp", "prometheus_client"])
def test_without_its_extra_it_says_what_to_install(missing: str, tmp_path) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from headrace.cli.main import execute\n"
        "sys.exit(execute(['operator']))"
    )
    env = {"HEADRACE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'headrace[operator]'" in done.stderr
