"""Every spec of examples/zoo loads, names a model of the catalog, and asks for a metric in its gate."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from headrace.spec import RunSpec, load_spec
from headrace_models import catalog

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "zoo"
SPECS = sorted(FOLDER.glob("*.yaml"))


def loaded(path: Path) -> RunSpec:
    source = str(yaml.safe_load(path.read_text())["data"]["source"])
    if not source.startswith("builtin:") and not (path.parent / source).exists():
        pytest.skip(f"{path.name} is about data that is not here: {source}")
    return load_spec(path)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_zoo_spec_loads_and_is_named_like_its_file(path: Path) -> None:
    spec = loaded(path)
    assert spec.name == path.stem
    assert spec.model.name in catalog.models()
    assert spec.gate
    small = dict(catalog.models()[spec.model.name].debug)
    assert not small or spec.model.args == small  # what the card calls the small size is what is measured


def test_every_model_of_the_catalog_has_a_spec() -> None:
    """`mlp` takes tables: its own stands beside the zoo."""
    paths = [path for path in (*SPECS, *FOLDER.parent.glob("*.yaml")) if not path.stem.startswith("bccd-")]
    named = {load_spec(path).model.name for path in paths}
    assert set(catalog.models()) - named == set()
