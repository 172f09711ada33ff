"""What every generator of committed files does at its end: write them, or say which of them have drifted."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path


def write_or_check(root: Path, files: Mapping[str, str] | Mapping[Path, str], arguments: list[str]) -> int:
    """Write FILES (path below ROOT: text), or with `--check` in ARGUMENTS compare them; 1 where one has drifted."""
    if "--check" not in arguments:
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        return 0
    drifted = [
        path
        for path, text in files.items()
        if not (root / path).exists() or (root / path).read_text(encoding="utf-8") != text
    ]
    for path in drifted:
        print(f"{path} does not match the code: run 'make generate'", file=sys.stderr)
    return 1 if drifted else 0
