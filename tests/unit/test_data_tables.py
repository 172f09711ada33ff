"""Tables: columns are typed over the whole file, bad rows are named, and a worker reads its own rows only."""

from __future__ import annotations

import gzip
import os
import pickle
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.base.errors import DataInvalid
from headrace.data import Manifest, fingerprint_source, split_data
from headrace.data import columns as cols
from headrace.data.csv_table import delimiter_of
from headrace.data.tables import TablePayloads


def run(part, store):
    return split_data(part, store=store, source_fingerprint=fingerprint_source(part), tell=lambda text: None)


def lines(count, start=0):
    return [
        f"{i},{i * 1.5},{'red' if i % 3 else 'blue'},{'yes' if i % 2 else 'no'}" for i in range(start, start + count)
    ]


def write(path, rows, header="age,height,colour,bought"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def samples_of(store, result, world=1):
    manifest = Manifest(store, result.fingerprint)
    shards = [manifest.shard(s, r, world) for s in ("train", "validation", "test") for r in range(world)]
    return [(shard.uri(i), shard[i]) for shard in shards for i in range(len(shard))]


def test_a_csv_is_typed_split_and_read_back(tmp_path, split_part, store):
    table = write(tmp_path / "t.csv", lines(100))
    result = run(split_part(table, format="csv", label="bought"), store)
    assert result.summary["schema"] == {
        "label": "bought",
        "classes": ["no", "yes"],
        "columns": [["age", "number"], ["height", "number"], ["colour", "category"]],
    }
    assert result.summary["counts"] == {"train": 70, "validation": 15, "test": 15}
    by_uri = dict(samples_of(store, result))
    assert len(by_uri) == 100
    sample = by_uri[f"{table}#7"]
    assert sample.payload == {"age": 7.0, "height": 10.5, "colour": "red"}
    assert sample.labels == {"bought": "yes"}


@pytest.mark.parametrize("strategy", ["random", "hash", "stratified"])
def test_shards_partition_a_split_and_differ_by_one_sample_at_most(tmp_path, split_part, store, strategy):
    table = write(tmp_path / "t.csv", lines(101))
    manifest = Manifest(
        store, run(split_part(table, format="csv", label="bought", strategy=strategy), store).fingerprint
    )
    for split in ("train", "validation", "test"):
        shards = [manifest.shard(split, rank, 3) for rank in range(3)]
        sizes = [len(shard) for shard in shards]
        assert sum(sizes) == manifest.count(split)
        assert max(sizes) - min(sizes) <= 1
        uris = [shard.uri(i) for shard in shards for i in range(len(shard))]
        assert len(set(uris)) == len(uris)
        assert len(manifest.sample_ids(split)) == len(uris)
        for shard in shards:
            for index in range(len(shard)):
                row = int(shard.uri(index).rsplit("#")[-1])
                assert shard[index].payload["age"] == row


def test_a_shard_pickles_and_reads_anew(tmp_path, split_part, store):
    table = write(tmp_path / "t.csv", lines(30))
    shard = Manifest(store, run(split_part(table, format="csv", label="bought"), store).fingerprint).shard(
        "train", 0, 2
    )
    first = shard[0]
    copy = pickle.loads(pickle.dumps(shard))
    assert copy[0] == first
    assert copy[-1] == shard[len(shard) - 1]
    assert copy[:2] == [shard[0], shard[1]]
    assert copy.labels() == [sample.labels["bought"] for sample in shard]
    with pytest.raises(IndexError):
        copy[len(copy)]


def test_bad_rows_are_left_out_and_named_by_file_and_row(tmp_path, split_part, store):
    rows = lines(200)
    rows[3] = "3,4.5,red"  # too few cells
    rows[10] = "ten,15,red,yes"  # a number that does not parse
    rows[20] = "20,30.0,blue,"  # no label
    rows[30] = "30,inf,blue,no"  # not finite
    rows[40] = "40,60.0,red,no,extra"  # too many cells
    table = write(tmp_path / "t.csv", rows)
    result = run(split_part(table, format="csv", label="bought", max_corrupt=0.05), store)
    reasons = {named["uri"].rsplit("#")[-1]: named["reason"] for named in result.summary["left_out"]["files"]}
    assert reasons == {
        "3": "3 cells where the header has 4",
        "10": "age: 'ten' is not a number",
        "20": "bought is missing",
        "30": "height: 'inf' is not a number",
        "40": "5 cells where the header has 4",
    }
    assert result.summary["samples"] == 195
    by_uri = dict(samples_of(store, result, world=2))
    assert by_uri[f"{table}#199"].payload["age"] == 199.0  # row numbers count the rows left out
    with pytest.raises(DataInvalid, match="5 of 200 rows") as error:
        run(split_part(table, format="csv", label="bought"), store)
    assert len(error.value.findings) == 5


def test_missing_cells_are_none_and_empty_columns_are_left_out(tmp_path, split_part, store):
    rows = [f"{i if i % 5 else 'NA'},{'x' if i % 7 else ''},,{i % 2}" for i in range(60)]
    table = write(tmp_path / "t.csv", rows, "n,c,void,y")
    result = run(split_part(table, format="csv", label="y", id="file#row"), store)
    assert result.summary["schema"]["columns"] == [["n", "number"], ["c", "category"]]
    assert any(finding.given == "void" for finding in result.findings)
    by_uri = dict(samples_of(store, result))
    assert by_uri[f"{table}#5"].payload == {"n": None, "c": "x"}
    assert by_uri[f"{table}#7"].payload == {"n": 7.0, "c": None}


def test_a_misspelt_column_is_a_finding_with_the_nearest_name(tmp_path, split_part, store):
    table = write(tmp_path / "t.csv", lines(10))
    with pytest.raises(DataInvalid) as error:
        run(split_part(table, format="csv", label="Bougt", features=["age", "hight"], id="key"), store)
    found = {finding.where: finding for finding in error.value.findings}
    assert found["data.label"].action == "did you mean 'bought'?"
    assert found["data.features"].action == "did you mean 'height'?"
    assert "age" in found["data.id"].allowed


def test_a_table_without_a_label_or_with_it_among_the_features_is_a_finding(tmp_path, split_part, store):
    table = write(tmp_path / "t.csv", lines(10))
    with pytest.raises(DataInvalid) as error:
        run(split_part(table, format="csv"), store)
    assert error.value.findings[0].where == "data.label"
    with pytest.raises(DataInvalid) as error:
        run(split_part(table, format="csv", label="bought", features=["age", "bought"]), store)
    assert error.value.findings[0].given == "bought"
    with pytest.raises(DataInvalid) as error:
        run(split_part(write(tmp_path / "u.csv", ["1,2"], "a,a"), format="csv", label="a"), store)
    assert "twice" in error.value.findings[0].given


def test_a_folder_of_tables_is_one_table_and_must_agree(tmp_path, split_part, store):
    data = tmp_path / "data"
    data.mkdir()
    write(data / "a.csv", lines(50))
    (data / "b.csv.gz").write_bytes(
        gzip.compress("\n".join(["bought;colour;height;age", *(f"yes;red;{i};{i}" for i in range(50, 80))]).encode())
    )
    (data / "notes.md").write_text("about")
    result = run(split_part(data, format="csv", label="bought"), store)
    assert result.summary["samples"] == 80
    assert result.summary["ignored"]["count"] == 1
    assert dict(samples_of(store, result))[f"{data}/b.csv.gz#3"].payload == {
        "age": 53.0,
        "height": 53.0,
        "colour": "red",
    }
    write(data / "c.csv", ["1,2"], "age,height")
    with pytest.raises(DataInvalid, match="same columns") as error:
        run(split_part(data, format="csv", label="bought"), store)
    assert [finding.given for finding in error.value.findings] == ["no column 'colour'", "no column 'bought'"]


def test_csv_as_people_write_it(tmp_path, split_part, store):
    text = '\ufeffa;"b;c";y\r\n1; 2 ;"two\r\nlines"\r\n\r\n3;None;other\r\n4;5;other\r\n'
    (tmp_path / "t.csv").write_bytes(text.encode())
    result = run(split_part(tmp_path / "t.csv", format="csv", label="y"), store)
    by_uri = dict(samples_of(store, result))
    assert by_uri[f"{tmp_path}/t.csv#0"].payload == {"a": 1.0, "b;c": 2.0}
    assert by_uri[f"{tmp_path}/t.csv#0"].labels == {"y": "two\r\nlines"}
    assert by_uri[f"{tmp_path}/t.csv#1"].payload == {"a": 3.0, "b;c": None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Empty CSV"),
        ("a,y\n1,\xe9\n2,n\n".encode("latin-1"), "UTF8"),
        (b"a,y\n", "no sample"),
    ],
)
def test_a_csv_that_cannot_be_read_says_why(tmp_path, split_part, store, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataInvalid, match=message):
        run(split_part(tmp_path / "t.csv", format="csv", label="y"), store)


