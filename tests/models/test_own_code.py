"""A user's own code: packed to one hash, imported as if Python ran in its folder, two versions in one process."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.base.errors import InvalidInput, SpecInvalid
from headrace_models.package import build_model, check_code, import_code, materialise, pack_code, unpack_code
from headrace_models.tasks import Schema, Task, build_task

NET = """
import math
import helpers
import layers.block
import layers.block as aliased
from layers.block import Block
from layers import scale as scaling
from helpers import VERSION

class Net(helpers.Base):
    def __init__(self, num_classes, in_features, hidden=4):
        super().__init__()
        self.version = VERSION
        self.scale = scaling.SCALE
        self.block = Block(in_features, hidden)
        self.head = helpers.nn.Linear(hidden, num_classes)
        assert layers.block is aliased and layers.block.Block is Block

    def forward(self, x):
        from late import activation
        return self.head(activation(self.block(x.flatten(1)))) * self.scale
"""

FILES = {
    "my_model.py": NET,
    "helpers.py": 'from torch import nn\nVERSION = "one"\nclass Base(nn.Module):\n    pass\n',
    "layers/__init__.py": "",
    "layers/block.py": "from torch import nn\nfrom .scale import SCALE\nclass Block(nn.Linear):\n    pass\n",
    "layers/scale.py": "import json\nfrom pathlib import Path\n"
    "SCALE = json.loads((Path(__file__).parent.parent / 'settings.json').read_text())['scale']\n",
    "late.py": "import torch\ndef activation(x):\n    return torch.relu(x)\n",
    "settings.json": '{"scale": 2.0}',
}


def written(folder: Path, files: dict[str, str] = FILES, **changes: str) -> Path:
    for name, text in {**files, **changes}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def task() -> Task:
    task = build_task({"name": "image-classification"}, Schema("label", ("a", "b", "c")))
    task.preprocessing = {"image_size": [4, 4], "channels": 1, "mean": [0.5], "std": [0.5]}
    return task


def built(folder: Path, task: Task, name: str = "my_model:Net", **args: Any) -> Any:
    return build_model({"name": name, "args": args}, task, folder)


# packing


def test_the_same_code_has_the_same_hash_wherever_and_whenever_it_is_packed(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one"), written(tmp_path / "elsewhere")
    for path in two.rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o755)
    (two / "__pycache__").mkdir()
    (two / "__pycache__" / "helpers.cpython-311.pyc").write_bytes(b"x")
    assert pack_code(one) == pack_code(two)
    sha256, data = pack_code(one)
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert pack_code(unpack_code(data, tmp_path / "three"))[0] == sha256


def test_a_changed_letter_changes_the_hash(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one"), written(tmp_path / "two", **{"settings.json": '{"scale": 3.0}'})
    assert pack_code(one)[0] != pack_code(two)[0]


def test_environments_caches_hidden_files_and_data_are_left_at_home(tmp_path: Path) -> None:
    folder = written(tmp_path / "code")
    for name in (
        ".git/config.txt",
        ".venv/a.py",
        "__pycache__/a.py",
        "old/pyvenv.cfg",
        "old/lib/a.py",
        "a.egg-info/b.txt",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "weights.pt").write_bytes(bytes(100))
    (folder / "cat.png").write_bytes(bytes(100))
    (folder / "big.json").write_bytes(b" " * (2 << 20))
    (folder / "link").symlink_to(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(pack_code(folder)[1])) as tar:
        assert tar.getnames() == sorted(FILES)


@pytest.mark.parametrize("case", ["missing", "empty", "huge"])
def test_a_folder_that_is_no_code_is_refused(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "code"
    if case != "missing":
        folder.mkdir()
    if case == "huge":
        for n in range(20):
            (folder / f"m{n}.py").write_bytes(b"#" * (1 << 20))
    with pytest.raises(InvalidInput) as raised:
        pack_code(folder)
    assert str(folder) in raised.value.message
    assert raised.value.action


# importing


def test_a_folders_modules_find_each_other_as_if_python_ran_there(tmp_path: Path, task: Task) -> None:
    network = built(written(tmp_path / "code"), task, hidden=6)
    assert network(torch.ones(2, 1, 4, 4)).shape == (2, 3)
    assert network.version == "one"
    assert network.scale == 2.0
    assert network.head.in_features == 6


def test_two_versions_live_in_one_process(tmp_path: Path, task: Task) -> None:
    changed = FILES["helpers.py"].replace('"one"', '"two"')
    one = built(written(tmp_path / "one"), task)
    two = built(written(tmp_path / "two", **{"helpers.py": changed}), task)
    again = built(tmp_path / "one", task)
    assert (one.version, two.version, again.version) == ("one", "two", "one")
    assert type(one) is type(again)
    assert type(one) is not type(two)


def test_nothing_of_it_stands_under_a_plain_name(tmp_path: Path, task: Task) -> None:
    before = list(sys.path)
    built(written(tmp_path / "code"), task)(torch.ones(1, 1, 4, 4))
    for name in ("my_model", "helpers", "layers", "late", "layers.block"):
        assert name not in sys.modules
    assert sys.path == before
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_folders_module_wins_over_an_installed_one_only_inside_the_folder(tmp_path: Path, task: Task) -> None:
    import colorsys

    files = {
        "colorsys.py": "WHOSE = 'mine'\n",
        "net.py": "import colorsys\nfrom torch import nn\nclass Net(nn.Identity):\n    whose = colorsys.WHOSE\n",
    }
    assert built(written(tmp_path, files), task, "net:Net").whose == "mine"
    assert not hasattr(colorsys, "WHOSE")
    assert sys.modules["colorsys"] is colorsys


def test_a_module_imported_late_is_still_the_version_that_was_loaded(tmp_path: Path, task: Task) -> None:
    folder = written(tmp_path / "code", **{"helpers.py": FILES["helpers.py"] + "# late\n"})
    network = built(folder, task)
    shutil.rmtree(folder)
    assert network(torch.ones(2, 1, 4, 4)).shape == (2, 3)


def test_models_in_packages_and_folders_without_init_are_found(tmp_path: Path, task: Task) -> None:
    files = {
        "nets/deep/small.py": "from nets.deep.parts import Part\nfrom nets import shared\nclass Net(Part):\n    pass\n",
        "nets/deep/parts.py": "from torch import nn\nclass Part(nn.Identity):\n    pass\n",
        "nets/shared.py": "import nets.deep.parts\nPART = nets.deep.parts.Part\n",
    }
    network = built(written(tmp_path, files), task, "nets.deep.small:Net")
    assert type(network).__name__ == "Net"


def test_many_threads_import_one_version_once(tmp_path: Path) -> None:
    source = "import time\ntime.sleep(0.05)\nfrom torch import nn\nclass Net(nn.Identity):\n    pass\n"
    folder = written(tmp_path, {"slow.py": source, "user.py": "import slow\nNet = slow.Net\n"})
    sha256 = pack_code(folder)[0]
    found: list[Any] = []
    names = ["slow:Net", "user:Net"] * 4
    threads = [threading.Thread(target=lambda n=n: found.append(import_code(folder, sha256, n))) for n in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({id(net) for net in found}) == 1


def test_an_error_in_the_code_names_its_file_and_line_and_can_be_mended(tmp_path: Path, task: Task) -> None:
    folder = written(tmp_path / "code", **{"helpers.py": "x = 1\nraise KeyError('lost')\n"})
    for _ in range(2):  # a failed import leaves nothing half-made behind
        with pytest.raises(InvalidInput) as raised:
            built(folder, task)
        assert "KeyError: 'lost' (helpers.py, line 2)" in raised.value.message
    written(folder, **{"helpers.py": FILES["helpers.py"]})
    assert built(folder, task).version == "one"


def test_a_missing_package_of_someone_else_is_named(tmp_path: Path, task: Task) -> None:
    folder = written(tmp_path, {"net.py": "import not_there_at_all\n"})
    with pytest.raises(InvalidInput, match="No module named 'not_there_at_all'"):
        built(folder, task, "net:Net")


@pytest.mark.parametrize(
    ("name", "message", "action"),
    [
        ("my_modl:Net", "no module 'my_modl'; it has my_model", "did you mean my_model?"),
        ("my_model:Nett", "my_model has no 'Nett'", "did you mean my_model:Net?"),
        ("my_model:net", "my_model has no 'net'", "did you mean my_model:Net?"),
        ("my_model.py:Net", "no module 'my_model.py'", "my_model"),
        ("my_model:", "does not name a model", "module:Class"),
        ("my/model:Net", "does not name a model", "module:Class"),
        ("my_model:VERSION", "is a str, not a class", "nn.Module"),
        ("helpers:nn", "is a module, not a class", "nn.Module"),
    ],
)
def test_a_name_that_is_not_there_suggests_the_nearest(
    tmp_path: Path, task: Task, name: str, message: str, action: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        built(written(tmp_path / "code"), task, name)
    assert message in raised.value.message
    assert action in raised.value.action


@pytest.mark.parametrize(
    ("name", "given"),
    [("my_model:Net", None), ("helpers:Base", None), ("my_model:Ne", "my_model:Net"), ("my_modell:Net", "my_model")],
)
def test_names_are_checked_by_reading_alone(tmp_path: Path, name: str, given: str | None) -> None:
    folder = written(tmp_path / "code", **{"helpers.py": FILES["helpers.py"] + "\nraise SystemExit\n"})
    findings = check_code(folder, name)
    assert [f.action for f in findings] == ([] if given is None else [f"did you mean {given}?"])


def test_checking_names_reports_what_is_no_python(tmp_path: Path) -> None:
    (finding,) = check_code(written(tmp_path, {"net.py": "class Net(:\n"}), "net:Net")
    assert finding.where == "model.name"
    assert "net.py is not Python" in finding.given


# the constructor

CONSTRUCTORS = """
from torch import nn
class Plain(nn.Module):
    def __init__(self):
        super().__init__()
