"""Every error that Headrace raises on purpose, in one tree.

An error says what happened and what to do next, and carries the exit code of the command that meets it. It crosses
process borders (step to runner to command line) as a plain record, so nothing is lost on the way.

    HeadraceError                    exit 1
    ├── InvalidInput                 exit 2   the spec, the data or the usage is wrong
    │   ├── SpecInvalid                       findings: every mistake of a spec at once
    │   ├── DataInvalid                       findings: every bad file or row at once
    │   ├── NotEnoughResources                more CPUs or GPUs asked for than there are
    │   └── MissingExtra                      a part of Headrace that is not installed
    ├── GateRefused                  exit 3   the gate refused the model
    ├── Unavailable                  exit 4   a service that is needed cannot be reached (temporary)
    ├── Cancelled                    exit 130 stopped by a person; can be resumed
    └── RunFailed                    exit 1   a step failed
        ├── Superseded                        a newer attempt owns the run: this one must not write
        └── ChampionChanged                   the alias moved while the run was judging against it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One mistake in something a person wrote: where it stands, what was given, what is allowed, what to do."""

    where: str
    given: str
    allowed: str
    action: str

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.given}" if self.given else self.where]
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.action:
            parts.append(self.action)
        return " — ".join(parts)


class HeadraceError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: one line: what happened.
        action: one line: what to do about it.
        code: a stable word for programs, `[a-z-]+`; the class has a default.
        log: path of the log file that holds the details, if any.
        findings: the single mistakes, where there can be many.
    """

    code: str = "internal"
    exit_code: int = 1

    def __init__(
        self,
        message: str,
        *,
        action: str = "",
        code: str | None = None,
        log: str | None = None,
        findings: Sequence[Finding] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.action = action
        self.code = code or type(self).code
        self.log = log
        self.findings = tuple(findings)

    def to_record(self) -> dict[str, Any]:
        """This error as plain JSON values; `error_from_record` is the inverse."""
        return {
            "type": type(self).__name__,
            "code": self.code,
            "message": self.message,
            "action": self.action,
            "log": self.log,
            "findings": [asdict(finding) for finding in self.findings],
        }


class InvalidInput(HeadraceError):
    code = "invalid-input"
    exit_code = 2


class SpecInvalid(InvalidInput):
    code = "spec-invalid"


class DataInvalid(InvalidInput):
    code = "data-invalid"


class NotEnoughResources(InvalidInput):
    code = "not-enough-resources"


class MissingExtra(InvalidInput):
    """A command needs an optional part of Headrace that is not installed."""

    code = "missing-extra"

    def __init__(self, extra: str, needed_for: str, **rest: Any) -> None:
        rest.setdefault("action", f"pip install 'headrace[{extra}]'")
        super().__init__(f"{needed_for} needs the {extra!r} extra, which is not installed", **rest)


class GateRefused(HeadraceError):
    code = "gate-refused"
    exit_code = 3


class Unavailable(HeadraceError):
    """A service cannot be reached. `waited_for`: whoever raises it has waited already, and nobody else is to."""

    code = "unavailable"
    exit_code = 4
    waited_for = False


class Cancelled(HeadraceError):
    code = "cancelled"
    exit_code = 130


class RunFailed(HeadraceError):
    code = "run-failed"


class Superseded(RunFailed):
    code = "superseded"


class ChampionChanged(RunFailed):
    code = "champion-changed"


def _tree(root: type[HeadraceError]) -> dict[str, type[HeadraceError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


def error_from_record(record: Mapping[str, Any]) -> HeadraceError:
    """The error that `to_record` described; an unknown type becomes a `HeadraceError` with the same words."""
    kind = _tree(HeadraceError).get(str(record.get("type")), HeadraceError)
    error = kind.__new__(kind)
    HeadraceError.__init__(
        error,
        str(record.get("message") or "unknown error"),
        action=str(record.get("action") or ""),
        code=record.get("code"),
        log=record.get("log"),
        findings=[Finding(**finding) for finding in record.get("findings") or ()],
    )
    return error
