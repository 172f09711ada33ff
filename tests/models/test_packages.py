"""A package holds a whole model under one hash, gives it back bit for bit, and refuses what was changed."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headrace.base.errors import InvalidInput
from headrace.base.jsonfile import sha256_of
from headrace_models.package import (
    PackageManifest,
    build_model,
    load_package,
    mlflow_columns,
    pack_code,
    read_package,
    write_package,
)
from headrace_models.package.mlflow_loader import _load_pyfunc
from headrace_models.package.write import untied_state
from headrace_models.tasks import BadInput, Sample, Schema, Task, build_task

PROVENANCE = {"spec_sha256": "ab" * 32, "split_fingerprint": "cd", "git_commit": None}

OWN = """
import torch
from torch import nn
from parts import Tied

class Net(Tied):
    def __init__(self, in_features, num_classes, width=6):
        super().__init__(width)
        self.first = nn.Linear(in_features, width)
        self.head = nn.Linear(width, num_classes)
        self.turned = nn.Parameter(torch.arange(12.0).reshape(3, 4).t())
        self.register_buffer("step", torch.tensor(7))

    def forward(self, x):
        return self.head(self.decode(self.encode(self.first(x.flatten(1))))) + self.turned.sum()
"""
PARTS = """
from torch import nn

class Tied(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.encode = nn.Linear(width, width)
        self.decode = nn.Linear(width, width)
        self.decode.weight = self.encode.weight
"""


@pytest.fixture(scope="module")
def task(digits: Any, learned: Callable[..., Task]) -> Task:
    train, _, schema = digits
    return learned("image-classification", train[:50], schema)


def packed(folder: Path, task: Task, samples: list[Sample], model: dict[str, Any], code: Path | None = None) -> str:
    torch.manual_seed(3)
    network = build_model(model, task, code)
    return write_package(
        folder,
        task=task,
        model=network,
        model_record=model,
        code_folder=code,
        provenance=PROVENANCE,
        example=task.request(samples[:2]),
    )


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "net.py").write_text(OWN)
    (folder / "parts.py").write_text(PARTS)
    return folder


def test_a_package_of_before_there_were_top_labels_answers_with_them(tmp_path: Path, task: Task, digits: Any) -> None:
    packed(tmp_path / "p", task, digits[1], {"name": "resnet8", "args": {"width": 4}})
    path = tmp_path / "p" / "headrace.json"
    record = json.loads(path.read_text())
    record["signature"]["outputs"] = record["signature"]["outputs"][:3]
    record["task"]["args"] = {key: record["task"]["args"][key] for key in ("image_size", "channels", "augment")}
    path.write_text(json.dumps(record))
    loaded = load_package(tmp_path / "p")
    assert [spec.name for spec in loaded.manifest.signature.outputs] == ["label", "score", "probabilities"]
    answer = loaded.predict(loaded.example)
    assert answer["top_labels"][:, 0].tolist() == answer["label"].tolist()
    assert answer["top_labels"].shape == (2, 5)


UPRIGHT = {  # by EXIF orientation: what was done to the upright picture before it was saved
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def turned(picture: Image.Image, orientation: int, layout: str) -> bytes:
    """PICTURE as a camera saves it that was held otherwise, and says so."""
    done, exif, buffer = UPRIGHT[orientation], Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    settings = {"quality": 95, "subsampling": 0} if layout == "JPEG" else {}
    (picture if done is None else picture.transpose(done)).save(buffer, layout, exif=exif, **settings)
    return buffer.getvalue()


def test_a_picture_is_trained_on_and_answered_alike_however_the_camera_was_held(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    upright = Image.fromarray(pixels).resize((40, 24), Image.Resampling.BICUBIC)  # wider than high, and smooth
    task = build_task({"name": "image-classification", "args": {"image_size": [24, 40]}}, Schema("label", ("a", "b")))
    shown = {
        (layout, orientation): Sample("x", turned(upright, orientation, layout), {"label": "a"})
        for layout in ("PNG", "JPEG")
        for orientation in UPRIGHT
    }
    task.learn([task.summarise([shown["PNG", 1]])])
    packed(tmp_path / "p", task, list(shown.values()), {"name": "resnet8", "args": {"width": 8}})
    loaded = load_package(tmp_path / "p")
    answers = {key: loaded.predict(task.request([sample])) for key, sample in shown.items()}
    seen = {key: loaded.task.preprocess(task.request([sample]))["image"][0].numpy() for key, sample in shown.items()}
    for (layout, orientation), sample in shown.items():
        key = layout, orientation
        assert np.array_equal(task.decode(sample)["image"], seen[key])
        off = np.abs(seen[key].astype(int) - seen[layout, 1]).max()
        assert off <= (0 if layout == "PNG" else 8)  # a turned JPEG is compressed otherwise
        for name in ("label", "probabilities") if layout == "PNG" else ("label",):
            assert np.array_equal(answers[key][name], answers[layout, 1][name])
        summary = task.summarise([sample])
        assert (summary["heights"], summary["widths"]) == ([[24, 1]], [[40, 1]])
    sideways = Image.fromarray(np.rot90(np.asarray(upright)).copy())  # turned, and says nothing of it
    other = task.decode(Sample("x", turned(sideways, 1, "PNG")))["image"]
    assert np.abs(other.astype(int) - seen["PNG", 1]).max() > 50


def test_the_training_pictures_normalisation_goes_with_the_package(tmp_path: Path, task: Task, digits: Any) -> None:
    packed(tmp_path / "p", task, digits[1], {"name": "resnet8", "args": {"width": 4}})
    trained = np.stack([task.decode(sample)["image"] for sample in digits[0][:50]]) / 255
    stored = json.loads((tmp_path / "p" / "headrace.json").read_text())["task"]["preprocessing"]
    assert stored["mean"] == pytest.approx([trained.mean()])
    assert stored["std"] == pytest.approx([trained.std()])
    loaded = load_package(tmp_path / "p")
    seen: list[torch.Tensor] = []
    loaded.model.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    dark = np.full((1, 1, 8, 8), 0.25, np.float32)  # of one brightness: its own would be another normalisation
    loaded.predict({"image": dark})
    wanted = (np.rint(dark * 255) / 255 - trained.mean()) / trained.std()
    np.testing.assert_allclose(seen[0].numpy(), wanted, rtol=1e-4)


def changed(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)


@pytest.mark.parametrize("model", [{"name": "resnet8", "args": {"width": 4}}, {"name": "mlp", "args": {}}])
def test_a_model_comes_back_bit_for_bit(tmp_path: Path, task: Task, digits: Any, model: dict[str, Any]) -> None:
    sha256 = packed(tmp_path / "p", task, digits[1], model)
    loaded = load_package(tmp_path / "p")
    torch.manual_seed(3)
    network = build_model(model, task).eval()
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)
    request = task.request(digits[1][:9])
    with torch.inference_mode():
        batch = task.preprocess(request)
        wanted = task.postprocess(network(*task.inputs(batch)), batch)
    answer = loaded.predict(request)
    assert all(np.array_equal(answer[name], wanted[name]) for name in wanted)
    assert loaded.sha256 == sha256
    assert loaded.signature == task.signature()


def test_the_same_model_has_the_same_hash_and_another_provenance_another(
    tmp_path: Path, task: Task, digits: Any
) -> None:
    model = {"name": "mlp", "args": {"hidden": [8]}}
    one = packed(tmp_path / "one", task, digits[1], model)
    assert packed(tmp_path / "two", task, digits[1], model) == one
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert packed(tmp_path / "three", task, digits[1], {"name": "mlp", "args": {"hidden": [9]}}) != one


def test_the_manifest_says_what_the_model_is_and_needs_no_torch(tmp_path: Path, task: Task, digits: Any) -> None:
    sha256 = packed(tmp_path / "p", task, digits[1], {"name": "mlp", "args": {"hidden": [8]}})
    code = f"""
import sys
sys.modules["torch"] = None
from headrace_models.package import read_package, verify_files
manifest = read_package({str(tmp_path / "p")!r})
verify_files({str(tmp_path / "p")!r}, manifest)
print(manifest.sha256, manifest.task_name, manifest.parameters, ",".join(manifest.classes))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [sha256, "image-classification", str(64 * 8 + 8 + 80 + 10), "0,1,2,3,4,5,6,7,8,9"]
    record = json.loads((tmp_path / "p" / "headrace.json").read_text())
    assert sha256_of(record) == sha256
    assert record["format"] == 1
    assert record["provenance"] == PROVENANCE
    assert sorted(record["files"]) == ["example.json", "model.safetensors"]
    assert record["signature"]["inputs"][0]["content"] == "image"


def test_there_is_no_pickle_in_it(tmp_path: Path, task: Task, digits: Any, own: Path) -> None:
    packed(tmp_path / "p", task, digits[1], {"name": "net:Net"}, own)
    names = sorted(p.relative_to(tmp_path / "p").as_posix() for p in (tmp_path / "p").rglob("*") if p.is_file())
    assert names == ["code/net.py", "code/parts.py", "example.json", "headrace.json", "model.safetensors"]
    header = (tmp_path / "p" / "model.safetensors").read_bytes()[8:]
    assert header.startswith(b"{")


def test_own_code_goes_with_it_and_still_predicts_when_its_folder_is_gone(
    tmp_path: Path, task: Task, digits: Any, own: Path
) -> None:
    sha256 = pack_code(own)[0]
    packed(tmp_path / "p", task, digits[1], {"name": "net:Net", "args": {"width": 5}}, own)
    shutil.rmtree(own)
    loaded = load_package(tmp_path / "p")
    assert loaded.manifest.code_sha256 == sha256 == pack_code(tmp_path / "p" / "code")[0]
    assert loaded.predict(loaded.example)["probabilities"].shape == (2, 10)
    assert not list(tmp_path.rglob("__pycache__"))


def test_tied_weights_are_stored_once_and_tied_again(tmp_path: Path, task: Task, digits: Any, own: Path) -> None:
    packed(tmp_path / "p", task, digits[1], {"name": "net:Net"}, own)
    loaded = load_package(tmp_path / "p")
    assert loaded.manifest.tied == {"decode.weight": "encode.weight"}
    assert loaded.model.decode.weight.data_ptr() == loaded.model.encode.weight.data_ptr()
    assert torch.equal(loaded.model.turned, torch.arange(12.0).reshape(3, 4).t())
    assert int(loaded.model.step) == 7


def test_views_of_one_storage_are_not_taken_for_tied() -> None:
    base = torch.arange(6.0)
    module = nn.Module()
    module.register_buffer("whole", base)
    module.register_buffer("first_half", base[:3])
    module.register_buffer("every_second", base[::2])
    module.register_buffer("empty", torch.zeros(0))
    module.register_buffer("also_empty", torch.zeros(0))
    weights, tied = untied_state(module)
    assert tied == {}
    assert set(weights) == {"whole", "first_half", "every_second", "empty", "also_empty"}
    assert weights["every_second"].tolist() == [0, 2, 4]
    assert weights["every_second"].is_contiguous()


def test_state_that_could_only_be_pickled_is_refused() -> None:
    class Odd(nn.Module):
        def get_extra_state(self) -> Any:
            return {"a": 1}

    with pytest.raises(InvalidInput, match="only tensors can be packed"):
        untied_state(Odd())


# damage


@pytest.fixture
def package(tmp_path: Path, task: Task, digits: Any, own: Path) -> Path:
    packed(tmp_path / "p", task, digits[1], {"name": "net:Net"}, own)
    return tmp_path / "p"


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda p: changed(p, "model.safetensors", (p / "model.safetensors").read_bytes()[:-1] + b"x"), "not the file"),
        (lambda p: changed(p, "code/parts.py", b"raise SystemExit\n"), "code/parts.py is not the file"),
        (lambda p: changed(p, "code/torch.py", b"raise SystemExit\n"), "code/torch.py was added"),
        (lambda p: (p / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda p: changed(p, "headrace.json", b"{"), "headrace.json cannot be read"),
        (lambda p: changed(p, "headrace.json", b"[]"), "headrace.json cannot be read"),
        (lambda p: changed(p, "headrace.json", b'{"format": 1}'), "lacks or misspells 'headrace'"),
    ],
)
def test_a_damaged_package_is_refused_by_name(package: Path, damage: Callable[[Path], None], what: str) -> None:
    damage(package)
    with pytest.raises(InvalidInput) as raised:
        load_package(package)
    assert raised.value.code == "package-damaged"
    assert what in raised.value.message
    assert raised.value.action


