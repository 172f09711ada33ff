"""The compiled pipeline: the same bytes wherever it is compiled, held by a golden file in the tests.

`python -m headrace_pipelines.compiler` writes that file, `--check` says whether it is up to date.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from headrace.base.generated import write_or_check

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
    """Write the golden file, or with --check compare it; 1 where it has drifted."""
    return write_or_check(GOLDEN.parent, {GOLDEN.name: compiled()}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
