"""What images are built from: parts of the one lock, and steps that an engine and our packer run alike."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from headrace_testbed.containerfile import Copy, NotUnderstood, Run, oci_config, parse
from headrace_testbed.images import OURS, ROOT, containerfile

STEPS = ROOT / "images" / "steps"
BUILT_HERE = (*OURS, "ray", "postgres")


def step(name: str) -> ModuleType:
    """A step's module. They stand alone in a folder that an image's build copies, so they are no package."""
    sys.path.insert(0, str(STEPS))
    try:
        spec = importlib.util.spec_from_file_location(name, STEPS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(STEPS))


def pins(lock: Path) -> dict[str, str]:
    """Each package of LOCK with its version, marker and hashes."""
    found = re.split(r"\n(?=[a-z])", lock.read_text())
    return {re.match(r"[a-z0-9-]+", each)[0]: " ".join(each.split()) for each in found if "==" in each}  # type: ignore[index]


@pytest.mark.parametrize("lock", [*(containerfile(name).with_name("requirements.lock") for name in (*OURS, "ray"))])
def test_an_images_lock_is_a_part_of_the_one_lock(lock: Path) -> None:
    whole = {name: set(re.findall(r"==\S+|sha256:\w+", pin)) for name, pin in pins(ROOT / "requirements.lock").items()}
    part = {name: set(re.findall(r"==\S+|sha256:\w+", pin)) for name, pin in pins(lock).items()}
    assert part
    assert {name: pin for name, pin in part.items() if pin != whole.get(name)} == {}


@pytest.mark.parametrize("name", BUILT_HERE)
def test_a_containerfile_runs_scripts_of_the_steps_and_a_packer_understands_it_whole(name: str) -> None:
    stages = parse(containerfile(name), {"VERSION": "1"})
    assert list(stages)[-1] == ""
    copied = {
        Path(source).name
        for stage in stages.values()
        for each in stage.steps
        if isinstance(each, Copy)
        for source in each.sources
    }
    commands = [each.command for stage in stages.values() for each in stage.steps if isinstance(each, Run)]
    scripts = {script for command in commands for script in re.findall(r"/steps/(\S+)", command)}
    assert {"tools.sh", "root.py"} <= scripts <= copied
    assert all((STEPS / script).exists() for script in scripts)
    assert all(each.split()[0] in ("sh", "python3.11") for each in commands)


@pytest.mark.parametrize("name", OURS)
def test_our_images_differ_in_their_lists_and_never_in_their_steps(name: str) -> None:
    stages = parse(containerfile(name), {})
    commands = [each.command for stage in stages.values() for each in stage.steps if isinstance(each, Run)]
    expected = parse(containerfile("operator"), {})
    same = [each.command for stage in expected.values() for each in stage.steps if isinstance(each, Run)]
    assert [each.replace(f"headrace-{name}", "NAME") for each in commands] == [
        each.replace("headrace-operator", "NAME") for each in same
    ]


def test_layers_lie_from_the_slowest_to_change_to_the_fastest() -> None:
    for name in OURS:
        image = parse(containerfile(name), {})[""]
        assert image.base == "scratch"
        assert image.steps == [Copy(("/out/",), "/", stage) for stage in ("root", "dependencies", "code")]


def test_what_a_containerfile_says_becomes_the_images_configuration(tmp_path: Path) -> None:
    text = """ARG VERSION=0
FROM scratch
ARG VERSION
COPY --from=root /out/ /
LABEL a.title="Two words" \\
      a.version="${VERSION}"
ENV PATH=/bin HOME=/home
USER 1:2
ENTRYPOINT ["run", "it"]
STOPSIGNAL SIGINT
"""
    stage = parse(_written(tmp_path, text), {"VERSION": "1.2"})[""]
    assert oci_config(stage) == {
        "Labels": {"a.title": "Two words", "a.version": "1.2"},
        "Env": ["PATH=/bin", "HOME=/home"],
        "User": "1:2",
        "Entrypoint": ["run", "it"],
        "StopSignal": "SIGINT",
    }


def _written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "Containerfile"
    file.write_text(text)
    return file


def test_a_command_over_lines_is_one_and_its_caches_are_told_apart(tmp_path: Path) -> None:
    text = "FROM a AS b\nRUN --mount=type=cache,target=/root/.cache/uv \\\n    # a remark\n    sh x.sh && sh y.sh\n"
    assert parse(_written(tmp_path, text), {})["b"].steps == [Run("sh x.sh && sh y.sh", ("/root/.cache/uv",))]


@pytest.mark.parametrize("line", ["ADD a b", "VOLUME /data", "HEALTHCHECK NONE"])
def test_an_instruction_that_is_not_known_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(NotUnderstood, match=f"line 2: {line.split()[0]}"):
        parse(_written(tmp_path, f"FROM a AS b\n{line}\n"), {})


def test_an_instruction_before_the_first_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotUnderstood, match="line 1: RUN"):
        parse(_written(tmp_path, "RUN true\n"), {})


def test_a_package_that_one_list_names_is_not_left_out_by_another(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("# remark\npython3 # why\n-dpkg\n-libacl1\n/usr/lib/x*  # files\n")
    (tmp_path / "b").write_text("libacl1\n")
    want = step("root").wanted([tmp_path / "a", tmp_path / "b"])
    assert (want.names, want.without, want.needless) == (["python3", "libacl1"], {"dpkg"}, ["usr/lib/x*"])


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for name in ("a/tests/test_a.py", "a/__init__.py", "a/lexers/python.py", "a/lexers/cobol.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("12345")
    return tmp_path


def left(packages: Path) -> list[str]:
    return sorted(str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file())


def test_what_is_needless_goes_but_what_is_kept_by_name(packages: Path) -> None:
    freed = step("settle").drop(packages, ["*/tests", "a/lexers/*", "!a/lexers/python.py"])
    assert freed == 10
    assert left(packages) == ["a/__init__.py", "a/lexers/python.py"]


def test_a_pattern_that_finds_nothing_stops_the_build(packages: Path) -> None:
    with pytest.raises(SystemExit, match="a package has changed"):
        step("settle").drop(packages, ["b/tests"])
