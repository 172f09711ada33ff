"""Each optimizer takes, step by step, the steps of its paper's update rule on a quadratic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from headrace.base.errors import SpecInvalid
from headrace_models import catalog
from headrace_models.layers import build_optimizer, build_schedule

CURVATURE = (1.0, 10.0)  # f(w) = sum of c w² / 2, so the gradient is c w
START = (1.0, -2.0)
STEPS = 12

Rule = Callable[[float, float, dict[str, float], int], float]


def sgd(w: float, g: float, state: dict[str, float], t: int) -> float:
    return w - 0.05 * g


def momentum(w: float, g: float, state: dict[str, float], t: int) -> float:
    """Sutskever et al. 2013, eq. 1-2."""
    state["v"] = 0.8 * state.get("v", 0.0) - 0.02 * g
    return w + state["v"]


def adam(w: float, g: float, state: dict[str, float], t: int) -> float:
    """Kingma & Ba 2014, algorithm 1."""
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    state["v"] = 0.99 * state.get("v", 0.0) + 0.01 * g * g
    return w - 0.1 * (state["m"] / (1 - 0.9**t)) / (math.sqrt(state["v"] / (1 - 0.99**t)) + 1e-8)


def adamw(w: float, g: float, state: dict[str, float], t: int) -> float:
    """Loshchilov & Hutter 2017, algorithm 2, the decay multiplied by lr."""
    return adam(w, g, state, t) - 0.1 * 0.05 * w


def rmsprop(w: float, g: float, state: dict[str, float], t: int) -> float:
    """Tieleman & Hinton 2012, slide 29."""
    state["s"] = 0.9 * state.get("s", 0.0) + 0.1 * g * g
    return w - 0.05 * g / (math.sqrt(state["s"]) + 1e-8)


def adagrad(w: float, g: float, state: dict[str, float], t: int) -> float:
    """Duchi et al. 2011, figure 1."""
    state["s"] = state.get("s", 0.0) + g * g
    return w - 0.3 * g / (math.sqrt(state["s"]) + 1e-10)


def adadelta(w: float, g: float, state: dict[str, float], t: int) -> float:
    """Zeiler 2012, algorithm 1."""
    state["s"] = 0.95 * state.get("s", 0.0) + 0.05 * g * g
    step = -math.sqrt(state.get("u", 0.0) + 1e-6) / math.sqrt(state["s"] + 1e-6) * g
    state["u"] = 0.95 * state.get("u", 0.0) + 0.05 * step * step
    return w + step


def adam_with_amsgrad(w: float, g: float, state: dict[str, float], t: int) -> float:
    """Reddi et al. 2018, algorithm 2, with Adam's bias correction, as PyTorch has it."""
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    state["v"] = 0.99 * state.get("v", 0.0) + 0.01 * g * g
    state["top"] = max(state.get("top", 0.0), state["v"])
    return w - 0.1 * (state["m"] / (1 - 0.9**t)) / (math.sqrt(state["top"] / (1 - 0.99**t)) + 1e-8)


def rmsprop_centred_with_momentum(w: float, g: float, state: dict[str, float], t: int) -> float:
    """Graves 2013, eq. 38-41; PyTorch adds its epsilon to the root, not below it."""
    state["s"] = 0.9 * state.get("s", 0.0) + 0.1 * g * g
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    state["v"] = 0.5 * state.get("v", 0.0) + g / (math.sqrt(state["s"] - state["m"] ** 2) + 1e-8)
    return w - 0.05 * state["v"]


def adagrad_with_decay(w: float, g: float, state: dict[str, float], t: int) -> float:
    """Duchi et al. 2011, figure 1, from a sum of 0.5 and with a learning rate that falls."""
    state["s"] = state.get("s", 0.5) + g * g
    return w - 0.3 / (1 + (t - 1) * 0.1) * g / (math.sqrt(state["s"]) + 1e-10)


VARIANTS: list[tuple[Rule, str, dict[str, Any]]] = [
    (adam_with_amsgrad, "adam", {"lr": 0.1, "betas": [0.9, 0.99], "amsgrad": True}),
    (rmsprop_centred_with_momentum, "rmsprop", {"lr": 0.05, "centered": True, "momentum": 0.5}),
    (adagrad_with_decay, "adagrad", {"lr": 0.3, "lr_decay": 0.1, "initial_accumulator": 0.5}),
]

RULES: dict[str, tuple[Rule, dict[str, Any]]] = {
    "sgd": (sgd, {"lr": 0.05}),
    "momentum": (momentum, {"lr": 0.02, "momentum": 0.8}),
    "adam": (adam, {"lr": 0.1, "betas": [0.9, 0.99]}),
    "adamw": (adamw, {"lr": 0.1, "betas": [0.9, 0.99], "weight_decay": 0.05}),
    "rmsprop": (rmsprop, {"lr": 0.05}),
    "adagrad": (adagrad, {"lr": 0.3}),
    "adadelta": (adadelta, {"rho": 0.95}),
}


def taken(name: str, args: dict[str, Any]) -> list[list[float]]:
    """The weights after each step of the optimizer that we ship."""
    weight = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    optimizer = build_optimizer(name, args, [("weight", weight)])
    places = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        (torch.tensor(CURVATURE, dtype=torch.float64) * weight**2 / 2).sum().backward()
        optimizer.step()
        places.append(weight.tolist())
    return places


def test_every_optimizer_of_the_catalog_has_its_rule_here() -> None:
    assert set(RULES) == set(catalog.optimizers())