def test_a_changed_manifest_changes_the_hash(package: Path) -> None:
    before = read_package(package).sha256
    record = json.loads((package / "headrace.json").read_text())
    record["provenance"]["git_commit"] = "forged"
    changed(package, "headrace.json", json.dumps(record).encode())
    assert read_package(package).sha256 != before


def test_a_package_of_a_later_format_asks_for_an_upgrade(package: Path) -> None:
    record = json.loads((package / "headrace.json").read_text())
    changed(package, "headrace.json", json.dumps({"format": 2, "layout": "other", "files": record["files"]}).encode())
    with pytest.raises(InvalidInput) as raised:
        read_package(package)
    assert raised.value.code == "package-too-new"
    assert "upgrade" in raised.value.action


def test_a_folder_without_a_package_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no model package"):
        read_package(tmp_path)


def test_weights_that_do_not_fit_the_code_are_said(tmp_path: Path, task: Task, digits: Any) -> None:
    packed(tmp_path / "p", task, digits[1], {"name": "mlp", "args": {"hidden": [8]}})
    record = json.loads((tmp_path / "p" / "headrace.json").read_text())
    record["model"]["args"]["hidden"] = [9]
    changed(tmp_path / "p", "headrace.json", json.dumps(record).encode())
    with pytest.raises(InvalidInput) as raised:
        load_package(tmp_path / "p")
    assert raised.value.code == "package-mismatch"


