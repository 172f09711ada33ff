"""What of a model is sharded, and what is refused; that it trains the same is tests/models/test_sharded_training.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from headrace.base.errors import InvalidInput
from headrace.training.group import Group
from headrace.training.sharding import blocks_of, own_part, shard, share_of, whole


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.ReLU())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.stages = nn.Sequential(nn.Sequential(Block(8), Block(8)), Block(8), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(8, 2)])


def test_blocks_are_what_stands_in_sequences_and_lists_and_is_large_enough() -> None:
    net = Net()
    assert blocks_of(net, smallest=18) == [net.stages[0][0], net.stages[0][1], net.stages[1], net.heads[0]]
    assert blocks_of(net, smallest=72) == [net.stages[0][0], net.stages[0][1], net.stages[1]]
    assert blocks_of(net, smallest=73) == []


def test_blocks_that_share_weights_with_others_are_left_out() -> None:
    net = Net()
    net.stages[1].inner[0].weight = net.stages[0][0].inner[0].weight
    assert blocks_of(net, smallest=18) == [net.stages[0][1], net.heads[0]]
    net.stages[0][1].twice = net.stages[0][1].inner  # a block's own affair
    assert blocks_of(net, smallest=18) == [net.stages[0][1], net.heads[0]]


def test_a_parameter_that_is_a_single_number_is_refused_by_name() -> None:
    net = Net()
    net.temperature = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(InvalidInput, match="'temperature' is a single number") as raised:
        shard(net, Group(0, 2, torch.device("cpu")))
    assert "[1]" in raised.value.action


def test_what_is_not_sharded_passes_as_it_is() -> None:
    value = torch.ones(3)
    assert share_of(value, torch.zeros(3)) is value
    assert own_part(value) is value
    nest: Any = {"a": [value, 1], "b": {"c": None}}
    assert whole(nest, keep=False) == nest
