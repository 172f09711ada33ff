"""Whether a front's configuration is in force, judged by what its replicas answer: on a laptop and on a cluster alike.

Nothing else proves it: Serve's and KubeRay's own statuses can be those of the configuration before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headrace.serving.contract import FrontStatus


@dataclass(frozen=True)
class Verdict:
    """What the replicas say of a wish: proven, failed (why), or neither yet (what is being waited for)."""

    proven: bool = False
    error: str | None = None
    waiting_for: str = ""


def judge_answers(config_id: str, version: str, wanted: int, statuses: Iterable[FrontStatus]) -> Verdict:
    """Whether CONFIG_ID, which brings VERSION, is in force in as many distinct replicas as WANTED."""
    answers = {status.replica: status for status in statuses}.values()
    failed = [status.error for status in answers if status.error and status.wanted == config_id]
    if failed:
        return Verdict(error=failed[0])
    new = sum(status.config_id == config_id for status in answers)
    if new < wanted:
        return Verdict(waiting_for=f"replicas to answer with version {version} ({new} of {wanted})")
    return Verdict(proven=True)


def serve_reason(message: str) -> str:
    """The sentence in what Serve says of an application that did not start: the last line of its traceback."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "Ray Serve could not start it"
