"""Data that lies on S3: split, read by workers and predicted from as if it lay in a folder, with few requests."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from headrace.base.errors import DataInvalid, Unavailable
from headrace.data import Manifest, describe_source, fingerprint_source, split_data
from headrace.data.ahead import THREADS
from headrace.data.source import Source
from headrace.serving.contract import StableVersion
from headrace.steps.predict import predict_batch
from headrace.store import Store
from headrace_testbed.s3 import S3Store
from headrace_testbed.s3_trouble import FOREVER, Trouble, TroubledStore, environment, new_bucket

SPLIT = {"strategy": "stratified", "train": 0.6, "validation": 0.2, "test": 0.2, "seed": 0}


def part(source: str, **given: Any) -> dict[str, Any]:
    layout = given.get("format", "image-folder")
    task = "image-classification" if layout == "image-folder" else "tabular-classification"
    empty = dict.fromkeys(("label", "features", "id", "group", "time"))
    base = {"source": source, "format": layout, "max_corrupt": 0.1, "split": SPLIT}
    return {**base, **empty, **given, "tasks": [{"name": task, "args": {}}]}


def split(source: str, store: Store, **given: Any) -> Any:
    return split_data(part(source, **given), store=store, source_fingerprint="", tell=lambda _: None)


def picture(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def pictures(bucket: str, tmp_path: Path) -> tuple[str, Path]:
    """Sixty pictures of two classes, in a bucket and in a folder."""
    files = {f"{'cat' if number % 2 else 'dog'}/{number:03d}.png": picture(number) for number in range(60)}
    store = Store(bucket)
    for name, data in files.items():
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pictures" / name).write_bytes(data)
        store.write_bytes(store.uri("pictures", name), data)
    return store.uri("pictures"), tmp_path / "pictures"


def test_pictures_on_s3_are_split_as_those_in_a_folder(pictures: tuple[str, Path], bucket: str, tmp_path: Path) -> None:
    url, folder = pictures
    there, here = Store(f"{bucket}/store"), Store(str(tmp_path / "store"))
    far, near = split(url, there), split(str(folder), here)
    assert far.summary["counts"] == near.summary["counts"]
    assert far.summary["classes"] == near.summary["classes"]
    assert far.uri == there.uri("splits", far.fingerprint)
    for side in ("train", "validation", "test"):
        far_ids, near_ids = (Manifest(s, f.fingerprint).sample_ids(side) for s, f in ((there, far), (here, near)))
        assert far_ids == near_ids


def test_shards_of_workers_are_the_whole_and_every_payload_is_the_objects(
    pictures: tuple[str, Path], bucket: str
) -> None:
    url, folder = pictures
    store = Store(f"{bucket}/store")
    manifest = Manifest(store, split(url, store).fingerprint)
    seen: dict[str, bytes] = {}
    for rank in range(3):
        shard = manifest.shard("train", rank, 3)
        for index, sample in enumerate(shard):
            seen[shard.uri(index)] = sample.payload
    assert len(seen) == manifest.count("train")
    for uri, payload in seen.items():
        assert (folder / uri.removeprefix(f"{url}/")).read_bytes() == payload


def test_broken_and_empty_objects_are_left_out_by_name_and_folder_markers_are_no_files(
    pictures: tuple[str, Path], bucket: str, s3_server: S3Store
) -> None:
    url, _ = pictures
    store = Store(bucket)
    store.write_bytes(f"{url}/cat/broken.png", picture(1)[:40])
    store.write_bytes(f"{url}/dog/empty.png", b"")
    for marker in ("pictures/", "pictures/cat/", "pictures/bird/"):  # what S3's consoles make of a "new folder"
        s3_server.client().put_object(Bucket=bucket.removeprefix("s3://"), Key=marker)
    assert "" not in {file.path for file in Source(url).files()}
    summary = split(url, Store(f"{bucket}/store")).summary
    assert summary["samples"] == 60
    assert {named["uri"]: named["reason"] for named in summary["left_out"]["files"]} == {
        f"{url}/cat/broken.png": summary["left_out"]["files"][0]["reason"],
        f"{url}/dog/empty.png": "the file is empty",
    }
    assert summary["ignored"]["count"] == 0


def test_the_fingerprint_is_of_the_listing_and_sees_what_others_changed(
    pictures: tuple[str, Path], s3_server: S3Store, bucket: str
) -> None:
    url, _ = pictures
    name = bucket.removeprefix("s3://")
    seen = [fingerprint_source(part(url))]
    assert fingerprint_source(part(url)) == seen[0]
    client = s3_server.client()  # another program: nothing of ours knows what it does
    client.put_object(Bucket=name, Key="pictures/cat/001.png", Body=picture(999))
    seen.append(fingerprint_source(part(url)))
    client.put_object(Bucket=name, Key="pictures/cat/more.png", Body=picture(1000))
    seen.append(fingerprint_source(part(url)))
    client.delete_object(Bucket=name, Key="pictures/dog/000.png")
    seen.append(fingerprint_source(part(url)))
    assert len(set(seen)) == 4


def test_an_object_that_changed_since_the_split_is_named(pictures: tuple[str, Path], bucket: str) -> None:
    url, _ = pictures
    store = Store(f"{bucket}/store")
    shard = Manifest(store, split(url, store).fingerprint).shard("test", 0, 1)
    store.write_bytes(shard.uri(3), picture(77))
    store.filesystem.rm_file(store.path(shard.uri(5)))
    with pytest.raises(DataInvalid, match=f"{shard.uri(3)} has changed since the split"):
        list(shard)
    with pytest.raises(DataInvalid, match=f"{shard.uri(5)} is gone since the split"):
        shard[5]


@pytest.fixture
def way(s3_server: S3Store) -> Iterator[tuple[TroubledStore, str]]:
    with TroubledStore(s3_server) as way, environment(way.environment):
        yield way, new_bucket(s3_server)


def test_each_sample_is_one_request_of_the_worker_that_has_it(way: tuple[TroubledStore, str]) -> None:
    proxy, bucket = way
    store, data = Store(f"{bucket}/store"), Store(f"{bucket}/data")
    for number in range(40):
        data.write_bytes(data.uri("ab"[number % 2], f"{number}.png"), picture(number))
    proxy.requests.clear()
    manifest = Manifest(store, split(data.url, store).fingerprint)
    of_data = [(method, path) for method, path in proxy.requests if "/data/" in path or "prefix=data" in path]
    reads = [path for method, path in of_data if ".png" in path]
    assert len(reads) == 40  # each picture once, without asking for its size before
    assert len(of_data) - len(reads) <= 4  # listings: no more than these, however many pictures there are
    proxy.requests.clear()
    shard = manifest.shard("train", 1, 2)
    list(shard)
    assert sorted(path for _, path in proxy.requests if ".png" in path) == sorted(
        "/" + shard.uri(index).removeprefix("s3://") for index in range(len(shard))
    )
    assert not any(method == "HEAD" for method, path in proxy.requests if ".png" in path)


def test_distant_samples_are_on_their_way_before_they_are_needed(
    way: tuple[TroubledStore, str], pauses: list[float]
) -> None:
    proxy, bucket = way
    store, data = Store(f"{bucket}/store"), Store(f"{bucket}/data")
    for number in range(60):
        data.write_bytes(data.uri("ab"[number % 2], f"{number}.png"), picture(number))
    shard = Manifest(store, split(data.url, store).fingerprint).shard("train", 0, 1)
    held = proxy.make(Trouble("held", times=FOREVER, match=lambda method, path: ".png" in path))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list, shard)  # waits for the first of them
        deadline = time.monotonic() + 120
        while held.taken < THREADS and time.monotonic() < deadline:
            time.sleep(0.02)
        asked = held.taken
        held.times = 0
        assert len(reading.result()) == 36
    assert asked == THREADS


@pytest.fixture
def table() -> pandas.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2))
    return pandas.DataFrame({"x": x[:, 0], "y": x[:, 1], "label": np.where(x.sum(1) > 0, "up", "down")})


WRITERS: dict[str, Callable[[pandas.DataFrame], bytes]] = {
    "csv": lambda frame: frame.to_csv(index=False).encode(),
    "csv.gz": lambda frame: __import__("gzip").compress(frame.to_csv(index=False).encode()),
    "parquet": lambda frame: frame.to_parquet(index=False, row_group_size=70),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_tables_on_s3_are_split_and_read_by_shards(bucket: str, table: pandas.DataFrame, suffix: str) -> None:
    store = Store(f"{bucket}/store")
    for number, piece in enumerate((table.iloc[:300], table.iloc[300:])):
        store.write_bytes(f"{bucket}/tables/{number}.{suffix}", WRITERS[suffix](piece))
    layout = suffix.split(".")[0]
    made = split(f"{bucket}/tables", store, format=layout, label="label")
    assert made.summary["samples"] == 500
    manifest = Manifest(store, made.fingerprint)
    found = [sample for rank in range(2) for sample in manifest.shard("train", rank, 2)]
    assert len(found) == made.summary["counts"]["train"]
    for sample in found[:50]:
        assert (sample.payload["x"] + sample.payload["y"] > 0) == (sample.labels["label"] == "up")
    assert describe_source(f"{bucket}/tables/0.{suffix}")["format"] == layout


def test_a_parquet_file_that_is_cut_off_or_spoilt_is_named(bucket: str, table: pandas.DataFrame) -> None:
    store = Store(f"{bucket}/store")
    whole = WRITERS["parquet"](table)
    store.write_bytes(f"{bucket}/cut/a.parquet", whole[: len(whole) // 2])
    with pytest.raises(DataInvalid, match=r"cut/a\.parquet is not a whole Parquet file"):
        split(f"{bucket}/cut", store, format="parquet", label="label")
    store.write_bytes(f"{bucket}/spoilt/a.parquet", whole[:200] + b"\0" * 800 + whole[1000:])
    with pytest.raises(DataInvalid, match=r"spoilt/a\.parquet"):
        split(f"{bucket}/spoilt", store, format="parquet", label="label")


def test_picking_columns_of_a_wide_table_fetches_little_more_than_them(way: tuple[TroubledStore, str]) -> None:
    """s3fs as it comes fetches 50 MB for each piece that is asked for."""
    proxy, bucket = way
    rng = np.random.default_rng(0)
    columns = {f"c{number}": rng.normal(size=60_000) for number in range(30)}
    file = io.BytesIO()
    pq.write_table(pa.table({**columns, "label": rng.integers(0, 2, 60_000).astype(str)}), file, compression="none")
    store = Store(f"{bucket}/store")
    store.write_bytes(f"{bucket}/wide/a.parquet", file.getvalue())
    proxy.requests.clear()
    proxy.sent = 0
    split(f"{bucket}/wide", store, format="parquet", label="label", features=["c3", "c17"])
    of_two_columns = 3 * 60_000 * 8
    assert proxy.sent < 2.5 * of_two_columns + (1 << 20)
    assert proxy.sent < len(file.getvalue())


# errors


def test_a_source_that_refuses_or_is_nowhere_says_so(
    pictures: tuple[str, Path], s3_server: S3Store, bucket: str
) -> None:
    url, _ = pictures
    with pytest.raises(DataInvalid, match="nothing at"):
        fingerprint_source(part(f"{bucket}/nothing/here"))
    with pytest.raises(Unavailable, match="there is no bucket misspelt-bucket"):
        fingerprint_source(part("s3://misspelt-bucket/pictures"))
    with (
        environment({**s3_server.environment, "AWS_SECRET_ACCESS_KEY": "wrong"}),
        pytest.raises(Unavailable, match="refuses access") as error,
    ):
        fingerprint_source(part(url))
    assert "AWS_SECRET_ACCESS_KEY" in error.value.action


def test_a_source_that_breaks_down_in_the_middle_is_unavailable_and_leaves_no_split(
    way: tuple[TroubledStore, str], pauses: list[float]
) -> None:
    proxy, bucket = way
    store, data = Store(f"{bucket}/store"), Store(f"{bucket}/data")
    for number in range(20):
        data.write_bytes(data.uri("ab"[number % 2], f"{number}.png"), picture(number))
    broken = Trouble("status", times=1000, status=500, code="InternalError", match=lambda _, path: "/7.png" in path)
    proxy.make(broken)
    with pytest.raises(Unavailable, match=r"7\.png cannot be reached"):
        split(data.url, store)
    assert store.names(store.uri("splits")) == []


# predictions without an endpoint


def test_a_batch_is_predicted_from_s3_to_s3_with_a_package_on_s3(
    bucket: str, digits_package: Callable[[str], StableVersion], digit_pictures: list[bytes]
) -> None:
    version = digits_package("7")
    store = Store(f"{bucket}/store")
    package = store.put_folder(Path(version.package_uri), store.uri("packages", version.sha256), marker="headrace.json")
    for number, data in enumerate(digit_pictures[:30]):
        store.write_bytes(f"{bucket}/in/{number:02d}.png", data)
    store.write_bytes(f"{bucket}/in/99.png", b"no picture")
    output = f"{bucket}/out/deep/answers.parquet"
    done = predict_batch(package, f"{bucket}/in", output)
    assert (done["rows"], done["errors"]) == (31, 1)
    rows = pq.read_table(io.BytesIO(store.read_bytes(output) or b"")).to_pylist()
    assert [row["uri"] for row in rows] == [*(f"{bucket}/in/{n:02d}.png" for n in range(30)), f"{bucket}/in/99.png"]
    assert [bool(row["error"]) for row in rows] == [False] * 30 + [True]
    near = predict_batch(version.package_uri, f"{bucket}/in/05.png", f"{bucket}/one.parquet")
    assert near["rows"] == 1
    (one,) = pq.read_table(io.BytesIO(store.read_bytes(f"{bucket}/one.parquet") or b"")).to_pylist()
    assert one["score"] == pytest.approx(rows[5]["score"])


def test_a_batch_that_fails_leaves_no_output_and_one_that_cannot_be_written_says_so_first(
    way: tuple[TroubledStore, str],
    digits_package: Callable[[str], StableVersion],
    digit_pictures: list[bytes],
    pauses: list[float],
) -> None:
    proxy, bucket = way
    package = digits_package("7").package_uri
    store = Store(bucket)
    for number, data in enumerate(digit_pictures[:5]):
        store.write_bytes(f"{bucket}/in/{number:02d}.png", data)
    broken = Trouble("status", times=1000, status=500, code="InternalError", match=lambda _, path: "/03.png" in path)
    proxy.make(broken)
    with pytest.raises(Unavailable, match=r"03\.png"):
        predict_batch(package, f"{bucket}/in", f"{bucket}/out.parquet")
    assert not store.exists(f"{bucket}/out.parquet")
    proxy.requests.clear()
    with pytest.raises(Unavailable, match="there is no bucket no-such-bucket"):
        predict_batch(package, f"{bucket}/in", "s3://no-such-bucket/out.parquet")
    assert not any(".png" in path for _, path in proxy.requests)
