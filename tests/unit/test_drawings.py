"""The drawings of the documentation are what their programs draw now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"
PROGRAMS = sorted(path for path in FOLDER.glob("*.py") if path.stem != "svg")


def drawing(program: Path) -> Path:
    return FOLDER / f"{program.stem.replace('_', '-')}.svg"


def test_every_drawing_has_a_program() -> None:
    assert {drawing(program) for program in PROGRAMS} == set(FOLDER.glob("*.svg"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_what_is_drawn_is_committed(program: Path) -> None:
    drawn = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True).stdout
    assert drawing(program).read_text(encoding="utf-8") == drawn, (
        f"python docs/images/{program.name} > docs/images/{drawing(program).name}"
    )
