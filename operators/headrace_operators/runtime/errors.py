"""What can go wrong between us and the API server, as types: a reconciler decides by class, never by status code.

    ApiError(status, reason, message)
    ├── NotFound       404   there is no such object, or no such kind (its CRD is not installed)
    ├── AlreadyExists  409   an object of that name is there
    ├── Conflict       409   the object changed in the meantime
    ├── FieldOwned     409   server-side apply: another manager owns a field that we want to set
    ├── Gone           410   the resource version is too old: list anew
    ├── Invalid        400, 422   refused; the same request will be refused again
    ├── Forbidden      401, 403   our ServiceAccount may not
    ├── Busy           429   the API server asks for patience, and we had it
    └── Unreachable    0, 5xx     no answer, or none that can be understood; the request may have been carried out
    NotLeading         a write was stopped here because our lease was not renewed in time: the process must end
    Wait(message, seconds)   raised by a reconciler: look again after so long; counts as no error

What `temporary` says of an error is whether anybody must mend something before it can go away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """An answer of the API server that is no success, or none at all (`status` 0)."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{reason} ({status}): {message}" if status else f"{reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed later without anybody mending anything."""
        return isinstance(self, (Busy, Conflict, Gone, Unreachable))


class NotFound(ApiError):
    """See the module."""


class AlreadyExists(ApiError):
    """See the module."""


class Conflict(ApiError):
    """See the module."""


class FieldOwned(ApiError):
    """See the module."""


class Gone(ApiError):
    """See the module."""


class Invalid(ApiError):
    """See the module."""


class Forbidden(ApiError):
    """See the module."""


class Busy(ApiError):
    """See the module."""


class Unreachable(ApiError):
    """See the module."""


class NotLeading(Exception):
    """See the module."""


class Wait(Exception):
    """See the module."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.message = message
        self.seconds = seconds


_LONGEST = 2000  # a refused patch is answered with the whole object
_UNDECLARED = "failed to create typed patch object"  # server-side apply of a field that is not there answers with a 500
_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Busy,
}


def api_error(status: int, body: Mapping[str, Any], retry_after_seconds: float | None = None) -> ApiError:
    """The error for STATUS and the `Status` object that came with it."""
    reason = str(body.get("reason") or "Unknown")
    kind = _BY_STATUS.get(status, Unreachable if status >= 500 else ApiError)
    if reason == "AlreadyExists":
        kind = AlreadyExists
    if reason == "Expired":
        kind = Gone
    if _UNDECLARED in str(body.get("message")):
        kind = Invalid
    causes = (body.get("details") or {}).get("causes") or ()
    if any(cause.get("reason") == "FieldManagerConflict" for cause in causes):
        kind = FieldOwned
    return kind(
        status, reason, str(body.get("message") or "no message")[:_LONGEST], retry_after_seconds=retry_after_seconds
    )