@pytest.mark.parametrize(
    ("rule", "name", "args"), [*((rule, name, args) for name, (rule, args) in RULES.items()), *VARIANTS]
)
def test_it_follows_its_papers_rule(rule: Rule, name: str, args: dict[str, Any]) -> None:
    weights, states = list(START), [{}, {}]
    for step, place in enumerate(taken(name, args), start=1):
        weights = [rule(w, c * w, state, step) for w, c, state in zip(weights, CURVATURE, states, strict=True)]
        assert place == pytest.approx(weights, rel=1e-9, abs=1e-12)


def test_nesterov_takes_the_gradient_where_the_momentum_leads() -> None:
    """Sutskever et al. 2013, eq. 3-4: PyTorch keeps the point looked ahead to, w + momentum * v."""
    lr, mu = 0.02, 0.8
    weights, speeds = list(START), [0.0, 0.0]
    for place in taken("momentum", {"lr": lr, "momentum": mu, "nesterov": True}):
        ahead = [w + mu * v for w, v in zip(weights, speeds, strict=True)]
        speeds = [mu * v - lr * c * a for v, c, a in zip(speeds, CURVATURE, ahead, strict=True)]
        weights = [w + v for w, v in zip(weights, speeds, strict=True)]
        assert place == pytest.approx([w + mu * v for w, v in zip(weights, speeds, strict=True)], rel=1e-9)


def test_weight_decay_adds_the_weight_to_the_gradient() -> None:
    plain = taken("sgd", {"lr": 0.05, "weight_decay": 0.2})
    first = [w - 0.05 * (c * w + 0.2 * w) for w, c in zip(START, CURVATURE, strict=True)]
    assert plain[0] == pytest.approx(first, rel=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_it_goes_down(name: str) -> None:
    places = taken(name, RULES[name][1])
    assert sum(c * w * w for c, w in zip(CURVATURE, places[-1], strict=True)) < sum(
        c * w * w for c, w in zip(CURVATURE, START, strict=True)
    )


def test_a_wrong_argument_is_refused_before_torch_sees_it() -> None:
    with pytest.raises(SpecInvalid):
        build_optimizer("adam", {"learning_rate": 0.1}, [("weight", torch.zeros(1, requires_grad=True))])


def test_a_resumed_schedule_goes_on_where_it_was() -> None:
    def make() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        optimizer = build_optimizer("sgd", {"lr": 0.4}, [("weight", torch.zeros(1, requires_grad=True))])
        args = {"warmup_epochs": 1}
        return optimizer, build_schedule("cosine", args, optimizer, total_steps=40, steps_per_epoch=10)

    def rates(optimizer: torch.optim.Optimizer, schedule: Any, steps: int) -> list[float]:
        seen = []
        for _ in range(steps):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return seen

    whole = rates(*make(), 40)
    assert whole[0] == pytest.approx(0.04)
    assert max(whole) == pytest.approx(0.4)
    optimizer, schedule = make()
    first = rates(optimizer, schedule, 17)
    again, resumed = make()
    again.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    assert first + rates(again, resumed, 23) == whole


# parameters with settings of their own


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 3), nn.Linear(3, 1))


def rates(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, tuple[float, float]]:
    """(lr, weight decay) of each parameter."""
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return {name: found[id(parameter)] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", list(catalog.optimizers()))
def test_every_optimizer_takes_groups_the_first_that_matches_counting(name: str) -> None:
    groups = [{"match": "3.", "lr": 0.5}, {"match": "*.bias", "weight_decay": 0.25}, {"match": "1.", "lr": 0.125}]
    model = network()
    args = {"lr": 0.0625, "weight_decay": 0.03125, "groups": groups}
    optimizer = build_optimizer(name, args, model.named_parameters())
    assert optimizer.param_groups[0]["lr"] == 0.0625  # what is told as the learning rate
    assert rates(optimizer, model) == {
        "0.weight": (0.0625, 0.03125),
        "0.bias": (0.0625, 0.25),
        "1.weight": (0.125, 0.03125),
        "1.bias": (0.0625, 0.25),
        "2.weight": (0.0625, 0.03125),
        "2.bias": (0.0625, 0.25),
        "3.weight": (0.5, 0.03125),
        "3.bias": (0.5, 0.03125),
    }


def test_layer_decay_lowers_the_rate_layer_by_layer_away_from_the_output() -> None:
    model = network()
    args = {"lr": 0.8, "layer_decay": 0.5, "groups": [{"match": "3.", "lr": 1.6}]}
    optimizer = build_optimizer("sgd", args, model.named_parameters())
    given = {name: rate for name, (rate, _) in rates(optimizer, model).items()}
    assert given == pytest.approx(
        {
            "0.weight": 0.2,
            "0.bias": 0.2,
            "1.weight": 0.2,
            "1.bias": 0.2,
            "2.weight": 0.4,
            "2.bias": 0.4,
            "3.weight": 1.6,
            "3.bias": 1.6,
        }
    )


def test_a_schedule_moves_every_group_by_the_same_factor() -> None:
    model = network()
    args = {"lr": 0.1, "groups": [{"match": "3.", "lr": 1.0}]}
    optimizer = build_optimizer("sgd", args, model.named_parameters())
    schedule = build_schedule("linear", {}, optimizer, total_steps=4, steps_per_epoch=2)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.075, 0.75])


@pytest.mark.parametrize(
    ("groups", "hint"),
    [
        ([{"match": "3.wieght", "lr": 1}], "the nearest are 3.weight"),
        ([{"match": "3.", "lr": 1}, {"match": "3.bias", "lr": 2}], "move it before the group that takes them"),
    ],
)
def test_a_group_without_parameters_is_refused(groups: list[dict[str, Any]], hint: str) -> None:
    with pytest.raises(SpecInvalid) as raised:
        build_optimizer("sgd", {"groups": groups}, network().named_parameters())
    (finding,) = raised.value.findings
    assert finding.where == f"train.optimizer.args.groups.{len(groups) - 1}.match"
    assert hint in finding.action
