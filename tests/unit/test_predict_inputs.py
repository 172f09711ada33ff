"""What people hand to `predict`, as named arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.base.errors import DataInvalid, InvalidInput
from headrace.serving import v2_client
from headrace.steps import predict
from headrace.steps.predict_inputs import PIECE_ROWS, Answered, Piece, Row, answered, pieces_of
from headrace_models.tasks.base import Arrays, BadInput, Signature, TensorSpec

PICTURE = {"image": "BYTES"}
TABLE = {"rooms": "FP64", "city": "BYTES"}


def all_of(inputs: list[str], wanted: Mapping[str, str]) -> list[Piece]:
    return list(pieces_of(inputs, wanted))


def test_a_folder_of_pictures_is_read_in_order_of_path_and_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (piece,) = all_of([str(tmp_path)], PICTURE)
    assert [row.sample_id for row in piece.rows] == ["a/1.jpg", "b/2.png"]
    assert piece.inputs["image"].tolist() == [b"a/1.jpg", b"b/2.png"]


def test_a_large_folder_comes_in_pieces(tmp_path: Path) -> None:
    for number in range(PIECE_ROWS + 1):
        (tmp_path / f"{number:04}.png").write_bytes(b"x")
    assert [len(piece.rows) for piece in pieces_of([str(tmp_path)], PICTURE)] == [PIECE_ROWS, 1]


def test_a_csv_gives_the_models_columns_with_missing_numbers_as_nan_and_broken_rows_as_errors(tmp_path: Path) -> None:
    path = tmp_path / "homes.csv"
    path.write_text("city,extra,rooms\nRome,x,3\nOslo,x,\n,x,2\nBern,x,many\nParis,x\n")
    pieces = all_of([str(path)], TABLE)
    arrays = pieces[-1].inputs if len(pieces[-1].rows) > 1 else pieces[0].inputs
    errors = {
        row.row: piece.errors[place]
        for piece in pieces
        for place, row in enumerate(piece.rows)
        if place in piece.errors
    }
    assert arrays["city"].tolist() == [b"Rome", b"Oslo", b""]
    np.testing.assert_array_equal(arrays["rooms"], [3, np.nan, 2])
    assert set(errors) == {3, 4}
    assert "many" in errors[3]


def test_a_parquet_table_is_read_like_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "homes.parquet"
    pq.write_table(pa.table({"rooms": [3, None], "city": ["Rome", None]}), path)
    (piece,) = all_of([str(path)], TABLE)
    np.testing.assert_array_equal(piece.inputs["rooms"], [3, np.nan])
    assert piece.inputs["city"].tolist() == [b"Rome", b""]
    assert [row.sample_id for row in piece.rows] == [f"{path}#0", f"{path}#1"]


@pytest.mark.parametrize(
    "text",
    [
        '[{"rooms": 3, "city": "Rome"}, {"rooms": "x", "city": "Rome"}, {"city": "Bern"}]',
        '{"rooms": 3, "city": "Rome"}\n{"rooms": "x", "city": "Rome"}\n{"city": "Bern"}\n',
    ],
)
def test_json_rows_are_a_list_or_lines_and_a_bad_one_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    (piece,) = all_of([str(path)], TABLE)
    assert piece.inputs["rooms"].tolist() == [3.0]
    assert piece.errors == {1: "rooms: 'x' is not a number", 2: "rooms is missing"}


def test_a_v2_request_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    inputs = [{"name": "rooms", "datatype": "FP64", "shape": [2], "data": [1, 2]}]
    path.write_text(json.dumps({"inputs": inputs}))
    (piece,) = all_of([str(path)], TABLE)
    assert piece.inputs["rooms"].tolist() == [1.0, 2.0]
    assert len(piece.rows) == 2


@pytest.mark.parametrize(
    ("name", "text", "wanted", "told"),
    [
        ("x.csv", "city\nRome\n", TABLE, "no column 'rooms'"),
        ("x.txt", "hello", TABLE, "no table"),
        ("x.json", "{", TABLE, "not valid JSON"),
        ("x.json", "[1]", TABLE, "holds no rows"),
        ("x.json", '{"inputs": []}', TABLE, "not a V2 request"),
    ],
)
def test_a_file_that_the_model_cannot_take_is_refused_with_what_it_takes(
    tmp_path: Path, name: str, text: str, wanted: Mapping[str, str], told: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataInvalid, match=told) as error:
        all_of([str(tmp_path / name)], wanted)
    assert error.value.action


def test_a_folder_without_anything_to_take_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataInvalid, match="holds nothing"):
        all_of([str(tmp_path)], PICTURE)
    with pytest.raises(DataInvalid, match="nothing at"):
        all_of([str(tmp_path / "absent")], PICTURE)


def _piece(values: list[bytes]) -> Piece:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return Piece([Row(f"f{n}", f"f{n}") for n in range(len(values))], {"image": array})


def _picky(asked: list[int]) -> predict.Any:
    def answer(inputs: Arrays) -> Arrays:
        asked.append(len(inputs["image"]))
        if b"bad" in inputs["image"].tolist():
            raise BadInput("not a picture")
        return {"label": inputs["image"]}

    return answer


def test_one_bad_row_of_many_is_found_by_halving_and_spoils_no_other() -> None:
    values = [b"%d" % n for n in range(64)]
    values[37] = b"bad"
    asked: list[int] = []
    (part,) = answered([_piece(values)], _picky(asked))
    assert part.errors == {37: "not a picture"}
    assert part.outputs["label"].tolist() == [value for value in values if value != b"bad"]
    assert len(asked) <= 13


def test_rows_come_back_in_order_with_their_errors_beside_them() -> None:
    piece = _piece([b"a", b"bad", b"c"])
    (part,) = answered([piece], _picky([]))
    assert list(predict._rows(part, None)) == [
        {"file": "f0", "label": "a"},
        {"file": "f1", "error": "not a picture"},
        {"file": "f2", "label": "c"},
    ]


def test_a_batch_has_one_row_for_every_sample_with_outputs_or_an_error(tmp_path: Path) -> None:
    outputs = (TensorSpec("label", "BYTES", (-1,), "text"), TensorSpec("error", "FP32", (-1, 2)))
    signature = Signature(inputs=(), outputs=outputs)
    part = Answered(
        [Row("f", "f"), Row("t.csv", "t.csv#1", 1)],
        {"label": np.array([b"three"], dtype=object), "error": np.array([[0.25, 0.75]], np.float32)},
        {1: "broken"},
    )
    rows, errors = predict._write(iter([part]), signature, str(tmp_path / "new" / "out.parquet"), lambda _: None)
    assert (rows, errors) == (2, 1)
    assert pq.read_table(tmp_path / "new" / "out.parquet").to_pylist() == [
        {"sample_id": "f", "uri": "f", "label": "three", "error_": [0.25, 0.75], "error": None},
        {"sample_id": "t.csv#1", "uri": "t.csv#1", "label": None, "error_": None, "error": "broken"},
    ]


def test_a_batch_that_fails_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    target.write_bytes(b"old")

    def parts() -> predict.Any:
        yield Answered([Row("f", "f")], {}, {0: "broken"})
        raise InvalidInput("gone", action="look")

    with pytest.raises(InvalidInput):
        predict._write(parts(), Signature(inputs=(), outputs=()), str(target), lambda _: None)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_a_batch_is_written_as_parquet_only() -> None:
    with pytest.raises(InvalidInput, match="not a Parquet file"):
        predict.predict_batch("digits@champion", "folder", "out.csv")


@dataclass
class _Endpoint:
    """Stands in for an endpoint that takes pictures and refuses those that are bad."""

    asked: list[int] = field(default_factory=list)

    def metadata(self, url: str) -> dict[str, predict.Any]:
        return {"name": "digits", "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}]}

    def infer(self, url: str, inputs: Arrays) -> v2_client.Inference:
        self.asked.append(len(inputs["image"]))
        if b"bad" in inputs["image"].tolist():
            raise InvalidInput("picture 0 is not a picture", action="send one")
        return v2_client.Inference("digits", "3", {"label": inputs["image"], "score": np.ones(len(inputs["image"]))})


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> _Endpoint:
    found = _Endpoint()
    monkeypatch.setattr(v2_client, "metadata", found.metadata)
    monkeypatch.setattr(v2_client, "infer", found.infer)
    return found


def test_an_endpoint_answers_each_file_with_its_version_and_a_bad_one_with_why(
    tmp_path: Path, endpoint: _Endpoint
) -> None:
    files = [tmp_path / name for name in ("one.png", "two.png")]
    files[0].write_bytes(b"one")
    files[1].write_bytes(b"bad")
    assert predict.predict_endpoint("http://127.0.0.1:1/digits", [files[0]], columns=["label"]) == [
        {"file": str(files[0]), "label": "one", "version": "3"}
    ]
    assert predict.predict_endpoint("http://127.0.0.1:1/digits", files)[1] == {
        "file": str(files[1]),
        "error": "picture 0 is not a picture",
    }


def test_files_that_are_all_refused_are_an_error_that_names_the_first(tmp_path: Path, endpoint: _Endpoint) -> None:
    (tmp_path / "bad.png").write_bytes(b"bad")
    with pytest.raises(InvalidInput, match=r"bad\.png: picture 0 is not a picture"):
        predict.predict_endpoint("http://127.0.0.1:1/digits", [tmp_path / "bad.png"])
    with pytest.raises(InvalidInput, match="no file"):
        predict.predict_endpoint("http://127.0.0.1:1/digits", [])


def test_an_endpoints_url_is_taken_with_or_without_its_v2_path() -> None:
    for url in ("http://h:1/digits", "http://h:1/digits/", "http://h:1/digits/v2/models/digits/infer"):
        assert predict.endpoint_url(url) == "http://h:1/digits"