# prediction


def test_requests_answered_together_are_answered_as_apart(package: Path, task: Task, digits: Any) -> None:
    loaded = load_package(package)
    requests = [task.request(digits[1][start : start + size]) for start, size in ((0, 1), (1, 3), (4, 2))]
    together = loaded.answer([loaded.task.preprocess(request) for request in requests])
    for request, answer in zip(requests, together, strict=True):
        apart = loaded.predict(request)
        assert answer["label"].tolist() == apart["label"].tolist()
        assert answer["probabilities"] == pytest.approx(apart["probabilities"], abs=1e-6)


def test_many_threads_get_their_own_answers(package: Path, task: Task, digits: Any) -> None:
    loaded = load_package(package)
    wanted = [loaded.predict(task.request([sample]))["score"] for sample in digits[1][:24]]
    found: dict[int, Any] = {}

    def ask(place: int) -> None:
        found[place] = loaded.predict(task.request([digits[1][place]]))["score"]

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[place], wanted[place]) for place in range(24))


def test_loading_leaves_the_random_numbers_of_a_training_alone(package: Path) -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    load_package(package)
    assert torch.equal(torch.rand(3), wanted)


# MLflow


def test_mlflow_sees_pictures_as_bytes_and_answers_as_the_endpoint_does(package: Path, task: Task, digits: Any) -> None:
    import base64

    import pandas as pd

    columns = mlflow_columns(read_package(package).signature)
    assert columns["inputs"] == [{"name": "image", "type": "binary", "array": False}]
    assert [(c["name"], c["type"], c["array"]) for c in columns["outputs"]] == [
        ("label", "string", False),
        ("score", "double", False),
        ("probabilities", "double", True),
        ("top_labels", "string", True),
        ("top_scores", "double", True),
    ]
    pictures = [sample.payload for sample in digits[1][:3]]
    endpoint = load_package(package).predict(task.request(digits[1][:3]))
    pyfunc = _load_pyfunc(str(package))
    as_text = [base64.b64encode(picture).decode() for picture in pictures]
    index = [7, 8, 9]
    for given in (pd.DataFrame({"image": pictures}, index=index), pd.DataFrame({"image": as_text}, index=index)):
        answer = pyfunc.predict(given)
        assert list(answer.columns) == ["label", "score", "probabilities", "top_labels", "top_scores"]
        assert list(answer.index) == index
        assert answer["label"].tolist() == endpoint["label"].tolist()
        assert answer["score"].tolist() == endpoint["score"].tolist()
        assert answer["probabilities"].tolist() == endpoint["probabilities"].tolist()
        assert json.loads(answer.to_json(orient="records"))[0]["label"] == endpoint["label"][0]
    assert pyfunc.predict({"image": pictures}, params={})["label"].tolist() == endpoint["label"].tolist()
    with pytest.raises(BadInput, match="base64"):
        pyfunc.predict(pd.DataFrame({"image": ["not base64!"]}))
    with pytest.raises(BadInput, match="'image' is missing"):
        pyfunc.predict(pd.DataFrame({"picture": pictures}))