class Needs(nn.Module):
    def __init__(self, num_classes, depth, *, widths):
        super().__init__()
class Open(nn.Module):
    def __init__(self, num_classes, **options):
        super().__init__()
        self.options = options
class Fails(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        raise RuntimeError("out of luck")
class Positional(nn.Module):
    def __init__(self, depth, /):
        super().__init__()
def factory(in_channels, image_size=None, num_classes=2):
    net = nn.Linear(in_channels, num_classes)
    net.image_size = image_size
    return net
def wrong(num_classes):
    return "network"
"""


@pytest.fixture
def constructors(tmp_path: Path) -> Path:
    return written(tmp_path, {"nets.py": CONSTRUCTORS})


def test_a_class_gets_the_facts_that_it_names_and_its_own_arguments(constructors: Path, task: Task) -> None:
    built(constructors, task, "nets:Plain")
    network = built(constructors, task, "nets:factory")
    assert (network.in_features, network.out_features, network.image_size) == (1, 3, (4, 4))
    assert built(constructors, task, "nets:factory", num_classes=7).out_features == 7
    assert built(constructors, task, "nets:Open", depth=3).options == {"depth": 3}


def test_what_a_class_requires_and_nobody_gives_is_named_all_at_once(constructors: Path, task: Task) -> None:
    with pytest.raises(SpecInvalid) as raised:
        built(constructors, task, "nets:Needs", dept=3)
    wheres = {finding.where: finding for finding in raised.value.findings}
    assert set(wheres) == {"model.args.dept", "model.args.depth", "model.args.widths"}
    assert wheres["model.args.dept"].action == "did you mean depth?"
    assert "num_classes, num_outputs, in_channels, image_size, in_features" in wheres["model.args.depth"].action


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("nets:Plain", {"depth": 1}, "model.args.depth"),
        ("nets:Positional", {"depth": 1}, "model.args.depth"),
        ("nets:Fails", {}, "building nets:Fails failed: RuntimeError: out of luck"),
        ("nets:wrong", {}, "gave a str, not a torch.nn.Module"),
    ],
)
def test_a_class_that_cannot_be_called_is_said(
    constructors: Path, task: Task, name: str, args: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        built(constructors, task, name, **args)
    assert message in raised.value.message


# lazy layers

LAZY = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, spare=False):
        super().__init__()
        self.net = nn.Sequential(nn.LazyConv2d(2, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(num_classes))
        if spare:
            self.spare = nn.LazyLinear(3)

    def forward(self, x):
        return self.net(x)
"""


def request() -> Any:
    return {"image": np.zeros((1, 4, 4, 1), np.uint8)}


def test_lazy_layers_get_their_shapes_from_a_sample_and_keep_their_fresh_statistics(tmp_path: Path, task: Task) -> None:
    network = built(written(tmp_path, {"my_model.py": LAZY}), task)
    materialise(network, task, request())
    assert network.net[3].in_features == 2 * 2 * 2
    assert int(network.net[1].num_batches_tracked) == 0
    again = built(tmp_path, task)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(torch.ones(2, 1, 4, 4)), network.train()(torch.ones(2, 1, 4, 4)))


def test_a_lazy_layer_that_no_sample_passes_is_named(tmp_path: Path, task: Task) -> None:
    network = built(written(tmp_path, {"my_model.py": LAZY}), task, spare=True)
    with pytest.raises(InvalidInput, match=r"spare\.weight"):
        materialise(network, task, request())
