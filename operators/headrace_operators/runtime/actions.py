"""What a reconciler may ask for: plain values, so that a plan can be tested without a cluster.

A plan's actions are carried out in their order, then its status is written. An action that fails ends the plan: the
status is not written, and the key is tried again. So what must survive a kill stands in the status before the action
that relies on it is planned, in the plan before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from headrace_operators.runtime.kinds import Kind


@dataclass(frozen=True)
class Create:
    """Create MANIFEST if no object of its name is there. One that is there and has the same controller is as good as a
    new one; with another controller it is an error that a person must mend."""

    kind: Kind
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class Apply:
    """Server-side apply MANIFEST as our field manager: what it says is ours, the rest is not touched. FORCE takes
    fields from other managers."""

    kind: Kind
    manifest: Mapping[str, Any]
    force: bool = False


@dataclass(frozen=True)
class Delete:
    """Delete the object that has this uid; one that is gone, or that another uid has replaced, is left alone."""

    kind: Kind
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class Tell:
    """An Event of the reconciled object, which `kubectl describe` shows. Equal ones are counted, not repeated."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


Action = Create | Apply | Delete | Tell


@dataclass(frozen=True)
class Plan:
    """What is to be done about one object.

    Args:
        actions: what to do, in this order.
        status: the whole new status; None leaves it. It is written only if it differs.
        again_after_seconds: when to look again without a change; None waits for a change.
    """

    actions: tuple[Action, ...] = ()
    status: Mapping[str, Any] | None = None
    again_after_seconds: float | None = None
