"""What the tests of annotated pictures share: cards of tasks that want annotations, and data in VOC's layout."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from headrace.data import Manifest, fingerprint_source, split_data
from headrace.data.strategies import SPLITS
from headrace_models.catalog.cards import TaskCard

BCCD = Path(__file__).parents[3] / "shared" / "data" / "bccd" / "BCCD"
CARDS = {
    "boxes": TaskCard("boxes", "", "", label_kind="annotation"),
    "masks": TaskCard("masks", "", "", label_kind="annotation", masks=True),
    "class": TaskCard("class", "", "", label_kind="class"),
    "number": TaskCard("number", "", "", label_kind="number"),
}


def picture(number, size=(60, 40), kind="JPEG", **options):
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def drawn(name="cat", box=(11, 6, 30, 25), difficult=0):
    sides = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{sides}</bndbox></object>"


def sheet(*objects, size=(60, 40)):
    told = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    return f"<annotation>{told}{''.join(objects)}</annotation>"


def put(folder, name, xml, content=None):
    for kind in ("Annotations", "JPEGImages"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    if xml is not None:
        (folder / "Annotations" / f"{name}.xml").write_text(xml)
    if content != b"":
        (folder / "JPEGImages" / f"{name}.jpg").write_bytes(content or picture(sum(name.encode()) * 7))


def fill(folder, each=10):
    for number in range(each):
        for name in ("cat", "dog"):
            put(folder, f"{name}{number}", sheet(drawn(name)), picture([number, *name.encode()]))
    return folder


def run(source, split_part, store, task="boxes", **given):
    part = split_part(source, format=given.pop("format", "voc"), task=task, **given)
    if isinstance(task, tuple):
        part["tasks"] = [{"name": name, "args": {}} for name in task]
    return split_data(part, store=store, source_fingerprint=fingerprint_source(part), tell=lambda text: None)


def samples(result, store):
    manifest = Manifest(store, result.fingerprint)
    shards = [manifest.shard(split, 0, 1) for split in SPLITS]
    return {Path(s.uri(i)).name: s[i] for s in shards for i in range(len(s))}


def told(result):
    return [(named["uri"].rsplit("/", 1)[-1], named["reason"], named["action"]) for named in problems(result)]


def problems(result):
    return result.summary["annotations"]["problems"]["named"]
