"""Hash split of a Parquet table beside pandas doing the least that is the same: rows a second, peak memory.

    python tests/benchmarks/split.py [ROWS]      (default 10,000,000)

Headrace's side reads, checks, hashes, deals out, looks for equal rows, and writes the manifest. Pandas' side reads,
hashes with `hash_pandas_object`, deals out and writes sample id, label and side: no checks. Each runs in a process of
its own; the table is warm in the page cache for both. Polars would be a third, where it is installed.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

CHUNK = 1_000_000
FEATURES = ("age", "height", "weight", "income", "colour")


def make_table(path: Path, rows: int) -> None:
    """Four numbers, a category and a label of ten classes."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    colours = pa.array(["red", "green", "blue", "grey"])
    writer = None
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        rng = np.random.default_rng(start)
        columns = {name: rng.standard_normal(count) for name in FEATURES[:4]}
        colour = pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, 4, count)), colours).dictionary_decode()
        label = pa.array(rng.integers(0, 10, count))
        table = pa.table({**columns, "colour": colour, "label": label})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def run_headrace(path: Path, out: Path) -> int:
    """The split as `headrace split` makes it; returns the samples."""
    from headrace.data import split_data
    from headrace.store import Store

    part = {
        "source": str(path), "format": "parquet", "label": "label", "features": None, "id": None, "group": None,
        "time": None, "max_corrupt": 0.01, "tasks": [{"name": "tabular-classification", "args": {}}],
        "split": {"strategy": "hash", "train": 0.7, "validation": 0.15, "test": 0.15, "seed": 0},
    }  # fmt: skip
    found = split_data(part, store=Store(str(out)), source_fingerprint="", tell=lambda text: None)
    return int(found.summary["samples"])


def run_pandas(path: Path, out: Path) -> int:
    """The same sides by pandas' own hash, without any check."""
    import numpy as np
    import pandas as pd

    frame = pd.read_parquet(path)
    keys = pd.util.hash_pandas_object(frame[list(FEATURES)], index=False).to_numpy()
    sides = np.searchsorted([0.7, 0.85], keys / 2**64, side="right")
    result = pd.DataFrame({"sample_id": keys, "label": frame["label"], "split": sides})
    for number, name in enumerate(("train", "validation", "test")):
        result[result["split"] == number].to_parquet(out / f"{name}.parquet")
    return len(result)


def run_polars(path: Path, out: Path) -> int:
    """The same by polars, as a stream where it can."""
    import polars as pl

    key = pl.struct(FEATURES).hash()
    side = pl.when(key / 2**64 < 0.7).then(0).when(key / 2**64 < 0.85).then(1).otherwise(2)
    frame = pl.scan_parquet(path).select(key.alias("sample_id"), "label", side.alias("split")).collect()
    for number, name in enumerate(("train", "validation", "test")):
        frame.filter(pl.col("split") == number).write_parquet(out / f"{name}.parquet")
    return int(frame.height)


SIDES = {"headrace": run_headrace, "pandas": run_pandas, "polars": run_polars}


def child(side: str, path: str, out: str) -> None:
    """One side, imports included: prints a JSON line. CPU seconds tell more than wall time on a busy machine."""
    started = time.perf_counter()
    rows = SIDES[side](Path(path), Path(out))
    seconds, usage = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    peak = usage.ru_maxrss / 1024
    cpu = usage.ru_utime + usage.ru_stime
    print(json.dumps({"rows": rows, "seconds": seconds, "cpu_seconds": cpu, "peak_mib": peak}))


def main(rows: int) -> None:
    """Measure every side there is."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        path = Path(folder) / "table.parquet"
        make_table(path, rows)
        print(f"{rows:,} rows, {path.stat().st_size / 2**20:,.0f} MiB of Parquet, {os.cpu_count()} cores")
        for side in SIDES:
            if side != "headrace" and find_spec(side) is None:
                print(f"{side:9} left out: it is not installed (pip install {side})")
                continue
            out = Path(folder) / side
            out.mkdir()
            command = [sys.executable, __file__, "--child", side, str(path), str(out)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            speed = found["rows"] / found["seconds"]
            print(
                f"{side:9} {found['seconds']:6.1f} s  {found['cpu_seconds']:6.1f} s of CPU  "
                f"{speed:11,.0f} rows/s  peak {found['peak_mib']:6,.0f} MiB"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main(int(sys.argv[1].replace(",", "")) if len(sys.argv) > 1 else 10_000_000)