def test_a_folder_without_tables_is_refused(tmp_path, split_part, store):
    (tmp_path / "data").mkdir()
    with pytest.raises(DataInvalid, match=r"holds no \.csv file"):
        run(split_part(tmp_path / "data", format="csv", label="y"), store)


def test_equal_rows_stay_together_and_under_two_labels_are_refused(tmp_path, split_part, store):
    rows = [*lines(50), *lines(10)]
    table = write(tmp_path / "t.csv", rows)
    for strategy in ("random", "stratified", "hash"):
        result = run(split_part(table, format="csv", label="bought", strategy=strategy), store)
        assert result.summary["duplicates"]["samples"] == 10
        ids = [set(Manifest(store, result.fingerprint).sample_ids(s)) for s in ("train", "validation", "test")]
        assert sum(map(len, ids)) == 50
    write(table, [*rows, "4,6.0,red,yes"])
    with pytest.raises(DataInvalid, match="different label") as error:
        run(split_part(table, format="csv", label="bought"), store)
    assert error.value.findings[0].where == f"{table}#60"
    assert "data.id: file#row" in error.value.action
    result = run(split_part(table, format="csv", label="bought", id="file#row"), store)
    assert "t.csv#60" in {
        i for s in ("train", "validation", "test") for i in Manifest(store, result.fingerprint).sample_ids(s)
    }
    assert any("another label" in finding.given for finding in result.findings)


