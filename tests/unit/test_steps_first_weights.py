"""Weights that `model.init_from` names, on their way into the store: what PyTorch saved, what torchvision publishes.

Nothing is downloaded here: a network of torchvision is saved under the name that a published file would have.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torchvision import models
from torchvision.models import Weights, WeightsEnum

from headrace.base.errors import InvalidInput, SpecInvalid
from headrace.base.jsonfile import sha256_of_file
from headrace.spec import load_spec
from headrace.steps.first_weights import pinned_weights, with_stored_weights
from headrace.steps.torchvision_weights import torchvision_file
from headrace.store import Store

SPEC: dict[str, Any] = {"name": "digits", "task": "image-classification", "data": {"source": "builtin:digits"}}


@dataclass
class Hub:
    """torch.hub's folder of this test, and one network of torchvision that its file holds."""

    folder: Path
    network: torch.nn.Module

    @property
    def file(self) -> Path:
        return next(self.folder.iterdir())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A SqueezeNet in torch.hub's folder, under a name with its hash, as torchvision's `SqueezeNet1_1_Weights.NEW`."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(3)
    network = models.squeezenet1_1(num_classes=4)
    torch.save(network.state_dict(), tmp_path / "saved.pth")
    name = f"squeezenet1_1-{sha256_of_file(tmp_path / 'saved.pth')[:8]}.pth"
    (tmp_path / "saved.pth").rename(folder / name)

    class Published(WeightsEnum):
        NEW = Weights(url=f"https://example.invalid/models/{name}", transforms=lambda x: x, meta={})
        DEFAULT = NEW

    Published.__name__ = "SqueezeNet1_1_Weights"
    monkeypatch.setattr(models, "SqueezeNet1_1_Weights", Published)
    return Hub(folder, network)


def spec(init_from: str) -> dict[str, Any]:
    document = {**SPEC, "model": {"name": "resnet8", "init_from": init_from}}
    return load_spec(document).to_record()


def told(init_from: str) -> str:
    """The one mistake of a spec with INIT_FROM."""
    with pytest.raises(SpecInvalid) as raised:
        spec(init_from)
    (finding,) = raised.value.findings
    assert finding.where == "model.init_from"
    return str(finding)


def stored(init_from: str, store: Store) -> str:
    return str(with_stored_weights(spec(init_from), store, lambda reference: None)["model"]["init_from"])


def save(content: Any, path: Path) -> str:
    torch.save(content, path)
    return str(path)


# torchvision's names


@pytest.mark.parametrize("name", ["SqueezeNet1_1_Weights.NEW", "SqueezeNet1_1_Weights.DEFAULT"])
def test_torchvisions_weights_are_taken_into_the_store_as_safetensors(hub: Hub, store: Store, name: str) -> None:
    given = f"torchvision:{name}"
    uri = stored(given, store)
    assert uri == store.uri("files", f"{sha256_of_file(hub.file)}.safetensors") == pinned_weights(given, store)
    shutil.rmtree(hub.folder)
    weights = load_file(uri)
    assert weights.keys() == hub.network.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in hub.network.state_dict().items())


def test_weights_that_are_not_here_are_told_with_where_they_would_be_and_are_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("it was downloaded"))
    for given in ("torchvision:resnet50", "torchvision:ResNet50_Weights.IMAGENET1K_V2"):  # the default ones
        with pytest.raises(InvalidInput) as raised:
            stored(given, store)
        message, action = raised.value.message, raised.value.action
        assert "ResNet50_Weights.IMAGENET1K_V2 are not on this machine" in message
        assert "resnet50-11ad3fa6.pth" in message
        assert str(tmp_path / "torch" / "hub" / "checkpoints") in message
        assert "get_weight('ResNet50_Weights.IMAGENET1K_V2').get_state_dict" in action


