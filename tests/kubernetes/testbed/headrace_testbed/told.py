"""What a command says with `--json`, run in this process: each other process imports MLflow anew."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from typing import Any

from headrace.cli.main import execute


def told(*words: str, code: int = 0) -> dict[str, Any]:
    """The JSON that `headrace WORDS --json` prints, in the environment as it is; it must end with CODE."""
    stdout, stream = os.dup(1), sys.stdout
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            ended = execute([*words, "--json"])
        finally:
            os.dup2(stdout, 1)
            sys.stdout = stream
            os.close(stdout)
        file.seek(0)
        said: dict[str, Any] = json.loads(file.read())
    assert ended == code, said
    return said
