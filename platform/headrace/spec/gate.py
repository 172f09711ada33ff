"""The gate: what a new model must show on the test split before anyone is served by it.

Pure: the grammar and its evaluation, so that a check means the same when a spec is judged, when a run registers and
when a person reads the result.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from headrace.base.errors import InvalidInput

Operator = Literal[">=", ">", "<=", "<"]

GRAMMAR = "METRIC (>=|>|<=|<) (NUMBER | champion [(+|-) NUMBER])"

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_CHECK = re.compile(
    rf"\s*(?P<metric>[A-Za-z_][\w.-]*?)\s*(?P<operator>>=|<=|>|<)\s*"
    rf"(?:(?P<number>[-+]?{_NUMBER})|champion(?:\s*(?P<sign>[-+])\s*(?P<offset>{_NUMBER}))?)\s*"
)
_ROUNDING = 1e-9  # 0.96 - 0.01 must not fail 0.95 for the sixteenth digit


class CheckInvalid(InvalidInput, ValueError):
    """A check that is not in the grammar."""

    code = "gate-invalid"


@dataclass(frozen=True)
class GateCheck:
    """One check. The bound is `number`, or the champion's own value plus `offset`."""

    metric: str
    operator: Operator
    number: float
    against_champion: bool = False
    offset: float = 0.0

    @property
    def text(self) -> str:
        """This check as a person writes it, in one spelling."""
        if not self.against_champion:
            return f"{self.metric} {self.operator} {_number(self.number)}"
        offset = f" {'-' if self.offset < 0 else '+'} {_number(abs(self.offset))}" if self.offset else ""
        return f"{self.metric} {self.operator} champion{offset}"

    def holds(self, value: float, champion: float | None = None) -> bool:
        """Whether VALUE passes; CHAMPION is needed where `against_champion`."""
        if self.against_champion and champion is None:
            raise ValueError("a check against the champion needs the champion's value")
        bound = self.number if champion is None or not self.against_champion else champion + self.offset
        if not (math.isfinite(value) and math.isfinite(bound)):
            return False
        slack = _ROUNDING * max(1.0, abs(bound))
        above = value - bound if self.operator.startswith(">") else bound - value
        return above >= -slack if self.operator.endswith("=") else above > slack


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def parse_check(text: str) -> GateCheck:
    """The check that TEXT says, as `accuracy >= 0.95` or `accuracy >= champion - 0.01`.

    Raises:
        CheckInvalid: TEXT is not in the grammar; the action says how to write it.
    """
    match = _CHECK.fullmatch(text)
    if match is None:
        raise CheckInvalid(f"not a check: {text!r}", action=_advice(text))
    found = match.groupdict()
    if found["number"] is not None:
        number = float(found["number"])
        if not math.isfinite(number):
            raise CheckInvalid(f"not a finite number: {found['number']}", action="write a smaller number")
        return GateCheck(found["metric"], found["operator"], number)  # type: ignore[arg-type]
    offset = float(f"{found['sign'] or ''}{found['offset'] or 0}")
    return GateCheck(found["metric"], found["operator"], 0.0, against_champion=True, offset=offset)  # type: ignore[arg-type]


def _advice(text: str) -> str:
    if "%" in text:
        return "write a fraction, as 0.95 for 95 %"
    if re.search(r"[^<>]=|^=|=>|=<", text):
        return "write one of >=, >, <=, < between metric and bound"
    if not re.search(r"[<>]", text):
        return "write as `accuracy >= 0.95`"
    return "write as `accuracy >= 0.95` or `accuracy >= champion - 0.01`"


def evaluate_gate(
    checks: Sequence[str | GateCheck],
    metrics: Mapping[str, float],
    champion_metrics: Mapping[str, float] | None,
    *,
    champion_error: str | None = None,
) -> dict[str, Any]:
    """Judge METRICS, those of the new model on the test split.

    Args:
        checks: what must hold; none at all passes.
        metrics: the new model's values by the gate's names.
        champion_metrics: the champion's values on the same split; None where there is no champion yet: its checks
            then pass and say so.
        champion_error: why the champion, which exists, could not be measured: its checks then fail and say so.

    Returns:
        `{"passed", "checks": [{"check", "value", "passed", "note"?}]}`; `note` explains what the value does not.
    """
    judged = [
        _judge(parse_check(check) if isinstance(check, str) else check, metrics, champion_metrics, champion_error)
        for check in checks
    ]
    return {"passed": all(entry["passed"] for entry in judged), "checks": judged}


def _judge(
    check: GateCheck,
    metrics: Mapping[str, float],
    champion_metrics: Mapping[str, float] | None,
    champion_error: str | None,
) -> dict[str, Any]:
    value = metrics.get(check.metric)

    def entry(passed: bool, note: str = "") -> dict[str, Any]:
        record = {"check": check.text, "value": value, "passed": passed}
        return {**record, "note": note} if note else record

    if value is None:
        return entry(False, f"the evaluation has no metric {check.metric!r}; it has {', '.join(sorted(metrics))}")
    if not check.against_champion:
        return entry(check.holds(value))
    if champion_error is not None:
        return entry(False, f"the champion cannot be measured: {champion_error}")
    if champion_metrics is None:
        return entry(True, "there is no champion yet")
    champion = champion_metrics.get(check.metric)
    if champion is None:
        return entry(False, f"the champion's evaluation has no metric {check.metric!r}")
    return entry(check.holds(value, champion), f"champion: {champion:.6g}")
