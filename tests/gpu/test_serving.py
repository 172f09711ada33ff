"""A package answers on a GPU what it answers on the CPU: a class, boxes, a mask, tracks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Split, load_digit_scenes, load_digits, load_shapes

from headrace_models.package import build_model, load_package, write_package
from headrace_models.tasks import build_task

CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "image-classification": (load_digits, "resnet8", {"width": 8}),
    "object-detection": (load_shapes, "yolo", {}),
    "semantic-segmentation": (load_digit_scenes, "unet", {"width": 8, "depth": 2}),
}


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_the_cpu(name: str, device: torch.device, tmp_path: Path) -> None:
    load, model_name, args = CASES[name]
    split: Split = load()
    samples, _, schema = split
    task = build_task({"name": name, "args": {}}, schema)
    task.learn([task.summarise(samples[:64])])
    torch.manual_seed(0)
    record = {"name": model_name, "args": args}
    model = build_model(record, task)
    request = task.request(samples[:6])
    write_package(
        tmp_path, task=task, model=model, model_record=record, code_folder=None, provenance={}, example=request
    )
    found = load_package(tmp_path, device=str(device))
    assert next(found.model.parameters()).device == device
    answer, expected = found.predict(request), load_package(tmp_path).predict(request)
    assert answer.keys() == expected.keys()
    for output, value in expected.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(answer[output], value, rtol=2e-2, atol=2e-2, err_msg=output)
        elif value.dtype.kind in "iu" and name == "semantic-segmentation":
            assert (answer[output] == value).mean() > 0.99
        else:
            assert answer[output].tolist() == value.tolist(), output
