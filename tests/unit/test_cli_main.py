"""How commands end: exit codes, one line of what happened, one of what to do, one JSON object."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.base import errors
from headrace.cli.confirm import confirm
from headrace.cli.failure import as_headrace_error
from headrace.cli.main import execute
from headrace.cli.output import RUN_RECORD, Output, seconds, size, table
from headrace.spec import load_spec
from headrace.spec.yaml_reader import parse_value, read_yaml
from headrace_models.catalog import listed, models

GOOD = '{name: x, task: image-classification, data: {source: "builtin:digits"}, model: resnet8}'


class Shell:
    """Runs commands in this process, on real file descriptors."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self.out = self.err = ""

    def __call__(self, *words: str) -> int:
        stdout, stream = os.dup(1), sys.stdout
        try:
            code = execute(list(words))
        finally:
            os.dup2(stdout, 1)
            sys.stdout = stream
            os.close(stdout)
        self.out, self.err = self._capture.readouterr()
        return code

    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def shell(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Shell(capfd)


def broken(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `headrace deployments` meet ERROR."""

    def fails() -> Any:
        raise error

    monkeypatch.setattr("headrace.local.deployments.deployments", fails)


def test_a_bad_spec_ends_with_2_and_every_finding_in_the_json(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(GOOD.replace("resnet8", "resnt8").replace("digits", "digts"))
    assert shell("run", "bad.yaml", "--json") == 2
    record = shell.json()
    assert set(record) == set(RUN_RECORD)
    assert {finding["where"] for finding in record["findings"]} == {"data.source", "model"}
    assert record["error"]["code"] == "spec-invalid"
    assert (record["state"], record["run_id"]) == ("failed", None)
    assert "write `resnet8`" in shell.err
    assert "Traceback" not in shell.err


def test_the_same_for_people_goes_to_stderr(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(GOOD.replace("resnet8", "resnt8"))
    assert shell("plan", "bad.yaml", "--set", "train.epoch=2") == 2
    assert shell.out == ""
    assert shell.err.splitlines() == [
        "error: bad.yaml has 2 mistakes",
        "  --set train.epoch: unknown key, with 2",
        *shell.err.splitlines()[2:3],
        "      write `epochs`",
        '  model: no model "resnt8"',
        f"      allowed: {listed('resnt8', models())}",
        "      write `resnet8`",
        "  do: mend them and run again",
    ]


@pytest.mark.parametrize(
    ("words", "message", "action"),
    [
        (["rnu"], "there is no command 'rnu'", "did you mean `headrace run`?"),
        (["xyzzy"], "there is no command 'xyzzy'", "headrace --help lists them"),
        (["run"], "Missing argument", "see headrace run --help"),
        (["run", "x.yaml", "--jsno"], "No such option", "see headrace run --help"),
        (["deploy", "x", "--replicas", "0"], "Invalid value", "see headrace deploy --help"),
        (["run", "x.yaml", "--on", "moon"], "there is no target 'moon'; there is: local", "leave out --on"),
        (["run", "gone.yaml"], "gone.yaml has a mistake", "mend it"),
        (["status", "x"], "'x' is not a run's id", "`headrace runs` lists them"),
        (["logs", "x-aaaaaaaa"], "there is no run x-aaaaaaaa", "`headrace runs` lists them"),
        (["models", "resnt8"], "there is no model called 'resnt8'", "did you mean resnet8?"),
        (["undeploy", "x"], "nothing is served as 'x'", "`headrace deployments` lists what is"),
        (["predict", "x@y", "--input", "p"], "a batch needs --input and --output", "headrace predict MODEL@ALIAS"),
        (["init", "nowhere"], "", ""),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_to_do(shell: Shell, words: list[str], message: str, action: str) -> None:
    assert shell(*words) == 2
    assert message in shell.err
    assert action in shell.err
    assert "Traceback" not in shell.err
    assert shell.out == ""


def test_more_workers_than_there_are_cores_is_refused_before_a_run_is_made(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    many = ("--set", "train.workers=100000", "--set", "train.batch_size=100000")
    assert shell("run", "good.yaml", *many, "--json") == 2
    assert shell.json()["error"]["code"] == "not-enough-resources"
    assert "100000" in shell.err
    assert shell("runs", "--json") == 0
    assert shell.json()["runs"] == []


def test_wrong_usage_is_json_where_json_was_asked_for(shell: Shell) -> None:
    assert shell("status", "--json") == 2
    assert shell.json()["error"]["code"] == "usage"
    assert shell("deployments", "--json", "--nonsense") == 2
    assert set(shell.json()) == {"schema_version", "error", "findings"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RunFailed("it broke", action="look"), 1),
        (errors.NotEnoughResources("too much", action="less"), 2),
        (errors.GateRefused("not good enough", action="train longer"), 3),
        (errors.Unavailable("not there", action="start it"), 4),
        (errors.Cancelled("stopped", action="resume"), 130),
        (KeyboardInterrupt(), 130),
        (ValueError("unforeseen\n  by all"), 1),
        (ModuleNotFoundError("No module named 'ray'", name="ray.serve"), 2),
        (PermissionError(13, "Permission denied", "/x"), 1),
    ],
)
def test_each_error_has_its_exit_code_and_its_json(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    broken(monkeypatch, error)
    assert shell("deployments", "--json") == code
    assert shell.json()["error"]["message"]
    assert "Traceback" not in shell.err
    assert shell("deployments") == code
    assert shell.out == ""
    assert "Traceback" not in shell.err


def test_the_traceback_is_in_the_log_that_is_named_and_on_screen_only_with_debug(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, ValueError("unforeseen"))
    assert shell("deployments") == 1
    happened, do, log = shell.err.splitlines()
    assert happened == "error: ValueError: unforeseen"
    assert "report it" in do
    path = Path(log.removeprefix("  log: "))
    assert "Traceback" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert shell("deployments", "--debug") == 1
    assert "Traceback" in shell.err


def test_a_log_that_grew_large_is_put_aside(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, ValueError("unforeseen"))
    monkeypatch.setattr("headrace.cli.failure.LOG_LARGEST_BYTES", 10)
    shell("deployments")
    shell("deployments")
    logs = Path(os.environ["HEADRACE_HOME"], "logs")
    assert sorted(path.name for path in logs.iterdir()) == ["cli.log", "cli.log.1"]


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [
        ("torch", "predict", "train"),
        ("pyarrow.parquet", "split", "train"),
        ("kfp", "compile", "pipelines"),
        ("ray", "up", "train"),
        ("mlflow", "run", "all"),
    ],
)
def test_a_package_that_is_missing_names_the_extra_that_brings_it(module: str, command: str, extra: str) -> None:
    error = as_headrace_error(ModuleNotFoundError(name=module), command)
    assert isinstance(error, errors.MissingExtra)
    assert error.action == f"pip install 'headrace[{extra}]'"
    assert f"headrace {command}" in error.message


def test_a_package_of_nobody_is_no_missing_extra() -> None:
    assert as_headrace_error(ModuleNotFoundError("No module named 'x'", name="x"), "run").code == "internal"
    assert "reinstall" in as_headrace_error(ModuleNotFoundError(name="headrace.nothing"), "run").action


def test_what_libraries_print_never_reaches_stdout_in_json_mode(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy() -> list[Any]:
        print("from python")
        os.write(1, b"from C\n")
        return []

    monkeypatch.setattr("headrace.local.deployments.deployments", noisy)
    assert shell("deployments", "--json") == 0
    assert shell.json() == {"schema_version": 1, "deployments": []}
    assert "from python" in shell.err
    assert "from C" in shell.err


def test_reports_for_people_go_to_stdout(shell: Shell) -> None:
    assert shell("models") == 0
    assert "resnet8" in shell.out
    assert shell("models", "resnet8") == 0
    assert "activation" in shell.out
    assert shell("runs") == 0
    assert shell.out == "no runs yet: headrace run SPEC\n"
    assert shell("deployments") == 0
    assert "nothing is served" in shell.out
    assert shell("schema") == 0
    assert shell.json()["type"] == "object"
    assert shell("--version") == 0
    assert shell.out.startswith("headrace ")


def test_the_list_of_models_shows_size_source_and_what_to_expect(shell: Shell) -> None:
    assert shell("models") == 0
    lines = {line.split()[0]: line for line in shell.out.splitlines() if line.strip()}
    assert "138,357,544" in lines["vgg16"]
    assert "Simonyan & Zisserman 2014" in lines["vgg16"]
    assert "digits: accuracy" in lines["resnet8"]
    assert max(map(len, shell.out.splitlines())) <= 180
    assert shell("models", "--json") == 0
    (record,) = [record for record in shell.json()["models"] if record["name"] == "googlenet"]
    assert record["parameters"] == 13_004_888
    assert record["tasks"] == ["image-classification"]


def test_a_model_shows_arguments_shapes_and_a_small_size_that_is_valid(shell: Shell, tmp_path: Path) -> None:
    assert shell("models", "vgg16") == 0
    for words in (
        "138,357,544",
        "[batch, channels, height, width]",
        "batch_norm: boolean = false",
        "(above 0, at most 8)",
    ):
        assert words in shell.out
    small = next(line for line in shell.out.splitlines() if line.startswith("  model: {name: vgg16, width"))
    (tmp_path / "pictures").mkdir()
    text = "name: small\ntask: image-classification\ndata: {source: ./pictures}\n" + small.strip() + "\n"
    (tmp_path / "spec.yaml").write_text(text)
    assert load_spec(tmp_path / "spec.yaml").model.args["width"] == 0.125


@pytest.mark.parametrize("name", models())
def test_a_model_shows_all_that_a_spec_needs_and_specs_that_are_valid(shell: Shell, tmp_path: Path, name: str) -> None:
    for folder in ("pictures", "videos"):
        (tmp_path / folder).mkdir()
    (tmp_path / "table.csv").write_text("a,LABEL\n")
    assert shell("models", name, "--json") == 0
    record, card = shell.json(), models()[name]
    assert record["source"]
    assert record["expect"]
    assert set(record["shapes"]) == set(card.tasks)
    assert all(shapes["inputs"] and shapes["outputs"] for shapes in record["shapes"].values())
    assert [argument["name"] for argument in record["arguments"]] == list(card.args.model_fields)
    assert all(argument["description"] and argument["type"] != "any" for argument in record["arguments"])
    plain = read_yaml(record["spec"]).value
    also = [{key: parse_value(text) for key, text in place.items()} for place in record["also"]]
    places: list[dict[str, Any]] = [{}, *also]
    assert len(places) == (1 if card.together else len(card.tasks))
    for place in places:
        (tmp_path / "spec.yaml").write_text(json.dumps({**plain, **place}))
        assert load_spec(tmp_path / "spec.yaml").model.name == name
    (tmp_path / "spec.yaml").write_text(json.dumps({**plain, "model": {"name": name, **record["small"]}}))
    assert load_spec(tmp_path / "spec.yaml").to_record()["model"]["args"].keys() == record["small"].keys()
    assert shell("models", name) == 0
    for part in (record["source"], record["expect"], *(place["data"] for place in record["also"])):
        assert part in shell.out


def test_where_nobody_can_be_asked_yes_is_required(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    served = [{"name": "x", "version": "3", "model": "m", "url": "u", "error": None}]
    removed: list[str] = []
    monkeypatch.setattr("headrace.local.deployments.deployments", lambda: served)
    monkeypatch.setattr("headrace.local.deployments.undeploy", lambda name, tell: removed.append(name))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert shell("undeploy", "x") == 2
    assert "x: version 3 of m -> nothing" in shell.err
    assert "add --yes" in shell.err
    assert removed == []
    assert shell("undeploy", "x", "--yes", "--json") == 0
    assert shell.json()["removed"] is True
    assert removed == ["x"]


@pytest.mark.parametrize(("answer", "goes_on"), [("y\n", True), ("yes\n", True), ("\n", False), ("no\n", False)])
def test_a_person_is_shown_the_change_and_asked(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: str, goes_on: bool
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    monkeypatch.setattr("sys.stdin", Terminal())
    if goes_on:
        confirm(Output(), ["a -> b"], yes=False)
    else:
        with pytest.raises(errors.Cancelled):
            confirm(Output(), ["a -> b"], yes=False)
    assert "a -> b" in capfd.readouterr().err


def test_tables_align_and_numbers_stand_to_the_right() -> None:
    assert table(("name", "count"), [("a", 5), ("long", 12345), ("b", None)]) == (
        "NAME  COUNT\na         5\nlong  12345\nb         -"
    )
    assert table(("name",), []) == "NAME"


def test_sizes_and_times_have_units() -> None:
    assert [size(value) for value in (0, 1023, 1024, 5 << 30, None)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 GiB",
        "unknown",
    ]
    assert [seconds(value) for value in (None, 3.14, 75.0, 3700.0)] == ["", "3.1 s", "1:15", "1:01:40"]
