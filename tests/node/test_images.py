"""The images: what is in them, what is not, and that each runs as the user that restricted Pod Security asks for."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

from headrace_testbed.images import OURS, packed_image, reference, version
from headrace_testbed.node import Node
from headrace_testbed.oci import Image
from headrace_testbed.unpacked import Contents, run, unpack
from headrace_testbed.waiting import eventually

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="images are packed in a chroot, which needs root"),
    pytest.mark.timeout(900),
]

OPERATOR_LIMIT_BYTES = 120_000_000
TOOLS = re.compile(
    r"(^|/)(apt|apt-get|dpkg|pip3?|pip3\.11|uv|uvx|gcc.*|g\+\+.*|cc|c\+\+|ld|as|make|cmake|git|curl|perl|debconf)$"
)
PACKAGES = "usr/local/lib/python3.11/dist-packages/"
UNCHECKED_HASH = 0b01


@pytest.fixture(scope="module")
def images() -> dict[str, Image]:
    return {name: packed_image(name) for name in OURS}


@pytest.fixture(scope="module", params=OURS)
def contents(request: pytest.FixtureRequest, images: dict[str, Image]) -> Iterator[Contents]:
    with Contents(images[request.param]) as found:
        yield found


@pytest.fixture(scope="module")
def roots(images: dict[str, Image], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of the images that are small enough to be laid out for a test."""
    return {name: unpack(images[name], tmp_path_factory.mktemp(name)) for name in ("operator", "mlflow")}


def test_no_tool_that_builds_or_installs_is_left(contents: Contents) -> None:
    programs = [path for path in contents.files if re.match(r"(usr/)?(local/)?s?bin/|usr/lib/gcc", path)]
    assert [path for path in programs if TOOLS.search(path)] == []
    gone = ("pip", "wheel", "uv")  # setuptools stays where torch depends on it
    assert [name for name in gone if f"{PACKAGES}{name}/__init__.py" in contents.files] == []
    assert [path for path in contents.files if path.startswith("var/lib/apt/lists/")] == []


def installed(contents: Contents) -> set[tuple[str, str]]:
    """Name and version of every distribution in an image, by what the image itself says."""
    metadata = [path for path in contents.files if re.fullmatch(PACKAGES + r"[^/]+\.dist-info/METADATA", path)]
    controls = [path for path in contents.files if re.fullmatch(r"var/lib/dpkg/status\.d/[^/]+", path)]
    python = [Parser().parsestr(contents.read(path).decode(), headersonly=True) for path in metadata]
    debian = [Parser().parsestr(contents.read(path).decode(), headersonly=True) for path in controls]
    return {(each["Name"], each["Version"]) for each in python} | {
        (each["Package"], each["Version"]) for each in debian
    }


def test_the_bill_of_materials_lists_all_that_is_installed_and_nothing_else(contents: Contents) -> None:
    bill = json.loads(contents.read("usr/share/headrace/sbom.json"))
    assert bill["bomFormat"] == "CycloneDX"
    listed = [(each["name"], each["version"]) for each in bill["components"]]
    assert set(listed) == installed(contents)
    assert len(listed) == len(set(listed))
    assert ("headrace", version()) in listed
    assert all(each["purl"].startswith(("pkg:deb/debian/", "pkg:pypi/")) for each in bill["components"])


def test_every_module_is_compiled_so_that_no_pod_compiles_it_again(
    contents: Contents, request: pytest.FixtureRequest
) -> None:
    """But one that is not Python 3.11, and in the operator's image those that images/operator/needless names."""
    missing, checked = [], []
    for path in contents.files:
        folder, _, name = path.rpartition("/")
        if not path.endswith(".py") or not folder.startswith(("usr/lib/python3.11", PACKAGES.rstrip("/"))):
            continue
        compiled = f"{folder}/__pycache__/{name.removesuffix('.py')}.cpython-311.pyc"
        if compiled not in contents.files:
            missing.append(path.removeprefix(PACKAGES))
        elif contents.read(compiled, 8)[4] != UNCHECKED_HASH:
            checked.append(path)
    assert checked == []
    if request.node.callspec.params["contents"] == "operator":
        missing = [path for path in missing if not path.startswith(("kubernetes_asyncio/", "pygments/"))]
    assert [path for path in missing if not path.endswith("py312_intrinsics.py")] == []


def test_nothing_can_be_written_or_has_rights_of_its_own(contents: Contents) -> None:
    files = [(path, each) for path, each in contents.files.items() if not each.issym()]
    assert [path for path, each in files if each.mode & 0o002 and path != "tmp"] == []
    assert [path for path, each in files if each.mode & 0o6000] == []
    assert [path for path, each in files if each.uid and path != "home/headrace"] == []
    assert [path for path, each in files if not each.mode & 0o004 and path != "root"] == []


