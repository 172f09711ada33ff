"""The whole way with the commands a stranger types: a folder nobody prepared, own code that is deleted.

One Ray head serves all tests of the tier; each test has names of its own.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

pytestmark = pytest.mark.timeout(900)  # many commands, each in a process of its own

BIN = Path(sys.executable).parent
CLASSES = ("cross", "disc", "square")


def headrace(*arguments: str, cwd: Path, code: int = 0) -> Any:
    """Run one command; its JSON where there is any, else its text."""
    done = subprocess.run(
        [BIN / "headrace", *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def draw(kind: str, rng: random.Random) -> Image.Image:
    """A dark shape on a light ground, of any size from 20 to 60 pixels a side."""
    width, height = rng.randint(20, 60), rng.randint(20, 60)
    picture = Image.new("RGB", (width, height), tuple(rng.randint(190, 255) for _ in range(3)))
    pen, colour = ImageDraw.Draw(picture), tuple(rng.randint(0, 90) for _ in range(3))
    x, y, size = width // 2, height // 2, int(min(width, height) * 0.35)
    if kind == "disc":
        pen.ellipse((x - size, y - size, x + size, y + size), fill=colour)
    elif kind == "square":
        pen.rectangle((x - size, y - size, x + size, y + size), outline=colour, width=2)
    else:
        pen.line((x - size, y, x + size, y), fill=colour, width=3)
        pen.line((x, y - size, x, y + size), fill=colour, width=3)
    return picture


def save(picture: Image.Image, path: Path, number: int) -> Path:
    """Save in one of the ways that pictures come: grey, RGBA, palette, JPEG turned by EXIF, capital letters."""
    way = number % 5
    if way == 0:
        picture.convert("L").save(path.with_suffix(".png"))
    elif way == 1:
        picture.convert("RGBA").save(path.with_suffix(".png"))
    elif way == 2:
        picture.convert("P").save(path.with_suffix(".png"))
    elif way == 3:
        exif = Image.Exif()
        exif[0x0112] = 6
        path = path.with_suffix(".jpg")
        picture.save(path, exif=exif)
        return path
    else:
        path = path.with_suffix(".JPG")
        picture.save(path, format="JPEG")
        return path
    return path.with_suffix(".png")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of mixed sizes and modes, one truncated file, one empty class, and what lies about in real folders."""
    rng = random.Random(7)
    folder = tmp_path_factory.mktemp("work") / "shapes"
    for kind in CLASSES:
        (folder / kind).mkdir(parents=True)
        for number in range(50):
            save(draw(kind, rng), folder / kind / f"{number:02d}", number)
    broken = folder / "disc" / "truncated.png"
    draw("disc", rng).resize((300, 300)).save(broken)
    broken.write_bytes(broken.read_bytes()[:700])
    (folder / "nothing").mkdir()
    (folder / ".DS_Store").write_text("x")
    return folder


RUN = ("run", "shapes.yaml", "--json", "--set", "train.epochs=2", "--set", "gate=[]")


@pytest.fixture(scope="module")
def shapes_run(headrace_home: Path, shapes: Path) -> Any:
    """What became of the folder's run, from `headrace init` to the endpoint."""
    headrace("init", "shapes", cwd=shapes.parent)
    return headrace(*RUN, cwd=shapes.parent)


