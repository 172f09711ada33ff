"""Packages that add cards: really installed ones, found through their metadata and read with torch blocked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headrace.base.errors import InvalidInput
from headrace.cli.model_report import model_record, render_model
from headrace.steps.keys import code_versions, train_key
from headrace_models import catalog
from headrace_models.package.load import _require_plugins

GOOD = """
from headrace_models.catalog.cards import Arguments, ModelCard, TaskCard

class WideArguments(Arguments):
    width: int = 4

def models():
    return [ModelCard("wide-net", "one wide layer", "acme_net:Wide", WideArguments, tasks=("image-classification",))]

def task():
    return TaskCard("image-ranking", "pictures in order", "acme_task:Ranking", metrics={"ndcg": "max"},
        formats=("image-folder",))
"""
CARDS = "from headrace_models.catalog.cards import ModelCard, TaskCard\n"

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Lay a distribution into a folder of sys.path, as pip does: modules beside their dist-info."""

    def put(name: str, sources: dict[str, str], entry_points: str) -> Path:
        site = tmp_path / name
        info = site / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(entry_points)
        for module, source in sources.items():
            (site / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))
        catalog.refresh()
        return site

    yield put
    monkeypatch.undo()
    catalog.refresh()


def test_an_installed_packages_models_and_tasks_stand_in_the_catalog(install: Install) -> None:
    install(
        "acme-models",
        {"acme_good": GOOD},
        "[headrace.models]\nacme = acme_good:models\n[headrace.tasks]\nranking = acme_good:task\n",
    )
    assert catalog.models()["wide-net"].tasks == ("image-classification",)
    assert next(iter(catalog.models())) == "mlp"
    assert catalog.tasks()["image-ranking"].primary_metric == "ndcg"
    assert catalog.get("model", "wide-net").args.model_validate({"width": 8})
    assert catalog.plugin_versions() == {"acme-models": "1.2"}
    assert catalog.plugins_of(["image-ranking"], "mlp") == {"acme-models": "1.2"}
    assert catalog.plugins_of(["image-classification"], "wide-net") == {"acme-models": "1.2"}
    assert catalog.plugins_of(["image-classification"], "mlp") == {}
    assert catalog.plugin_problems() == []


def test_another_version_of_a_plug_in_is_another_training(install: Install) -> None:
    def key() -> str:
        return train_key({"model": {"name": "mlp"}}, "split", code_versions())

    alone = key()
    site = install("acme-models", {"acme_good": GOOD}, "[headrace.models]\nacme = acme_good:models\n")
    first = key()
    (info,) = site.glob("*.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-models\nVersion: 1.3\n")
    catalog.refresh()
    assert len({alone, first, key()}) == 3