def test_an_id_makes_equal_rows_observations_of_their_own(tmp_path, split_part, store):
    rows = [f"p{i},{i % 4},{'a' if i % 3 else 'b'}" for i in range(60)]
    table = write(tmp_path / "t.csv", rows, "key,x,y")
    result = run(split_part(table, format="csv", label="y", id="key"), store)
    assert result.summary["counts"]["train"] == 42
    assert any("another label" in finding.given for finding in result.findings)
    assert set(Manifest(store, result.fingerprint).sample_ids("test")) <= {f"p{i}" for i in range(60)}


def test_a_group_lies_on_one_side_and_else_is_refused(tmp_path, split_part, store):
    rows = [f"{i},patient{i // 6},{i % 2}" for i in range(240)]
    table = write(tmp_path / "t.csv", rows, "x,who,y")
    result = run(split_part(table, format="csv", label="y", group="who", strategy="group"), store)
    sides: dict[str, set[str]] = {}
    manifest = Manifest(store, result.fingerprint)
    for split in ("train", "validation", "test"):
        shard = manifest.shard(split, 0, 1)
        for i in range(len(shard)):
            sides.setdefault(f"patient{int(shard.uri(i).rsplit('#')[-1]) // 6}", set()).add(split)
    assert all(len(side) == 1 for side in sides.values())
    assert result.summary["counts"] == {"train": 168, "validation": 36, "test": 36}
    for strategy in ("random", "hash"):
        with pytest.raises(DataInvalid, match="two sides") as error:
            run(split_part(table, format="csv", label="y", group="who", strategy=strategy), store)
        assert "strategy: group" in error.value.action
        assert error.value.findings


def test_time_takes_dates_and_names_what_is_none(tmp_path, split_part, store):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [f"{i},{(start + timedelta(hours=i)).isoformat()},{i % 2}" for i in range(100)]
    rows[50] = "50,yesterday,0"
    table = write(tmp_path / "t.csv", rows, "x,when,y")
    part = split_part(table, format="csv", label="y", time="when", strategy="time", max_corrupt=0.02)
    result = run(part, store)
    assert "yesterday" in result.summary["left_out"]["files"][0]["reason"]
    manifest = Manifest(store, result.fingerprint)
    newest = {
        s: max(sample.payload["x"] for sample in manifest.shard(s, 0, 1)) for s in ("train", "validation", "test")
    }
    assert newest["train"] < newest["validation"] < newest["test"] == 99


def test_a_label_that_is_a_number_is_split_by_quantiles_and_kept_as_one(tmp_path, split_part, store):
    rows = [f"{i},{i / 10}" for i in range(100)]
    rows[5] = "5,?"
    table = write(tmp_path / "t.csv", [*rows, "6,99.5"], "x,y")
    result = run(split_part(table, format="csv", label="y", task="tabular-regression", max_corrupt=0.02), store)
    assert result.summary["schema"]["classes"] == []
    assert result.summary["left_out"]["count"] == 1
    assert result.summary["duplicates"]["samples"] == 1  # the same x with another y is noise, not a mistake
    sample = dict(samples_of(store, result))[f"{table}#17"]
    assert sample.labels == {"y": 1.7}


