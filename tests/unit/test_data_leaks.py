"""Equal samples are found the same way in memory and spilled to files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from headrace.data import digest
from headrace.data.leaks import EqualsFinder


def find(names, marks, most_in_memory):
    with EqualsFinder(most_in_memory) as finder:
        for start in range(0, len(names), 7):
            keys = digest.of_texts(pa.array(names[start : start + 7]))
            count = len(keys)
            rows = np.arange(start, start + count, dtype=np.int64)
            marked = np.array(marks[start : start + 7], dtype=np.uint64)
            finder.add(keys, marked, np.zeros(count, dtype=np.int32), rows)
        return finder.find()


@pytest.mark.parametrize("most_in_memory", [10**6, 20])
def test_equal_samples_are_counted_and_named_wherever_they_are_held(most_in_memory):
    names = [str(i) for i in range(100)] + ["5", "5", "50"]
    found = find(names, [0] * 103, most_in_memory)
    assert (found.groups, found.extra, found.conflicts) == (2, 3, 0)
    assert sorted(found.examples) == [((0, 5), (0, 100)), ((0, 5), (0, 101)), ((0, 50), (0, 102))]


@pytest.mark.parametrize("most_in_memory", [10**6, 20])
def test_equal_samples_with_two_marks_are_conflicts(most_in_memory):
    names = [str(i) for i in range(60)] + ["5", "7"]
    found = find(names, [1] * 60 + [2, 1], most_in_memory)
    assert found.conflicts == 1
    assert found.conflicting == [((0, 5), (0, 60))]


def test_nothing_added_is_nothing_found():
    with EqualsFinder() as finder:
        assert finder.find().groups == 0


def test_keys_that_agree_in_their_first_half_only_are_different():
    keys = np.zeros((3, 16), dtype=np.uint8)
    keys[1, 15] = 1
    with EqualsFinder() as finder:
        finder.add(keys, np.zeros(3, np.uint64), np.arange(3, dtype=np.int32), None)
        found = finder.find()
    assert found.examples == [((0, -1), (2, -1))]


def test_a_row_is_told_apart_by_every_cell_and_not_by_the_order_of_columns():
    def row(a, b, c):
        return digest.of_rows({"a": np.array([a]), "b": np.array([b]), "c": pa.array([c])}, 1).tobytes()

    base = row(1.0, 2.0, "x")
    assert row(1.0, 2.0, "x") == base
    others = [row(2.0, 1.0, "x"), row(1.0, 2.0, "y"), row(1.0, 2.0, None), row(1.0, np.nan, "x"), row(1.0, 2.5, "x")]
    assert len({base, *others}) == 6
    assert row(0.0, 2.0, "x") == row(-0.0, 2.0, "x")
    turned = digest.of_rows({"c": pa.array(["x"]), "b": np.array([2.0]), "a": np.array([1.0])}, 1)
    assert turned.tobytes() == base


def test_digests_read_as_their_hex_text():
    digests = digest.of_files([b"a", b""])
    assert digest.hexadecimal(digests).to_pylist()[1].startswith("e3b0c44298fc1c14")
    assert digest.words(digests, 0)[1] == 0xE3B0C44298FC1C14
    assert digest.codes(digest.of_texts(pa.array(["b", "a", "b", None]))).tolist().count(0) >= 1
