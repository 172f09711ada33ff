"""Each spec of examples/zoo takes its first steps at its own size, on its own data, and is judged by its own metrics.

What each reaches when it trains to the end stands in docs/models/zoo.md (`make zoo`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import zoo

from headrace.data import Manifest, split_data
from headrace.spec import load_spec
from headrace.spec.judge import metric_names
from headrace.spec.parts import split_part
from headrace.spec.yaml_reader import read_yaml
from headrace.store import Store
from headrace_models import catalog

SPECS = [
    path
    for path in sorted(zoo.EXAMPLES.glob("*.yaml"))
    if str(read_yaml(path.read_text(encoding="utf-8")).value["data"]["source"]).startswith("builtin:")
]
STEPS = 2


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, Any]], Manifest]:
    """The data of a spec, split as it says; once for specs that say the same."""
    store = Store(str(tmp_path_factory.mktemp("store")))

    def made(spec: Mapping[str, Any]) -> Manifest:
        found = split_data(split_part(spec), store=store, source_fingerprint="", tell=lambda _: None)
        return Manifest(store, found.fingerprint)

    return made


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_spec_takes_its_first_steps(path: Path, split: Callable[[Mapping[str, Any]], Manifest]) -> None:
    spec = load_spec(path).to_record()
    spec["train"]["epochs"] = 1
    spec["model"]["init_from"] = None  # another spec's model, which is not here
    manifest = split(spec)
    training, test = manifest.shard("train", 0, 1), manifest.shard("test", 0, 1)
    wanted = min(len(training), STEPS * int(spec["train"]["batch_size"]))
    few = [training[place] for place in range(wanted)]
    done = zoo.train(spec, few, [test[place] for place in range(min(16, len(test)))], manifest.schema)
    assert done.steps == math.ceil(wanted / int(spec["train"]["batch_size"]))
    assert all(loss is None or math.isfinite(loss) for loss in done.losses)
    cards = {task["name"]: catalog.tasks()[task["name"]] for task in spec["tasks"]}
    assert set(metric_names(cards)) <= set(done.metrics)
    assert all(math.isfinite(value) for value in done.metrics.values())