def test_plug_ins_are_found_where_torch_cannot_be_imported(install: Install) -> None:
    site = install("acme-blocked", {"acme_good": GOOD}, "[headrace.models]\nacme = acme_good:models\n")
    code = f"""
import sys
sys.path.insert(0, {str(site)!r})
sys.modules["torch"] = None
from headrace_models import catalog
assert "wide-net" in catalog.models()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module_anywhere\n", "No module named 'no_such_module_anywhere'"),
        ("def models():\n    raise OSError('disk on fire')\n", "disk on fire"),
        ("def models():\n    return ['resnet99']\n", "it returned a str, where a ModelCard is wanted"),
        ("nothing = 1\n", "models"),
        (CARDS + "def models():\n    return ModelCard('idle', '', 'a:B')\n", "'idle' names no task"),
    ],
)
def test_a_broken_package_is_named_and_the_rest_of_the_catalog_is_whole(
    install: Install, source: str, reason: str, request: pytest.FixtureRequest
) -> None:
    module = f"acme_broken_{abs(hash(request.node.name))}"
    install("acme-broken", {module: source}, f"[headrace.models]\nbroken = {module}:models\n")
    with pytest.warns(catalog.PluginWarning, match="acme-broken"):
        names = set(catalog.models())
    assert {"mlp", "resnet8", "resnet18"} <= names
    (problem,) = catalog.plugin_problems()
    assert problem.distribution == "acme-broken"
    assert reason in problem.message
    assert set(catalog.models()) == names  # told once: a second warning would be an error here


def test_a_task_that_can_read_nothing_is_named_and_left_out(install: Install) -> None:
    source = CARDS + "def task():\n    return TaskCard('blind', '', 'a:B', metrics={'x': 'max'})\n"
    install("acme-blind", {"acme_blind": source}, "[headrace.tasks]\nblind = acme_blind:task\n")
    with pytest.warns(catalog.PluginWarning, match=r"acme-blind.*'blind' names no format"):
        assert "blind" not in catalog.tasks()


@pytest.mark.parametrize(
    ("tasks", "together", "shown"),
    [
        (("image-ranking",), False, None),
        (("image-ranking", "image-classification"), False, "task: image-classification"),
        (("image-classification", "image-ranking"), True, None),
    ],
)
def test_a_model_whose_task_is_of_a_package_that_is_not_there_is_shown_without_it(
    install: Install, tasks: tuple[str, ...], together: bool, shown: str | None
) -> None:
    source = CARDS + (
        f"def models():\n    return ModelCard('ranker', 'ranks', 'a:B', tasks={tasks!r}, together={together})\n"
    )
    module = f"acme_ranker_{len(tasks)}_{together}"
    install("acme-ranker", {module: source}, f"[headrace.models]\nranker = {module}:models\n")
    record = model_record("ranker")
    assert record["unknown_tasks"] == ["image-ranking"]
    assert set(record["shapes"]) == set(tasks) - {"image-ranking"}
    assert record["also"] == []
    text = render_model(record)
    assert "  image-ranking: of a package that is not installed" in text
    assert ("\nspec\n" in text) is (shown is not None)
    assert shown is None or shown in record["spec"].splitlines()


def test_a_model_of_a_package_that_fails_here_says_so_and_not_that_it_is_missing(install: Install) -> None:
    install("acme-torn", {"acme_torn": "import no_such_module_anywhere\n"}, "[headrace.models]\na = acme_torn:models\n")
    torn = SimpleNamespace(plugins={"acme-torn": "1.2"}, model={"name": "wide-net"})
    with (
        pytest.warns(catalog.PluginWarning, match="acme-torn"),
        pytest.raises(InvalidInput, match=r"acme-torn 1\.2, which is installed here .* 'no_such_module_any") as raised,
    ):
        _require_plugins(cast(Any, torn))
    assert raised.value.code == "plug-in-broken"
    assert "pip install" not in raised.value.action
    with pytest.raises(InvalidInput, match="which is not installed here"):
        _require_plugins(cast(Any, SimpleNamespace(plugins={"acme-gone": "1.2"}, model=torn.model)))


def test_a_package_that_fails_here_is_part_of_a_trainings_key(install: Install) -> None:
    install("acme-key", {}, "[headrace.models]\nacme = acme_key:models\n")
    assert code_versions()["acme-key"] == "1.2"  # as where it works


def test_a_name_that_headrace_has_already_is_refused_naming_both(install: Install) -> None:
    source = GOOD.replace("wide-net", "resnet8")
    install("acme-clash", {"acme_clash": source}, "[headrace.models]\nclash = acme_clash:models\n")
    with pytest.raises(InvalidInput) as raised:
        catalog.models()
    assert raised.value.code == "name-clash"
    assert "'resnet8'" in raised.value.message
    assert "Headrace itself" in raised.value.message
    assert "acme-clash" in raised.value.message
    assert "pip uninstall acme-clash" in raised.value.action


def test_two_packages_with_one_name_are_refused_naming_both(install: Install) -> None:
    install("acme-one", {"acme_one": GOOD}, "[headrace.models]\nacme = acme_one:models\n")
    install("acme-two", {"acme_two": GOOD}, "[headrace.models]\nacme = acme_two:models\n")
    with pytest.raises(InvalidInput, match=r"wide-net.*acme-one.*acme-two"):
        catalog.models()
