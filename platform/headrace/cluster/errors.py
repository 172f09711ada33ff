"""What an API server says no with, and what a person is told of it in our own tree of errors."""

from __future__ import annotations

import json
from collections.abc import Mapping

from headrace.base.errors import HeadraceError, InvalidInput, RunFailed

_BUSY = 429
_UNDECLARED = "failed to create typed patch object"  # an apply of a field that is not there is answered with a 500
_LONGEST = 2000  # characters of a refusal: one of a patch may hold the whole object


class ApiError(Exception):
    """An answer of the API server that is no success; `headrace_error` is what a person is told of it."""

    def __init__(self, status: int, reason: str, message: str, pause_seconds: float | None = None) -> None:
        super().__init__(f"{reason} ({status}): {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.pause_seconds = pause_seconds

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed later though nobody mends anything."""
        return self.status == _BUSY or (self.status >= 500 and _UNDECLARED not in self.message)

    def headrace_error(self, did: str) -> HeadraceError:
        """This error in our tree; DID says what was asked."""
        said = f"Kubernetes refused to {did}: {self.message}"
        if self.status in (401, 403):
            return RunFailed(said, action="give whoever asked the rights for it", code="kubernetes-forbidden")
        if self.status == 404:
            return RunFailed(
                said, action="install the chart's CRDs, or correct the namespace", code="kubernetes-not-found"
            )
        if self.status == 409:
            return RunFailed(said, action="look at who else changes it", code="kubernetes-conflict")
        return InvalidInput(said, action="correct what it names", code="kubernetes-refused")


def refusal(status: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
    """The error that an answer of this STATUS is."""
    text = body.decode("utf-8", "replace")
    try:
        told = json.loads(text)
        reason, message = str(told.get("reason") or "Unknown"), str(told.get("message") or text)
    except (ValueError, AttributeError):
        reason, message = "Unknown", text
    after = headers.get("retry-after", "")
    return ApiError(status, reason, message[:_LONGEST], float(after) if after.isdigit() else None)
