"""The cache of built programs: what stands in it is whole, and is built once."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace_testbed.builds import RECIPES
from headrace_testbed.cache import cache_root, cached


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_TEST_CACHE", str(tmp_path / "cache"))


def test_two_who_want_a_folder_at_once_fill_it_once():
    filled = []

    def fill(folder: Path) -> None:
        filled.append(folder)
        time.sleep(0.2)
        (folder / "program").write_text("built")

    with ThreadPoolExecutor(2) as both:
        folders = list(both.map(lambda _: cached("tool-1", fill), range(2)))
    assert len(filled) == 1
    assert [(folder / "program").read_text() for folder in folders] == ["built", "built"]


def test_a_build_that_fails_leaves_nothing_behind():
    def fill(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("the compiler gave up")

    with pytest.raises(RuntimeError, match="gave up"):
        cached("tool-2", fill)
    assert [path.name for path in cache_root().iterdir()] == [".tool-2.lock"]


def test_other_flags_are_another_folder():
    recipe = RECIPES["helm"]
    other = dataclasses.replace(recipe, strings={"helm.sh/helm/v3/internal/version.version": "v0"})
    assert recipe.folder_name("helm") == RECIPES["helm"].folder_name("helm") != other.folder_name("helm")