def test_a_label_with_very_many_values_is_no_class(tmp_path, split_part, store, monkeypatch):
    monkeypatch.setattr("headrace.data.write_manifest.MOST_CLASSES", 20)
    table = write(tmp_path / "t.csv", [f"{i},{i / 7}" for i in range(50)], "x,y")
    with pytest.raises(DataInvalid, match="more than 20 values") as error:
        run(split_part(table, format="csv", label="y"), store)
    assert "tabular-regression" in error.value.action


def typed_table(rows=100):
    index = np.arange(rows)
    return pa.table(
        {
            "whole": pa.array(index, pa.int32()),
            "single": pa.array(index / 3, pa.float32()),
            "flag": pa.array(index % 2 == 0),
            "money": pa.array([Decimal(int(i)) / 4 for i in index], pa.decimal128(12, 2)),
            "word": pa.array([f"w{i % 3}" for i in index]).dictionary_encode(),
            "long": pa.array([f"l{i % 4}" for i in index], pa.large_string()),
            "code": pa.array([str(i % 5) for i in index]),
            "when": pa.array([datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=int(i)) for i in index]),
            "parts": pa.array([[1, 2]] * rows),
            "y": pa.array(index % 3 * 1.0),
        }
    )


def test_parquet_columns_keep_their_types(tmp_path, split_part, store):
    pq.write_table(typed_table(), tmp_path / "t.parquet", row_group_size=13)
    result = run(split_part(tmp_path / "t.parquet", format="parquet", label="y", time="when", strategy="time"), store)
    kinds = dict(result.summary["schema"]["columns"])
    assert kinds == {
        **dict.fromkeys(("whole", "single", "flag", "money"), "number"),
        **dict.fromkeys(("word", "long", "code"), "category"),
    }
    assert result.summary["schema"]["classes"] == ["0", "1", "2"]  # whole floats are spelt as whole numbers
    assert any("parts" in finding.given for finding in result.findings)
    sample = dict(samples_of(store, result, world=2))[f"{tmp_path}/t.parquet#6"]
    assert sample.payload == {
        "whole": 6.0, "single": 2.0, "flag": 1.0, "money": 1.5, "word": "w0", "long": "l2", "code": "1",
    }  # fmt: skip
    assert sample.labels == {"y": "0"}


