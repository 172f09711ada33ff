"""A user's own model code: packed to one hash, and imported so that two versions of it live in one process.

The folder becomes a package named after its hash (`headrace_code_<hash>`), so nothing of it stands in `sys.modules`
under a plain name. Its files import each other as they do when Python runs in that folder (`import helpers`, `from
layers.block import X`): each module gets an `__import__` of its own that looks into the folder first. Sources are held
in memory, so that a module imported late, inside a function, is still the version that was loaded. What cannot be
caught is a plain name given to `importlib.import_module`: use an import statement.

This module needs no torch.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import importlib.util
import io
import os
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from headrace.base.errors import Finding, InvalidInput
from headrace_models.catalog.names import listed, nearest

PREFIX = "headrace_code_"

KEPT_SUFFIXES = frozenset({".py", ".json", ".yaml", ".yml", ".toml", ".txt", ".cfg", ".ini"})
LARGEST_SIDE_FILE = 1 << 20  # bytes: a larger file that is not Python is data, not code
LARGEST_CODE = 16 << 20  # bytes of all files together: a folder with more is not a folder of code
SKIPPED_FOLDERS = frozenset({"__pycache__", "venv", "env", "node_modules", "site-packages", "mlruns"})


def code_files(folder: Path) -> list[Path]:
    """The files of FOLDER that belong to the code, sorted: Python sources and small settings files beside them.

    Hidden files and folders, environments (a folder with `pyvenv.cfg`), caches and links to folders are left out.
    """
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".")
            and name not in SKIPPED_FOLDERS
            and not name.endswith(".egg-info")
            and not Path(place, name, "pyvenv.cfg").exists()
        ]
        for name in names:
            path = Path(place, name)
            if name.startswith(".") or path.suffix not in KEPT_SUFFIXES or not path.is_file():
                continue
            if path.suffix == ".py" or path.stat().st_size <= LARGEST_SIDE_FILE:
                found.append(path)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _read(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise InvalidInput(
            f"the code folder {folder} does not exist", action="give model.code the folder that holds your model"
        )
    files = code_files(folder)
    if not any(path.suffix == ".py" for path in files):
        raise InvalidInput(f"the code folder {folder} holds no Python file", action="give model.code the right folder")
    total = sum(path.stat().st_size for path in files)
    if total > LARGEST_CODE:
        raise InvalidInput(
            f"the code folder {folder} holds {total >> 20} MiB in {len(files)} files; at most {LARGEST_CODE >> 20} MiB "
            "are taken along",
            action="put the model's code into a folder of its own, away from the data",
        )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def pack_code(folder: str | os.PathLike[str]) -> tuple[str, bytes]:
    """FOLDER's code as (sha256, tar): the same bytes for the same code, wherever and whenever it is packed.

    Raises:
        InvalidInput: there is no such folder, no Python in it, or far too much.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in _read(Path(folder)).items():
            entry = tarfile.TarInfo(name)  # mode 0644, owner 0, time 0
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    data = buffer.getvalue()
    return hashlib.sha256(data).hexdigest(), data


def unpack_code(data: bytes, folder: str | os.PathLike[str]) -> Path:
    """Write a tar that `pack_code` made into FOLDER; returns it. Packing it again gives the same hash."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(target, filter="data")
    return target


# importing


@dataclass(frozen=True)
class _Tree:
    """One version of one folder: its files in memory, and where they lay."""

    package: str
    folder: Path
    files: Mapping[str, bytes]
    top_level: frozenset[str]

    def locate(self, name: str) -> tuple[str | None, bool] | None:
        """(file, is a package) of a dotted NAME inside the folder; no file for a folder without `__init__.py`."""
        path = name.replace(".", "/")
        if f"{path}/__init__.py" in self.files:
            return f"{path}/__init__.py", True
        if f"{path}.py" in self.files:
            return f"{path}.py", False
        if any(file.startswith(f"{path}/") and file.endswith(".py") for file in self.files):
            return None, True
        return None

    def import_function(self) -> Any:
        """An `__import__` that looks into this folder before it looks anywhere else."""

        def folder_import(
            name: str,
            globals: Mapping[str, Any] | None = None,  # noqa: A002  (the interpreter's own names)
            locals: Mapping[str, Any] | None = None,  # noqa: A002
            fromlist: Sequence[str] | None = (),
            level: int = 0,
        ) -> ModuleType:
            top = name.partition(".")[0]
            if level != 0 or top not in self.top_level:
                return builtins.__import__(name, globals, locals, fromlist or (), level)
            leaf = builtins.__import__(f"{self.package}.{name}", globals, locals, fromlist or ("__name__",), 0)
            return leaf if fromlist else sys.modules[f"{self.package}.{top}"]

        return folder_import


class _CodeLoader(ExecutionLoader):
    """Runs one module of a tree, with that tree's `__import__`."""

    def __init__(self, tree: _Tree, file: str | None, is_package: bool) -> None:
        self._tree, self._file, self._is_package = tree, file, is_package

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def get_filename(self, fullname: str) -> str:
        return str(self._tree.folder / (self._file or ""))

    def is_package(self, fullname: str) -> bool:
        return self._is_package

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self._tree.files[self._file]) if self._file else ""

    def get_code(self, fullname: str) -> CodeType | None:
        return self.source_to_code(self.get_source(fullname), self.get_filename(fullname))

    def exec_module(self, module: ModuleType) -> None:
        code = self.get_code(module.__name__)
        assert code is not None
        # Functions look names up in their module's own `__builtins__`, so imports inside them come here too.
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._tree.import_function()}
        exec(code, module.__dict__)  # noqa: S102  (running the user's module is what a loader is for)