def test_the_command_that_downloads_brings_the_file_to_where_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub
) -> None:
    aside = shutil.move(hub.file, tmp_path / "aside.pth")
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, into, *_, **__: shutil.copy(aside, into))
    with pytest.raises(InvalidInput) as raised:
        torchvision_file("torchvision:SqueezeNet1_1_Weights.NEW")
    command = raised.value.action.split('python -c "')[1].split('"')[0]
    exec(command)
    assert torchvision_file("torchvision:SqueezeNet1_1_Weights.NEW") == hub.file


def test_a_file_that_is_not_what_its_name_says_is_refused(hub: Hub, store: Store) -> None:
    hub.file.write_bytes(hub.file.read_bytes()[:-1])
    with pytest.raises(InvalidInput, match="is damaged, or another file: its sha256 begins with") as raised:
        stored("torchvision:SqueezeNet1_1_Weights.NEW", store)
    assert "get_state_dict" in raised.value.action


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet19", "torchvision:resnet18"),
        ("ResNet18_Weights.IMAGENET1K_V9", "torchvision:ResNet18_Weights.IMAGENET1K_V1"),
        ("ResNet18_Weight.DEFAULT", "torchvision:ResNet18_Weights.DEFAULT"),
        ("list_models.DEFAULT", "torchvision:"),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest(name: str, near: str, store: Store) -> None:
    with pytest.raises(InvalidInput, match=f"no weights '{name}'") as raised:
        stored(f"torchvision:{name}", store)
    assert near in raised.value.action


def test_weights_whose_file_cannot_be_checked_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet18_fbgemm_16fa66dd.pth").write_bytes(b"")
    with pytest.raises(InvalidInput, match="no hash in its name"):
        torchvision_file("torchvision:quantized_resnet18")


@pytest.mark.parametrize("given", ["torchvision:", "torchvision:a.b.c", "torchvision: resnet18", "torchvision:18"])
def test_what_cannot_be_a_name_of_torchvisions_is_told_with_the_spec(given: str) -> None:
    assert "torchvision:CLASS.NAME" in told(given)


# what PyTorch saved


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_a_file_of_pytorch_becomes_safetensors_of_the_same_weights(store: Store, tmp_path: Path, suffix: str) -> None:
    shared = torch.randn(3, 2)
    weights = {"a": shared, "b": shared, "turned": shared.t(), "count": torch.tensor(7)}
    uri = stored(save(weights, tmp_path / f"w{suffix}"), store)
    assert uri == store.uri("files", f"{sha256_of_file(tmp_path / f'w{suffix}')}.safetensors")
    read = load_file(uri)
    assert all(torch.equal(read[name], value) for name, value in weights.items())


class Harmful:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("it was run",))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"state_dict": {"a": torch.zeros(1)}}, "'state_dict' in it is a dict"),
        ({"a": torch.zeros(1), "epoch": 3}, "'epoch' in it is a int"),
        ({1: torch.zeros(1)}, "1 in it is a Tensor"),
        ([torch.zeros(1)], "it holds a list"),
        ({}, "no weights"),
        ({"a": torch.eye(3).to_sparse()}, "sparse or quantized"),
        (torch.nn.Linear(1, 1), "UnpicklingError"),
        (Harmful(), "UnpicklingError"),
    ],
)
def test_a_file_that_holds_anything_but_weights_is_refused_and_not_run(
    store: Store, tmp_path: Path, content: Any, why: str
) -> None:
    with pytest.raises(InvalidInput, match="is no file of weights alone") as raised:
        stored(save(content, tmp_path / "w.pth"), store)
    assert why in raised.value.message
    assert not (Path(store.url) / "files").exists()


def test_a_torn_file_is_refused(store: Store, tmp_path: Path) -> None:
    file = Path(save({"a": torch.zeros(100)}, tmp_path / "w.pth"))
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InvalidInput, match="is no file of weights alone"):
        stored(str(file), store)


def test_forms_of_weights_that_nothing_reads_are_told_with_the_spec(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"")
    assert ".safetensors, .pth, .pt" in told(str(tmp_path / "w.bin"))
    assert "download it and name the file" in told("s3://bucket/w.pth")
