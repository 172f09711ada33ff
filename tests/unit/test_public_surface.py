"""The public surface: five names, and an import that brings nothing."""

from __future__ import annotations

import subprocess
import sys

import headrace

HEAVY = ("torch", "ray", "mlflow", "kfp", "numpy", "pandas", "pyarrow", "pydantic", "httpx", "fsspec", "yaml", "typer")


def test_the_public_surface_is_these_five_names() -> None:
    assert headrace.__all__ == ["load_model", "load_spec", "plan", "predict", "run"]
    assert all(callable(getattr(headrace, name)) and getattr(headrace, name).__doc__ for name in headrace.__all__)


def test_importing_headrace_imports_none_of_what_it_can_do_without() -> None:
    code = f"import sys, headrace; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_importing_tracking_imports_no_mlflow_and_no_torch() -> None:
    code = (
        "import sys, headrace.tracking, headrace.tracking.registry, headrace.tracking.service, headrace.tracking.ui\n"
        "print([name for name in ('torch', 'mlflow', 'pandas', 'sqlalchemy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
