"""What a replica needs of S3: a package once, held to its hash; and nothing at all while it has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.base import home
from headrace.base.errors import HeadraceError, Unavailable
from headrace.serving import packages
from headrace.serving.contract import FrontConfig, StableVersion
from headrace.serving.packages import ServedModel, answer_example, load_served_model
from headrace.serving.versions import Versions
from headrace.store import Store
from headrace_testbed.s3 import S3Store
from headrace_testbed.s3_trouble import Trouble, TroubledStore, environment, new_bucket


@dataclass
class Served:
    """Packages on S3, and the way to them."""

    way: TroubledStore
    store: Store
    package: Callable[[str], StableVersion]

    def version(self, number: str) -> StableVersion:
        """A package in the bucket."""
        local = self.package(number)
        uri = self.store.uri("packages", local.sha256)
        self.store.put_folder(Path(local.package_uri), uri, marker="headrace.json")
        return StableVersion(number, uri, local.sha256)


@pytest.fixture
def served(
    s3_server: S3Store,
    digits_package: Callable[[str], StableVersion],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Served]:
    """A home with an empty cache, and a store that can be made to misbehave."""
    package = digits_package
    package("1")  # in the tier's own home
    with TroubledStore(s3_server) as way, environment(way.environment):
        made = Served(way, Store(f"{new_bucket(s3_server)}/store"), package)
        versions = [made.version(number) for number in ("1", "2")]
        assert all(version.package_uri.startswith("s3://") for version in versions)
        monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
        yield made


def down(served: Served) -> Trouble:
    """The store answers nobody any more."""
    return served.way.make(Trouble("status", times=10_000, status=500, code="InternalError"))


def front(load: Callable[[StableVersion], ServedModel]) -> Versions[ServedModel]:
    return Versions("replica-1", load)


def config(version: StableVersion) -> FrontConfig:
    return FrontConfig(f"config-{version.version}", "digits", version)


def cpu(version: StableVersion) -> ServedModel:
    return load_served_model(version, "cpu")


def test_a_package_is_fetched_once_and_answers(served: Served) -> None:
    version = served.version("1")
    served.way.requests.clear()
    assert answer_example(cpu(version)) >= 0
    files = len(list(home.folder("cache", "packages", version.sha256).rglob("*.*")))
    assert len(served.way.requests) <= files + 2  # a listing, and each file once
    served.way.requests.clear()
    cpu(version)
    assert served.way.requests == []


def test_a_replica_starts_again_while_s3_is_down(served: Served) -> None:
    version = served.version("1")
    cpu(version)
    down(served)
    assert answer_example(cpu(version)) >= 0


def test_a_store_that_is_down_keeps_the_old_version_and_its_reason_is_told(served: Served, pauses: list[float]) -> None:
    first, second = served.version("1"), served.version("2")
    versions = front(cpu)
    versions.configure(config(first))
    assert versions.wait_idle(60)
    trouble = down(served)
    versions.configure(config(second))
    assert versions.wait_idle(60)
    status = versions.status()
    assert (status.stable, status.config_id) == ("1", "config-1")
    assert status.error is not None
    assert "version 2 could not be loaded" in status.error
    assert served.way.endpoint in status.error
    trouble.times = 0
    versions.configure(config(second))
    assert versions.wait_idle(60)
    assert versions.status().stable == "2"


def test_a_store_that_trickles_is_given_up_and_the_old_version_answers_meanwhile(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = served.version("1"), served.version("2")
    versions = front(cpu)
    versions.configure(config(first))
    assert versions.wait_idle(60)
    monkeypatch.setattr(packages, "COPY_SECONDS", 2.0)
    served.way.make(Trouble("slow", times=100, seconds=5.0, match=lambda _, path: "safetensors" in path))
    versions.configure(config(second))
    assert versions.status().loading == "2"
    assert versions.live is not None
    assert versions.live.config.stable.version == "1"
    assert versions.wait_idle(60)
    error = versions.status().error
    assert error is not None
    assert "did not arrive within" in error
    left = [path.name for path in home.folder("cache", "packages").iterdir() if second.sha256 in path.name]
    assert left == [f"{second.sha256}.lock"]


def test_a_copy_that_was_damaged_on_this_machine_is_fetched_anew(served: Served) -> None:
    version = served.version("1")
    cpu(version)
    weights = home.folder("cache", "packages", version.sha256) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert answer_example(cpu(version)) >= 0


def test_a_package_that_is_damaged_in_the_store_is_refused_by_its_address(served: Served) -> None:
    version = served.version("1")
    served.store.write_bytes(f"{version.package_uri}/model.safetensors", b"something else")
    with pytest.raises(HeadraceError, match=r"model\.safetensors is not the file that was packed") as error:
        cpu(version)
    assert version.package_uri in error.value.message


def test_another_package_than_the_one_registered_is_refused(served: Served) -> None:
    first, second = served.version("1"), served.version("2")
    with pytest.raises(HeadraceError, match=f"is registered with {second.sha256[:12]}"):
        cpu(StableVersion("9", first.package_uri, second.sha256))


def test_a_package_that_is_gone_or_refused_is_told_apart(served: Served) -> None:
    version = served.version("1")
    with pytest.raises(FileNotFoundError, match="there is no package at"):
        cpu(StableVersion("9", served.store.uri("packages", "nothing"), "0" * 64))
    with environment({**served.way.environment, "AWS_SECRET_ACCESS_KEY": "other"}), pytest.raises(Unavailable):
        cpu(version)
