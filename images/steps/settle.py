"""Makes of what uv has put into a folder what an image holds: programs on PATH, nothing needless, compiled bytecode.

    settle.py OUT [NEEDLESS]    NEEDLESS: a file of patterns below dist-packages, one a line (`!` keeps)

Bytecode is of the unchecked kind: Python never compares it with its source, so no file time, no user and no read-only
root can make a pod compile ray or torch anew.
"""

from __future__ import annotations

import compileall
import py_compile
import shutil
import sys
from pathlib import Path

PACKAGES = "usr/local/lib/python3.11/dist-packages"
PROGRAMS = "usr/local/bin"
STANDARD_LIBRARY = "usr/lib/python3.11"


def drop(packages: Path, patterns: list[str]) -> int:
    """Remove what PATTERNS find below PACKAGES, less what those with a `!` find; how many bytes that was."""
    keep = {path for pattern in patterns if pattern.startswith("!") for path in _found(packages, pattern[1:])}
    freed = 0
    for pattern in patterns:
        for path in [] if pattern.startswith("!") else _found(packages, pattern):
            if path not in keep:
                freed += _remove(path)
    return freed


def _found(packages: Path, pattern: str) -> list[Path]:
    found = sorted(packages.glob(pattern))
    if not found:
        raise SystemExit(f"{pattern} finds nothing below {packages}: a package has changed, look what became of it")
    return found


def _remove(path: Path) -> int:
    """Remove PATH, which an earlier pattern may have removed; its bytes."""
    if path.is_dir() and not path.is_symlink():
        size = sum(file.lstat().st_size for file in path.rglob("*"))
        shutil.rmtree(path)
        return size
    size = path.lstat().st_size if path.exists() else 0
    path.unlink(missing_ok=True)
    return size


def patterns_of(file: Path) -> list[str]:
    """The patterns in FILE."""
    lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return [line for line in lines if line]


def gather_programs(out: Path) -> None:
    """Move the programs that uv has put beside the packages to where PATH finds them."""
    beside = out / PACKAGES / "bin"
    (out / PROGRAMS).mkdir(parents=True, exist_ok=True)
    for program in sorted(beside.glob("*")):
        program.rename(out / PROGRAMS / program.name)
    shutil.rmtree(beside, ignore_errors=True)


def compile_below(out: Path) -> None:
    """Compile every module below OUT, under the name that it has in the image."""
    for folder in filter(Path.is_dir, (out / PACKAGES, out / STANDARD_LIBRARY)):
        compileall.compile_dir(
            folder,
            quiet=2,
            workers=0,
            stripdir=out,
            prependdir="/",
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def main() -> None:
    """Settle the folder named first."""
    out, needless = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    gather_programs(out)
    (out / PACKAGES / ".lock").unlink(missing_ok=True)
    compile_below(out)
    for file in needless:  # after compiling, so that a pattern can name bytecode
        print(f"left out {drop(out / PACKAGES, patterns_of(file)) / 1e6:.1f} MB that {file.name} names", flush=True)


if __name__ == "__main__":
    main()