def test_an_image_says_who_runs_what(images: dict[str, Image]) -> None:
    for name, image in images.items():
        assert image.config["User"] == "65532:65532"
        assert image.config["StopSignal"] == "SIGTERM"
        labels = {key.removeprefix("org.opencontainers.image."): value for key, value in image.config["Labels"].items()}
        assert labels["title"] == f"headrace-{name}"
        assert labels["version"] == version()
        assert labels["licenses"] == "Apache-2.0"
    assert images["operator"].config["Entrypoint"] == ["headrace", "operator"]
    assert images["mlflow"].config["Entrypoint"] == ["mlflow", "server"]
    assert images["runtime"].config["Entrypoint"] == ["headrace"]


def test_the_operators_image_is_small(images: dict[str, Image], capsys: pytest.CaptureFixture[str]) -> None:
    with Contents(images["operator"]) as contents:
        files = contents.size
    compressed = sum(layer.compressed_size() for layer in images["operator"].layers)
    with capsys.disabled():
        print(f"\noperator: {files / 1e6:.1f} MB of files, {compressed / 1e6:.1f} MB compressed; layers (tar), MB:")
        for name, image in images.items():
            print(f"  {name}: {image.size / 1e6:.1f} = {' + '.join(f'{each.size / 1e6:.1f}' for each in image.layers)}")
    assert files <= OPERATOR_LIMIT_BYTES


def test_the_operator_starts_in_it_and_says_what_it_lacks(images: dict[str, Image], roots: dict[str, Path]) -> None:
    done = run(images["operator"], roots["operator"], *images["operator"].config["Entrypoint"])
    assert done.returncode == 4, done.stderr
    assert "API server" in done.stdout + done.stderr


def test_mlflows_server_is_whole(images: dict[str, Image], roots: dict[str, Path]) -> None:
    needs = "import boto3, headrace, mlflow.server, psycopg2, s3fs; print(mlflow.__version__)"
    done = run(images["mlflow"], roots["mlflow"], "python", "-c", needs)
    assert done.returncode == 0, done.stderr
    assert re.match(r"3\.\d+\.\d+\n", done.stdout)
    helped = run(images["mlflow"], roots["mlflow"], *images["mlflow"].config["Entrypoint"], "--help")
    assert "--backend-store-uri" in helped.stdout


@pytest.mark.parametrize("name", ["operator", "mlflow"])
def test_its_user_has_a_name_and_may_write_to_tmp_and_home_alone(
    name: str, images: dict[str, Image], roots: dict[str, Path]
) -> None:
    tries = """
import os, pwd, ssl
print(os.getuid(), os.getgid(), os.getgroups(), pwd.getpwuid(os.getuid()).pw_name, os.path.expanduser("~"))
for folder in ("/", "/etc", "/usr/lib/python3.11", "/tmp", os.path.expanduser("~")):
    try:
        open(os.path.join(folder, "trial"), "w").close()
        print("wrote to", folder)
    except OSError as error:
        print(type(error).__name__)
print(ssl.create_default_context().cert_store_stats()["x509_ca"] > 100)
"""
    done = run(images[name], roots[name], "python", "-c", tries)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "65532 65532 [] headrace /home/headrace"
    assert [line for line in lines if line.startswith("wrote")] == ["wrote to /tmp", "wrote to /home/headrace"]
    assert lines[-1] == "True"


@pytest.mark.images("runtime")
def test_the_runtime_has_in_a_pod_what_trainings_endpoints_and_steps_import(node: Node, namespace: str) -> None:
    tries = """
import boto3, headrace_pipelines.pipeline, kfp, kubernetes, mlflow, ray.serve, ray.train, s3fs, torch, torchvision
print(torch.nn.functional.relu(torch.tensor([-1.0, 2.0])).tolist(), torch.version.cuda is not None)
print(torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1.0]), 0.5).tolist())
"""
    pod = {
        "name": "main",
        "image": reference("runtime"),
        "imagePullPolicy": "Never",
        "command": ["bash", "-c", 'set -e; ray --version; headrace --version; python -c "$0"', tries],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "env": [{"name": "HOME", "value": "/tmp"}],
    }
    spec = {"containers": [pod], "restartPolicy": "Never", "volumes": [{"name": "tmp", "emptyDir": {}}]}
    node.api.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "imports"}, "spec": spec}, namespace=namespace
    )
    path = f"/api/v1/namespaces/{namespace}/pods/imports"
    phase = eventually(
        lambda: (found := node.api.get(path)["status"]["phase"]) in ("Succeeded", "Failed") and found, 600
    )
    said = node.kubectl("logs", "-n", namespace, "imports")
    assert phase == "Succeeded", said
    expected = ["ray, version 2.60.0", f"headrace {version()}", "[0.0, 2.0] True", "[0]"]
    assert [line for line in said.splitlines() if line in expected] == expected
