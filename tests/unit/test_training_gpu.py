"""What is done for a GPU, as far as it can be held on a machine without one (the rest is in tests/gpu)."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from headrace.training.gpu import laid_out, supplied, to_device

GPU, CPU = torch.device("cuda", 1), torch.device("cpu")


def batches(count: int) -> Iterator[dict[str, torch.Tensor]]:
    for number in range(count):
        yield {"image": torch.full((2, 3), number), "label": torch.tensor([number, number])}


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that pinned a tensor; the device of each is looked at."""
    places = threading.local()
    threads: list[str] = []

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        assert places.device == GPU
        threads.append(threading.current_thread().name)
        return tensor + 100

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: setattr(places, "device", device))
    return threads


def test_batches_for_a_gpu_are_pinned_in_another_thread_and_keep_their_order(pinned: list[str]) -> None:
    given = list(supplied(batches(7), GPU))
    assert [batch["label"].tolist() for batch in given] == [[number + 100] * 2 for number in range(7)]
    assert len(pinned) == 14
    assert threading.current_thread().name not in pinned


def test_what_fails_while_a_batch_is_made_is_raised_where_it_is_wanted(pinned: list[str]) -> None:
    def broken() -> Iterator[dict[str, torch.Tensor]]:
        yield from batches(1)
        raise ValueError("no picture")

    given = supplied(broken(), GPU)
    assert next(given)["label"].tolist() == [100, 100]
    with pytest.raises(ValueError, match="no picture"):
        next(given)


def test_on_a_cpu_batches_are_what_they_were_and_made_when_they_are_wanted() -> None:
    made: list[int] = []

    def noted() -> Iterator[dict[str, torch.Tensor]]:
        for number, batch in enumerate(batches(3)):
            made.append(number)
            yield batch

    given = supplied(noted(), CPU)
    first = next(given)
    assert made == [0]
    assert to_device(first, CPU) is first


@pytest.mark.parametrize(
    ("device", "dtype", "last"),
    [
        (GPU, torch.bfloat16, True),
        (GPU, torch.float16, True),
        (GPU, torch.float32, False),
        (CPU, torch.bfloat16, False),
    ],
)
def test_convolutions_have_their_channels_last_where_that_is_faster(
    device: torch.device, dtype: torch.dtype, last: bool
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv1d(4, 4, 3), nn.Conv3d(4, 4, 3), nn.ConvTranspose2d(4, 5, 3))
    before = list(model.parameters())
    laid_out(model, device, dtype)
    assert all(one is other for one, other in zip(before, model.parameters(), strict=True))
    for place in (0, 3):
        assert model[place].weight.is_contiguous(memory_format=torch.channels_last) is last
    assert model[1].weight.is_contiguous()
    assert model[2].weight.is_contiguous()