def test_mlflow_sees_a_tables_columns(tmp_path: Path, learned: Callable[..., Task]) -> None:
    import pandas as pd

    schema = Schema("y", (), {"age": "number", "city": "category"})
    rows = [Sample(f"r{n}", {"age": n, "city": "Rome" if n % 2 else None}, {"y": 10.0 * n}) for n in range(8)]
    task = learned("tabular-regression", rows, schema)
    packed(tmp_path / "p", task, rows, {"name": "mlp", "args": {"hidden": [4]}})
    loaded = load_package(tmp_path / "p")
    assert loaded.example["city"].tolist() == [b"", b"Rome"]
    columns = mlflow_columns(loaded.signature)
    assert [(c["name"], c["type"]) for c in columns["inputs"]] == [("age", "double"), ("city", "string")]
    table = pd.DataFrame({"age": [1, None, 3], "city": ["Rome", None, "Oslo"]})
    answer = _load_pyfunc(str(tmp_path / "p")).predict(table)
    wanted = loaded.predict({"age": np.array([1, np.nan, 3]), "city": np.array(["Rome", None, ""], dtype=object)})
    assert answer["prediction"].tolist() == wanted["prediction"].tolist()


def test_an_example_with_missing_numbers_survives(tmp_path: Path, learned: Callable[..., Task]) -> None:
    schema = Schema("y", ("a", "b"), {"age": "number"})
    rows = [Sample(f"r{n}", {"age": None if n == 0 else n}, {"y": "ab"[n % 2]}) for n in range(4)]
    task = learned("tabular-classification", rows, schema)
    packed(tmp_path / "p", task, rows, {"name": "mlp", "args": {"hidden": []}})
    example = load_package(tmp_path / "p").example
    assert example["age"].dtype == np.float64
    assert np.isnan(example["age"][0])
    assert example["age"][1] == 1
    assert isinstance(read_package(tmp_path / "p"), PackageManifest)
