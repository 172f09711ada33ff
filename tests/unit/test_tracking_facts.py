"""What is written to MLflow, as values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.base.errors import HeadraceError, InvalidInput, Unavailable
from headrace.tracking import connection, facts, registry

RECORD = {
    "name": "digits",
    "tasks": [{"name": "image-classification", "args": {}}],
    "data": {"label": None, "max_corrupt": 0.01, "features": ["a", "b"]},
    "train": {"optimizer": {"name": "adam", "args": {"lr": 1e-3}}, "early_stop": None, "ema": True},
    "gate": ["accuracy >= 0.95"],
}


def test_a_spec_becomes_parameters_by_dotted_path_without_what_is_empty() -> None:
    assert facts.params(RECORD) == {
        "name": "digits",
        "tasks.0.name": "image-classification",
        "data.max_corrupt": "0.01",
        "data.features": '["a", "b"]',
        "train.optimizer.name": "adam",
        "train.optimizer.args.lr": "0.001",
        "train.ema": "true",
        "gate": '["accuracy >= 0.95"]',
    }


def test_a_long_value_is_cut_to_the_limit_and_still_shows_a_change_at_its_end() -> None:
    one, other = facts.shorten("x" * 10_000, 500), facts.shorten("x" * 9_999 + "y", 500)
    assert len(one) == len(other) == 500
    assert one != other
    assert facts.shorten("short", 500) == "short"


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_every_json_value_becomes_parameters_that_mlflow_takes(value: object) -> None:
    for key, text in facts.params({"x": value}).items():
        assert len(key) <= facts.LONGEST_KEY
        assert len(text) <= facts.LONGEST_PARAM
        assert key == facts.key_of(key)


def test_changed_parameters_are_told_with_both_values() -> None:
    assert facts.changed({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == {"b": ["2", "3"]}


def test_metrics_that_are_no_finite_number_are_left_out() -> None:
    metrics = {"a": 1, "b": float("nan"), "c": float("inf"), "d": None, "e": 0.5, "f@g": 2.0}
    assert facts.finite(metrics) == {"a": 1.0, "e": 0.5, "f_g": 2.0}


def test_a_split_is_one_dataset_input_for_each_side_that_has_samples() -> None:
    sides = facts.datasets(
        "digits",
        "f" * 64,
        schema={"label": "label", "classes": ["0", "1"], "columns": []},
        counts={"train": {"0": 3, "1": 4}, "validation": 2, "test": 0},
        source="builtin:digits",
        sample="image",
    )
    assert [(side.name, side.context) for side in sides] == [
        ("digits.train", "training"),
        ("digits.validation", "validation"),
    ]
    assert {side.digest for side in sides} == {"f" * 36}
    assert json.loads(sides[0].profile) == {"num_rows": 7, "split_fingerprint": "f" * 64, "classes": {"0": 3, "1": 4}}
    assert json.loads(sides[0].schema)["mlflow_colspec"] == [
        {"type": "binary", "name": "image", "required": True},
        {"type": "string", "name": "label", "required": True},
    ]


def test_a_tables_columns_are_the_datasets_schema() -> None:
    record = {"label": "price", "classes": [], "columns": [["rooms", "number"], ["city", "category"]]}
    columns = json.loads(facts.dataset_columns(record, "row"))["mlflow_colspec"]
    assert [(c["name"], c["type"]) for c in columns] == [("rooms", "double"), ("city", "string"), ("price", "double")]


@pytest.mark.parametrize(
    ("source", "kind", "value"),
    [
        ("/data/digits", "local", {"uri": "/data/digits"}),
        ("builtin:digits", "builtin", {"uri": "builtin:digits"}),
        ("s3://bucket/digits", "s3", {"uri": "s3://bucket/digits"}),
        ("https://example.org/d.csv", "http", {"url": "https://example.org/d.csv"}),
    ],
)
def test_a_datasets_source_is_named_in_mlflows_form(source: str, kind: str, value: dict[str, str]) -> None:
    found, text = facts.dataset_source(source)
    assert (found, json.loads(text)) == (kind, value)


def test_requirements_are_pinned_without_local_build_tags_and_without_what_is_missing() -> None:
    assert facts.requirements({"torch": "2.15.0+cpu", "numpy": "2.4.6", "x": None}, ["numpy", "torch", "x"]) == [
        "numpy==2.4.6",
        "torch==2.15.0",
    ]


def test_batches_cover_all_items_within_the_size() -> None:
    assert [list(batch) for batch in facts.batches([1, 2, 3, 4, 5], 2)] == [[1, 2], [3, 4], [5]]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("digits", registry.Reference("digits")),
        ("digits@champion", registry.Reference("digits", alias="champion")),
        ("digits/3", registry.Reference("digits", version="3")),
        ("my.model-1_x/007", registry.Reference("my.model-1_x", version="7")),
    ],
)
def test_a_reference_is_a_name_with_an_alias_or_a_version(text: str, wanted: registry.Reference) -> None:
    assert registry.parse_reference(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@champion",
        "digits@",
        "digits@latest",
        "digits@v1",
        "digits/",
        "digits/0",
        "digits/x",
        "di gits",
        "a'b",
        "a/b/c",
    ],
)
def test_what_is_no_reference_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(InvalidInput) as error:
        registry.parse_reference(text)
    assert error.value.action


def test_a_version_survives_its_record() -> None:
    version = registry.ModelVersion(
        "digits",
        "3",
        ("champion",),
        "/p",
        "a" * 64,
        "r",
        "m",
        "models:/m-1",
        "passed",
        ({"check": "x"},),
        "f",
        "d",
        1.5,
    )
    assert registry.ModelVersion.from_record(version.to_record()) == version
    assert version.ref == "digits/3"


def test_the_tracking_uri_is_the_users_or_the_store_below_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert connection.tracking_uri() == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@mlflow:5000")
    assert connection.tracking_uri() == "http://user:secret@mlflow:5000"
    assert connection.without_credentials(connection.tracking_uri()) == "http://mlflow:5000"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql+psycopg2://mlflow:se?cret@db/mlflow", "postgresql+psycopg2://db/mlflow"),
        ("postgresql://mlflow:se/cret@db:5432/mlflow?sslmode=require", "postgresql://db:5432/mlflow"),
        ("postgresql://mlflow:se/c?ret@db:5432/mlflow", "postgresql://***"),
        ("https://host:5000/path?password=se@cret", "https://***"),
        ("postgresql://db/mlflow?user=mlflow&password=se@cret", "postgresql://db/mlflow"),
        ("postgresql://mlflow:secret@db:5432/mlflow?password=se@cret", "postgresql://db:5432/mlflow"),
        ("https://mlflow:se@cret@host/path", "https://host/path"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
    ],
)
def test_no_part_of_a_password_is_shown(uri: str, shown: str) -> None:
    assert connection.without_credentials(uri) == shown


def test_artifacts_lie_beside_a_sqlite_store_and_where_a_server_says() -> None:
    assert connection.artifact_root("sqlite:////h/mlflow/mlflow.db") == "file:///h/mlflow/artifacts"
    assert connection.artifact_root("http://mlflow:5000") is None


class _MlflowError(Exception):
    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.error_code = code


@pytest.mark.parametrize(
    ("text", "code", "wanted"),
    [
        ("API request to http://x failed", "INTERNAL_ERROR", Unavailable),
        ("database is locked", "TEMPORARILY_UNAVAILABLE", Unavailable),
        ("no", "PERMISSION_DENIED", InvalidInput),
        ("Run 'x' not found", "RESOURCE_DOES_NOT_EXIST", HeadraceError),
    ],
)
def test_mlflows_errors_become_ours_and_name_the_server_without_its_password(
    text: str, code: str, wanted: type[HeadraceError]
) -> None:
    error = connection._translate(_MlflowError(text, code), "http://user:secret@mlflow:5000")
    assert type(error) is wanted
    assert "secret" not in error.message + error.action
    assert error.action
