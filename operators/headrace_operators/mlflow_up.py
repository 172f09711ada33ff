"""Whether MLflow servers answered when they were asked last, as a metric: what nobody could know of the servers' own.

Objects may name any server, so few are remembered, and those that nobody asks any more are forgotten.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from headrace.monitoring import names
from headrace_operators.runtime.metrics import before_scrape, gauge

_REMEMBER_SECONDS = 900.0
_MOST = 20  # servers

UP = gauge(
    names.MLFLOW_UP,
    "1 where this MLflow server answered the newest request, 0 where it did not or refused it; "
    f"of the {_MOST} servers that were asked last, for {_REMEMBER_SECONDS / 60:.0f} minutes. `own` is `true` for the "
    "one that the operator's environment names, `false` for those that only objects name.",
    ("server", "own"),
)


class Server(NamedTuple):
    """Scheme, host and port of one, and whether it is the operator's own."""

    address: str
    own: bool


_newest: dict[Server, tuple[float, bool]] = {}  # the one that was asked last stands last


def answered(server: Server) -> None:
    """SERVER has answered."""
    _remember(server, True)


def failed(server: Server) -> None:
    """SERVER has not answered, or not as a server should."""
    _remember(server, False)


def _remember(server: Server, up: bool) -> None:
    """Also where nobody scrapes, no more are kept than are shown."""
    _newest.pop(server, None)
    _newest[server] = time.monotonic(), up
    if len(_newest) > _MOST:
        del _newest[next(iter(_newest))]


def _show() -> None:
    oldest = time.monotonic() - _REMEMBER_SECONDS
    UP.clear()
    for server, (at, up) in _newest.items():
        if at > oldest:
            UP.labels(server.address, str(server.own).lower()).set(up)


before_scrape(_show)
