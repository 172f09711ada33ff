"""What makes a sample the same sample: content hashes, for files one by one and for rows of tables by the million.

A file's hash is its sha256. A row's hash is of 128 bits, made column by column with whole arrays (one Python call a
row would take minutes for ten million rows): each cell becomes 64 bits, two lanes of which are mixed under keys of
their own with the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014,
fig. 17). It guards against accidents, not against people who build collisions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]  # [samples, width]: one digest a row
Words = npt.NDArray[np.uint64]

ROW_WIDTH = 16  # bytes of a row's digest
FILE_WIDTH = 32  # bytes of a file's: sha256
MISSING = np.uint64(0x7FF8_0000_0000_DA7A)  # a NaN that arithmetic does not make: the cell of a missing number
HEX_DIGITS = np.frombuffer(b"".join(b"%02x" % i for i in range(256)), dtype=np.uint16)


def of_files(contents: Sequence[bytes]) -> Bytes:
    """The sha256 of each content, uint8 [files, 32]."""
    joined = b"".join(hashlib.sha256(content).digest() for content in contents)
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, FILE_WIDTH)


def of_rows(columns: Mapping[str, npt.NDArray[np.float64] | pa.Array], length: int) -> Bytes:
    """The digest of each row, uint8 [rows, 16]; numbers are float64 with NaN for missing, categories are strings.

    Columns are taken by name, so that their order does not matter.
    """
    lanes = [np.zeros(length, np.uint64), np.zeros(length, np.uint64)]
    for name in sorted(columns):
        values = columns[name]
        keys = _keys(name)
        cells = _number_cells(values) if isinstance(values, np.ndarray) else _text_words(values)
        for lane in (0, 1):
            cell = cells if cells.ndim == 1 else cells[:, lane]
            lanes[lane] = _mix(lanes[lane] + _mix(cell + keys[lane]))
    return _bytes_of(np.stack(lanes, axis=1))


def of_texts(values: pa.Array) -> Bytes:
    """The digest of each string, uint8 [strings, 16]; missing ones have one of their own."""
    return _bytes_of(_text_words(values))


def hexadecimal(digests: Bytes) -> pa.Array:
    """Digests as an Arrow array of hex strings."""
    count, width = digests.shape
    text = HEX_DIGITS[digests.reshape(-1)]
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(2 * width)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))


def words(digests: Bytes, index: int) -> Words:
    """The INDEXth 64 bits of each digest, big-endian as its hex text reads."""
    part = np.ascontiguousarray(digests[:, 8 * index : 8 * index + 8])
    return part.view(">u8").reshape(-1).astype(np.uint64)


def positions(digests: Bytes, seed: int) -> npt.NDArray[np.float64]:
    """Where each digest lies in [0, 1) under SEED: a function of the digest and the seed alone."""
    salt = _mix(np.array([seed], dtype=np.int64).view(np.uint64) + np.uint64(0x9E37_79B9_7F4A_7C15))
    mixed = _mix(words(digests, 0) ^ salt)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def codes(digests: Bytes) -> npt.NDArray[np.int64]:
    """One number per distinct digest, 0 to distinct - 1."""
    high, low = words(digests, 0), words(digests, 1)
    order = np.lexsort((low, high))
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    numbered = np.empty(len(order), dtype=np.int64)
    numbered[order] = np.cumsum(fresh) - 1
    return numbered


def _mix(values: Words) -> Words:
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58_476D_1CE4_E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D0_49BB_1331_11EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


@lru_cache(maxsize=4096)
def _keys(name: str) -> tuple[np.uint64, np.uint64]:
    digest = hashlib.blake2b(name.encode(), digest_size=16, person=b"headrace column").digest()
    first, second = np.frombuffer(digest, dtype=">u8").astype(np.uint64)
    return first, second


def _number_cells(values: npt.NDArray[np.float64]) -> Words:
    bits = (values + 0.0).view(np.uint64)  # -0.0 and 0.0 are one number
    missing = np.isnan(values)
    return np.where(missing, MISSING, bits) if missing.any() else bits


def _text_words(values: Any) -> Words:
    encoded = values.dictionary_encode(null_encoding="encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    digests = b"".join(_text_digest(value) for value in encoded.dictionary.to_pylist())
    table = np.frombuffer(digests, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    return np.asarray(table[encoded.indices.to_numpy(zero_copy_only=False)])


def _text_digest(value: str | None) -> bytes:
    if value is None:
        return hashlib.blake2b(digest_size=16, person=b"headrace missing").digest()
    return hashlib.blake2b(value.encode(), digest_size=16).digest()


def _bytes_of(pairs: Words) -> Bytes:
    return pairs.astype(">u8").view(np.uint8).reshape(-1, ROW_WIDTH)