def test_parquet_features_of_other_types_and_files_that_disagree_are_findings(tmp_path, split_part, store):
    data = tmp_path / "data"
    data.mkdir()
    pq.write_table(typed_table(10), data / "a.parquet")
    with pytest.raises(DataInvalid) as error:
        run(split_part(data, format="parquet", label="y", features=["whole", "parts"]), store)
    assert "parts" in error.value.findings[0].given
    with pytest.raises(DataInvalid) as error:
        run(split_part(data, format="parquet", label="y", features=["parts"]), store)
    other = typed_table(10).drop_columns("whole").append_column("whole", pa.array(["x"] * 10))
    pq.write_table(other, data / "b.parquet")
    with pytest.raises(DataInvalid) as error:
        run(split_part(data, format="parquet", label="y", features=["whole"]), store)
    assert "b.parquet" in error.value.findings[0].where
    (data / "b.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(DataInvalid, match="not a whole Parquet file"):
        run(split_part(data, format="parquet", label="y", features=["whole"]), store)


def test_csv_and_parquet_of_the_same_rows_give_the_same_ids(tmp_path, split_part, store):
    table = write(tmp_path / "t.csv", lines(40))
    pq.write_table(
        pa.table(
            {
                "age": pa.array(range(40), pa.int64()),
                "height": [i * 1.5 for i in range(40)],
                "colour": ["red" if i % 3 else "blue" for i in range(40)],
                "bought": ["yes" if i % 2 else "no" for i in range(40)],
            }
        ),
        tmp_path / "t.parquet",
    )
    ids = []
    for name, path in (("csv", table), ("parquet", tmp_path / "t.parquet")):
        result = run(split_part(path, format=name, label="bought", strategy="hash"), store)
        ids.append([sorted(Manifest(store, result.fingerprint).sample_ids(s)) for s in ("train", "validation", "test")])
    assert ids[0] == ids[1]


@pytest.mark.parametrize("change", ["cell", "shorter", "columns", "gone"])
def test_a_table_that_changed_since_the_split_is_noticed(tmp_path, split_part, store, change):
    table = write(tmp_path / "t.csv", lines(40))
    shard = Manifest(store, run(split_part(table, format="csv", label="bought"), store).fingerprint).shard(
        "train", 0, 1
    )
    if change == "gone":
        os.remove(table)
    elif change == "cell":
        write(table, [line.replace("red", "rot") for line in lines(40)])
    elif change == "shorter":
        write(table, lines(10))
    else:
        write(table, ["1,2"], "a,b")
    with pytest.raises(DataInvalid, match=r"changed since|nothing at|cannot be read") as error:
        shard[0]
    assert str(table) in error.value.message


def test_a_table_behind_a_url_is_split_and_read_alike(split_part, store):
    memory = fsspec.filesystem("memory")
    memory.pipe("/shop/t.csv", "\n".join(["age,height,colour,bought", *lines(40)]).encode())
    result = run(split_part("memory://shop/t.csv", format="csv", label="bought"), store)
    assert dict(samples_of(store, result))["memory://shop/t.csv#9"].payload["age"] == 9.0
    memory.rm("/shop", recursive=True)


def test_many_batches_keep_row_numbers_and_files_in_order(tmp_path, split_part, store, monkeypatch):
    monkeypatch.setattr("headrace.data.parquet_table.BATCH_ROWS", 7)
    monkeypatch.setattr("headrace.data.csv_table.BLOCK_BYTES", 256)
    monkeypatch.setattr("headrace.data.write_manifest.ROWS_A_FILE", 20)
    monkeypatch.setattr("headrace.data.split.ROWS_A_CHUNK", 9)
    rows = lines(100)
    rows[11] = "1,2"
    rows[77] = "1,2"
    table = write(tmp_path / "t.csv", rows)
    for strategy in ("hash", "random"):
        result = run(split_part(table, format="csv", label="bought", strategy=strategy, max_corrupt=0.05), store)
        assert len(result.summary["files"]["train"]) > 2
        found = samples_of(store, result, world=3)
        assert sorted(int(uri.rsplit("#")[-1]) for uri, _ in found) == [i for i in range(100) if i not in (11, 77)]
        assert all(sample.payload["age"] == int(uri.rsplit("#")[-1]) for uri, sample in found)


def test_a_manifest_that_is_not_there_or_broken_says_what_to_do(tmp_path, split_part, store):
    with pytest.raises(DataInvalid, match="there is no split"):
        Manifest(store, "0" * 64)
    result = run(split_part(write(tmp_path / "t.csv", lines(20)), format="csv", label="bought"), store)
    manifest = Manifest(store, result.fingerprint)
    with pytest.raises(ValueError, match="rank"):
        manifest.shard("train", 2, 2)
    with pytest.raises(ValueError, match="no split"):
        manifest.sample_ids("all")
    os.remove(f"{result.uri}/train-00000.parquet")
    with pytest.raises(DataInvalid, match="gone or broken"):
        manifest.shard("train", 0, 1)


def test_an_empty_split_is_an_empty_shard(tmp_path, split_part, store):
    table = write(tmp_path / "t.csv", lines(20))
    part = split_part(table, format="csv", label="bought", train=0.8, validation=0.2, test=0.0)
    shard = Manifest(store, run(part, store).fingerprint).shard("test", 0, 2)
    assert len(shard) == 0
    assert list(shard) == []
    assert shard.labels() == []


def test_dates_and_delimiters_are_understood():
    stamps = cols.moments(pa.array(["2026-01-01", "2026-01-01T00:00:01Z", "2026-01-01 02:00:00+02:00", "5", "x", None]))
    assert stamps[1] - stamps[0] == 1
    assert stamps[2] == stamps[0]
    assert stamps[3] == 5
    assert np.isnan(stamps[4:]).all()
    assert cols.moments(pa.array([datetime(1970, 1, 2)])).tolist() == [86400.0]
    assert [delimiter_of(line) for line in ("a,b", "a;b", "a\tb", "a|b", '"a,b,c";d', "a")] == [
        ",",
        ";",
        "\t",
        "|",
        ";",
        ",",
    ]


def test_payloads_are_streamed_once(tmp_path, split_part, store, monkeypatch):
    table = write(tmp_path / "t.csv", lines(40))
    shard = Manifest(store, run(split_part(table, format="csv", label="bought"), store).fingerprint).shard(
        "train", 0, 1
    )
    reads: list[int] = []
    load = TablePayloads._load
    monkeypatch.setattr(TablePayloads, "_load", lambda self: reads.append(1) or load(self))
    assert len(list(shard)) == len(shard)
    assert reads == [1]
