"""A model on disk: written, read, proved, loaded. Importing this package imports no torch; what needs it loads late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.base.late import late_names
from headrace_models.package.code import check_code, import_code, pack_code, unpack_code
from headrace_models.package.manifest import PackageManifest, read_package, verify_files
from headrace_models.package.mlflow_facts import mlflow_columns

if TYPE_CHECKING:
    from headrace_models.package.build import build_model, materialise
    from headrace_models.package.load import LoadedModel, load_package
    from headrace_models.package.write import write_package

__all__ = [
    "LoadedModel",
    "PackageManifest",
    "build_model",
    "check_code",
    "import_code",
    "load_package",
    "materialise",
    "mlflow_columns",
    "pack_code",
    "read_package",
    "unpack_code",
    "verify_files",
    "write_package",
]

__getattr__ = late_names(
    __name__,
    {
        "build_model": "build",
        "materialise": "build",
        "LoadedModel": "load",
        "load_package": "load",
        "write_package": "write",
    },
)
