"""What needs a CUDA device. HEADRACE_GPU_TESTS_ON=cpu runs their code on a machine without one, which proves less."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))  # for `import zoo` and the data there

from headrace.training.gpu import repeatable
from headrace.training.group import Group

ON = os.environ.get("HEADRACE_GPU_TESTS_ON", "cuda")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies here, and skip it where there is no device."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if ON == "cuda" and not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The first GPU, set up as a worker sets it up."""
    found = torch.device("cuda", 0) if ON == "cuda" else torch.device(ON)
    if found.type == "cuda":
        repeatable(found)
    return found


@pytest.fixture(scope="session")
def group(device: torch.device) -> Group:
    """One worker on it."""
    return Group(0, 1, device)
