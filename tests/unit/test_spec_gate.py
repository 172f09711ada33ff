"""The gate's grammar and its evaluation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.spec.gate import CheckInvalid, GateCheck, evaluate_gate, parse_check


@pytest.mark.parametrize(
    ("text", "check", "spelling"),
    [
        ("accuracy >= 0.95", GateCheck("accuracy", ">=", 0.95), "accuracy >= 0.95"),
        ("accuracy>.95", GateCheck("accuracy", ">", 0.95), "accuracy > 0.95"),
        ("rmse < 1e1", GateCheck("rmse", "<", 10.0), "rmse < 10"),
        ("r2 >= -1", GateCheck("r2", ">=", -1.0), "r2 >= -1"),
        ("a.b <= champion", GateCheck("a.b", "<=", 0, True, 0), "a.b <= champion"),
        ("a-b.c >= champion-0.01", GateCheck("a-b.c", ">=", 0, True, -0.01), "a-b.c >= champion - 0.01"),
        (" x >  champion +  1 ", GateCheck("x", ">", 0, True, 1.0), "x > champion + 1"),
    ],
)
def test_a_check_is_parsed_and_has_one_spelling(text: str, check: GateCheck, spelling: str) -> None:
    assert parse_check(text) == check
    assert check.text == spelling
    assert parse_check(check.text) == check


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("accuracy => 0.9", "one of >=, >, <=, <"),
        ("accuracy = 0.9", "one of >=, >, <=, <"),
        ("accuracy == 0.9", "one of >=, >, <=, <"),
        ("accuracy 0.9", "write as `accuracy >= 0.95`"),
        ("", "write as `accuracy >= 0.95`"),
        ("accuracy > 95%", "write a fraction"),
        ("accuracy > champion * 2", "champion - 0.01"),
        ("accuracy > best", "champion - 0.01"),
        ("accuracy > 1e999", "a smaller number"),
        ("> 3", "champion - 0.01"),
    ],
)
def test_what_is_no_check_is_refused_with_advice(text: str, advice: str) -> None:
    with pytest.raises(CheckInvalid) as caught:
        parse_check(text)
    assert advice in caught.value.action
    assert caught.value.exit_code == 2


@given(
    st.from_regex(r"[a-z_][a-z0-9_.-]{0,12}[a-z0-9]", fullmatch=True),
    st.sampled_from([">=", ">", "<=", "<"]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
)
def test_the_spelling_of_any_check_parses_to_it(metric: str, operator: str, number: float, champion: bool) -> None:
    check = GateCheck(metric, operator, 0 if champion else number, champion, number if champion else 0)  # type: ignore[arg-type]
    assert parse_check(check.text) == check


def test_rounding_decides_nothing() -> None:
    assert 0.1 + 0.2 > 0.3
    assert GateCheck("x", "<=", 0.3).holds(0.1 + 0.2)
    assert not GateCheck("x", ">", 0.3).holds(0.1 + 0.2)
    assert parse_check("x >= champion - 0.01").holds(0.95, 0.96)
    assert not GateCheck("x", ">=", 0.3).holds(float("nan"))
    assert not GateCheck("x", ">=", 0.3).holds(float("inf"))
    with pytest.raises(ValueError, match="champion"):
        parse_check("x > champion").holds(1.0)


def test_all_checks_are_judged_and_say_their_value() -> None:
    gate = evaluate_gate(["accuracy >= 0.95", "log_loss < 0.1"], {"accuracy": 0.96, "log_loss": 0.2}, None)
    assert gate == {
        "passed": False,
        "checks": [
            {"check": "accuracy >= 0.95", "value": 0.96, "passed": True},
            {"check": "log_loss < 0.1", "value": 0.2, "passed": False},
        ],
    }
    assert evaluate_gate([], {}, None) == {"passed": True, "checks": []}


def check_against(champion: dict[str, float] | None, error: str | None = None) -> dict[str, object]:
    gate = evaluate_gate(["accuracy >= champion - 0.01"], {"accuracy": 0.95}, champion, champion_error=error)
    entry: dict[str, object] = gate["checks"][0]
    return entry


def test_without_a_champion_a_check_against_it_passes_and_says_so() -> None:
    assert check_against(None) == {
        "check": "accuracy >= champion - 0.01",
        "value": 0.95,
        "passed": True,
        "note": "there is no champion yet",
    }


def test_a_champion_that_was_measured_decides() -> None:
    assert check_against({"accuracy": 0.96})["passed"] is True
    assert check_against({"accuracy": 0.97}) == {
        "check": "accuracy >= champion - 0.01",
        "value": 0.95,
        "passed": False,
        "note": "champion: 0.97",
    }


def test_a_champion_that_cannot_be_measured_fails_the_check() -> None:
    assert check_against(None, "its files are gone")["passed"] is False
    assert "its files are gone" in str(check_against(None, "its files are gone")["note"])
    assert check_against({"rmse": 1.0})["passed"] is False


def test_a_metric_that_was_not_measured_fails_the_check() -> None:
    entry = evaluate_gate([parse_check("f1 > 0")], {"accuracy": 1.0}, None)["checks"][0]
    assert entry["passed"] is False
    assert "accuracy" in entry["note"]
