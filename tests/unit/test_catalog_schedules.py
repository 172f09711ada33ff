"""Each schedule is the function of the step that its source says; none needs torch."""

from __future__ import annotations

import math
from typing import Any

import pytest

from headrace_models import catalog


def factors(name: str, args: dict[str, Any], total: int = 100, per_epoch: int = 10) -> list[float]:
    card = catalog.schedules()[name]
    schedule = card.load()(catalog.arguments(card, args), total, per_epoch)
    return [schedule(step) for step in range(total)]


def test_constant_stays() -> None:
    assert factors("constant", {}) == [1.0] * 100


@pytest.mark.parametrize("warmup", [{"warmup_steps": 20}, {"warmup_epochs": 2}])
@pytest.mark.parametrize("name", ["constant", "warm-up", "step", "cosine", "linear", "exponential"])
def test_a_warm_up_rises_in_a_straight_line_and_ends_at_the_schedules_own_value(
    name: str, warmup: dict[str, float]
) -> None:
    given = factors(name, warmup)
    plain = factors(name, {"warmup_epochs": 0} if name == "warm-up" else {})
    assert given[0] == pytest.approx(plain[0] / 20)
    if name != "exponential":
        assert given[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert max(given) <= 1.0


def test_step_cuts_every_so_many_epochs() -> None:
    given = factors("step", {"every_epochs": 3, "gamma": 0.1})
    assert given == pytest.approx([0.1 ** (step // 30) for step in range(100)])


def test_multi_step_cuts_at_each_milestone() -> None:
    given = factors("multi-step", {"milestones": [2, 5.5], "gamma": 0.5})
    assert given == pytest.approx([1.0] * 20 + [0.5] * 35 + [0.25] * 45)


def test_exponential_loses_gamma_an_epoch() -> None:
    given = factors("exponential", {"gamma": 0.8})
    assert given[0] == 1
    assert given[10] == pytest.approx(0.8)
    assert given[25] == pytest.approx(0.8**2.5)


def test_linear_falls_in_a_straight_line() -> None:
    given = factors("linear", {"final_factor": 0.2})
    assert given == pytest.approx([1 - 0.8 * step / 100 for step in range(100)])


def test_cosine_falls_along_half_a_cosine_after_the_warm_up() -> None:
    given = factors("cosine", {"warmup_steps": 10, "final_factor": 0.1})
    assert given[10:] == pytest.approx([0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 90)) for step in range(90)])


def test_inverse_sqrt_is_the_transformers_schedule() -> None:
    given = factors("inverse-sqrt", {"warmup_steps": 25})
    paper = [min((s + 1) ** -0.5, (s + 1) * 25**-1.5) for s in range(100)]
    assert given == pytest.approx([value * 5 for value in paper])


def test_one_cycle_rises_and_falls_along_cosines() -> None:
    given = factors("one-cycle", {"rise": 0.25, "start_factor": 0.1, "final_factor": 0.001}, total=101)
    assert given[0] == pytest.approx(0.1)
    assert given[25] == pytest.approx(1)
    assert given[100] == pytest.approx(0.001)
    assert given[:26] == sorted(given[:26])
    assert given[25:] == sorted(given[25:], reverse=True)
    assert given[12] + given[13] == pytest.approx(1.1)  # symmetric about the middle of the rise


@pytest.mark.parametrize("name", list(catalog.schedules()))
def test_a_schedule_is_defined_for_one_step_and_beyond_its_end(name: str) -> None:
    card = catalog.schedules()[name]
    args = catalog.arguments(card, {"milestones": [1]} if name == "multi-step" else {})
    schedule = card.load()(args, 1, 1)
    assert all(0 <= schedule(step) <= 1 for step in range(5))
