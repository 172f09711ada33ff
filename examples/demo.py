"""`make demo`: from data to a served prediction with the commands a person would type, and the seconds of each part.

Nothing here is special to the demo: every step is a `headrace` command, shown as it is run. The endpoint stays up
afterwards, so that you can talk to it; `headrace down` stops everything.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADRACE = str(Path(sys.executable).with_name("headrace"))


def headrace(*arguments: str, quiet: bool = False) -> tuple[str, float]:
    """Run one command, shown; returns its standard output and its seconds. Ends the demo if it fails."""
    print(f"\n$ headrace {' '.join(arguments)}", flush=True)
    started = time.monotonic()
    done = subprocess.run([HEADRACE, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if not quiet:
        print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return done.stdout, time.monotonic() - started


def pictures(folder: Path, count: int) -> list[Path]:
    """COUNT real digits as PNG files, one a class."""
    import fsspec

    files = []
    for digit in range(count):
        first = min(fsspec.filesystem("builtin").ls(f"builtin://digits/{digit}", detail=False))
        target = folder / f"a-{digit}.png"
        with fsspec.open(f"builtin://{first}") as source:
            target.write_bytes(source.read())
        files.append(target)
    return files


def main() -> None:
    """Run the demo."""
    seconds: dict[str, float] = {}
    _, seconds["up (Ray head)"] = headrace("up")
    text, whole = headrace("run", str(HERE / "digits.yaml"), "--json", quiet=True)
    result = json.loads(text)
    for step in result["steps"]:
        seconds[f"run: {step['name']} ({step['state']})"] = step["seconds"] or 0.0
    seconds["run: everything between"] = whole - sum(step["seconds"] or 0.0 for step in result["steps"])
    print(f"accuracy on the held-back test split: {result['metrics']['accuracy']:.4f}")
    print(f"version {result['model']['version']} of {result['model']['name']} answers at {result['endpoint']['url']}")
    with tempfile.TemporaryDirectory() as folder:
        files = [str(path) for path in pictures(Path(folder), 3)]
        answer, seconds["predict (3 pictures)"] = headrace("predict", result["endpoint"]["model"], *files)
    if not answer.strip():
        sys.exit("the endpoint gave no prediction")
    print(f"\n{'part':<32}{'seconds':>8}")
    for part, value in seconds.items():
        print(f"{part:<32}{value:>8.1f}")
    print(f"{'in all':<32}{sum(seconds.values()):>8.1f}")
    print("\nThe endpoint stays up. Next: headrace ui · headrace runs · headrace deployments · headrace down")


if __name__ == "__main__":
    main()