class _CodeFinder(MetaPathFinder):
    """Finds `headrace_code_*` and nothing else."""

    def __init__(self) -> None:
        self._trees: dict[str, _Tree] = {}
        self._lock = threading.Lock()

    def add(self, sha256: str, folder: Path) -> _Tree:
        """The tree of that hash; the first folder that brings it is read, once."""
        package = f"{PREFIX}{sha256[:16]}"
        with self._lock:
            if package not in self._trees:
                files = _read(folder)
                tops = {file.partition("/")[0].removesuffix(".py") for file in files if file.endswith(".py")}
                self._trees[package] = _Tree(package, folder.resolve(), files, frozenset(tops - {"__init__"}))
            if self not in sys.meta_path:
                sys.meta_path.insert(0, self)
            return self._trees[package]

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, rest = fullname.partition(".")
        tree = self._trees.get(package) if package.startswith(PREFIX) else None
        if tree is None:
            return None
        if not rest:
            located: tuple[str | None, bool] | None = ("__init__.py" if "__init__.py" in tree.files else None, True)
        else:
            located = tree.locate(rest)
        if located is None:
            return None
        file, is_package = located
        loader = _CodeLoader(tree, file, is_package)
        spec = ModuleSpec(fullname, loader, origin=loader.get_filename(fullname), is_package=is_package)
        spec.has_location = file is not None
        return spec


_FINDER = _CodeFinder()


def split_name(name: str) -> tuple[str, str]:
    """ "my_model:Net" as (module, attribute).

    Raises:
        InvalidInput: NAME has another shape.
    """
    module, colon, attribute = name.partition(":")
    parts = module.split(".")
    if not colon or not attribute.isidentifier() or not all(part.isidentifier() for part in parts):
        raise InvalidInput(
            f"{name!r} does not name a model of your own",
            action='write "module:Class", for example "my_model:Net" for the class Net in my_model.py',
        )
    return module, attribute


def import_code(folder: str | os.PathLike[str], sha256: str, name: str) -> Any:
    """The object NAME ("my_model:Net") of the code in FOLDER, whose hash is SHA256. Safe in any thread.

    Raises:
        InvalidInput: no such module, no such name in it (the nearest ones are given), or the module fails.
    """
    module_name, attribute = split_name(name)
    tree = _FINDER.add(sha256, Path(folder))
    if tree.locate(module_name) is None:
        raise _no_module(module_name, name, tree.files)
    try:
        module = importlib.import_module(f"{tree.package}.{module_name}")
    except Exception as error:
        raise InvalidInput(
            f"importing {module_name} from {folder} failed: {type(error).__name__}: {error}{_line(error, tree.folder)}",
            action="mend it: `python -c 'import " + module_name + "'` in that folder shows the same",
        ) from error
    if not hasattr(module, attribute):
        raise _no_attribute(module_name, attribute, [n for n in vars(module) if not n.startswith("_")])
    return getattr(module, attribute)


def check_code(folder: str | os.PathLike[str], name: str, where: str = "model.name") -> list[Finding]:
    """What is wrong with naming NAME in FOLDER, found by reading the sources only: nothing is imported or run."""
    try:
        module_name, attribute = split_name(name)
        files = _read(Path(folder))
        names = list(_names_in(module_name, files, name))
        if "*" not in names and attribute not in names:
            raise _no_attribute(module_name, attribute, names)
    except InvalidInput as error:
        return list(error.findings) or [Finding(where, error.message, "", error.action)]
    return []


def _names_in(module_name: str, files: Mapping[str, bytes], name: str) -> Iterator[str]:
    path = module_name.replace(".", "/")
    file = next((f for f in (f"{path}.py", f"{path}/__init__.py") if f in files), None)
    if file is None:
        raise _no_module(module_name, name, files)
    try:
        tree = ast.parse(files[file])
    except (SyntaxError, ValueError) as error:
        raise InvalidInput(f"{file} is not Python: {error}", action="mend it") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _no_module(module_name: str, name: str, files: Mapping[str, bytes]) -> InvalidInput:
    modules = sorted(
        f.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for f in files if f.endswith(".py")
    )
    close = nearest(module_name, modules)
    action = f"did you mean {close[0]}?" if close else "name one of the modules that are there"
    return InvalidInput(
        f"the code folder has no module {module_name!r}; it has {listed(module_name, modules)}",
        action=action,
        findings=[Finding("model.name", repr(name), listed(module_name, modules), action)],
    )


def _no_attribute(module_name: str, attribute: str, names: Sequence[str]) -> InvalidInput:
    close = nearest(attribute, names)
    action = f"did you mean {module_name}:{close[0]}?" if close else "name a class of that module"
    return InvalidInput(
        f"{module_name} has no {attribute!r}",
        action=action,
        findings=[Finding("model.name", f"'{module_name}:{attribute}'", ", ".join(close), action)],
    )


def _line(error: BaseException, folder: Path) -> str:
    """Where in the user's folder ERROR came from, as " (file, line 3)"."""
    place, trace = "", error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(folder):
            place = f" ({file.relative_to(folder).as_posix()}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place