def test_an_image_folder_nobody_prepared_goes_the_whole_way(shapes: Path, shapes_run: Any) -> None:
    work, result = shapes.parent, shapes_run
    spec = (work / "shapes.yaml").read_text()
    assert len([line for line in spec.splitlines() if line.strip() and not line.startswith("#")]) <= 10
    assert result["state"] == "succeeded"
    log = headrace("logs", result["run_id"], cwd=work)
    assert "truncated.png" in log
    assert "nothing" in log
    pictures = [str(next((shapes / kind).glob(f"0{n}.*"))) for kind in CLASSES for n in range(5)]
    answered = headrace("predict", result["endpoint"]["model"], *pictures, "--json", cwd=work)
    rows = answered["predictions"]
    assert len(rows) == len(pictures)
    assert {row["label"] for row in rows} <= set(CLASSES)
    headrace("predict", "shapes@champion", "--input", str(shapes), "--output", "batch.parquet", cwd=work)
    import pyarrow.parquet as pq

    batch = {Path(row["uri"]).name: row for row in pq.read_table(work / "batch.parquet").to_pylist() if row["label"]}
    for row in rows:
        kind, name = Path(row["file"]).parts[-2:]
        same = [r for n, r in batch.items() if n == name and kind in r["uri"]]
        assert not same or same[0]["score"] == pytest.approx(row["score"], abs=1e-5)
    headrace("undeploy", result["endpoint"]["model"], "--yes", cwd=work)


def test_too_many_bad_files_end_the_run_with_each_named(headrace_home: Path, shapes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(shapes, folder)
    for name in ("one.png", "two.png", "three.jpg"):
        (folder / "cross" / name).write_bytes(b"this is no picture")
    headrace("init", "bad", cwd=tmp_path)
    result = headrace("run", "bad.yaml", "--json", "--set", "data.max_corrupt=0.01", cwd=tmp_path, code=2)
    assert result["state"] == "failed"
    named = json.dumps(result["findings"])
    assert all(name in named for name in ("one.png", "two.png", "three.jpg", "truncated.png"))


def test_a_changed_file_is_never_served_stale(shapes: Path, shapes_run: Any) -> None:
    def states(result: Any) -> dict[str, str]:
        return {step["name"]: step["state"] for step in result["steps"]}

    again = headrace(*RUN, "--set", "deploy=null", cwd=shapes.parent)
    assert (states(again)["split"], states(again)["train"]) == ("cached", "cached")
    assert again["model"]["version"] == shapes_run["model"]["version"]
    draw("square", random.Random(99)).save(shapes / "square" / "00.png")
    changed = headrace(*RUN, "--set", "deploy=null", cwd=shapes.parent)
    assert (states(changed)["split"], states(changed)["train"]) == ("succeeded", "succeeded")
    assert changed["model"]["version"] != shapes_run["model"]["version"]


OWN_SPEC = """\
name: own
task: image-classification
data: {source: "builtin:digits", format: image-folder}
model: {name: "my_model:Net", code: ./src, args: {width: 8}}
train: {epochs: 1, batch_size: 64, workers: 1, optimizer: {name: adam, lr: 0.003}}
register: {name: own, alias: champion}
"""
OWN_CODE = """\
import torch
from torch import nn

from blocks import block


class Net(nn.Module):
    def __init__(self, num_classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(block(in_channels, width), nn.AdaptiveAvgPool2d(2))
        self.head = nn.LazyLinear(num_classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(image).flatten(1))
"""
OWN_BLOCKS = """\
from torch import nn


def block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU())
"""


def test_own_code_goes_the_whole_way_and_serves_after_its_folder_is_gone(headrace_home: Path, tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "my_model.py").write_text(OWN_CODE)
    (source / "blocks.py").write_text(OWN_BLOCKS)
    (tmp_path / "own.yaml").write_text(OWN_SPEC)
    result = headrace("run", "own.yaml", "--json", cwd=tmp_path)
    assert result["state"] == "succeeded"
    shutil.rmtree(source)  # before any process serves it
    headrace("deploy", "own@champion", "--yes", cwd=tmp_path)
    Image.new("L", (8, 8), 128).save(tmp_path / "grey.png")
    (row,) = headrace("predict", "own", "grey.png", "--json", cwd=tmp_path)["predictions"]
    assert row["label"] in list("0123456789")
    assert row["version"] == result["model"]["version"]
    headrace("undeploy", "own", "--yes", cwd=tmp_path)
