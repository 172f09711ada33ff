"""The compiled pipeline: the same bytes wherever it is compiled, held by a golden file in the tests.

`python -m headrace_pipelines.compiler` writes that file, `--check` says whether it is up to date.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

GOLDEN = Path(__file__).parents[2] / "tests" / "unit" / "golden" / "pipeline.yaml"


def compile_pipeline(path: str | Path) -> None:
    """Write the pipeline's IR, for any spec, to the file PATH (`.yaml` or `.json`)."""
    from kfp import compiler

    from headrace_pipelines.pipeline import headrace_pipeline

    compiler.Compiler().compile(headrace_pipeline, str(path))


def compiled() -> str:
    """The pipeline's IR as YAML."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compile_pipeline(path)
        return path.read_text(encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Write the golden file, or compare it."""
    text = compiled()
    if "--check" not in arguments:
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(text, encoding="utf-8")
        return 0
    if GOLDEN.exists() and GOLDEN.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{GOLDEN.name} is not what the pipeline compiles to: run 'make generate'\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
