"""What went wrong on a worker, told apart: what would go wrong again, and what is worth another try.

Ray Train retries every failure alike and reports its own wrapper. A user's bug must end the run at once with the user's
words; a killed worker, a lost peer or a hiccup of storage is what retries are for.
"""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path
from typing import Any

from headrace.base.errors import HeadraceError, RunFailed, Unavailable

# What the surviving workers meet when another one dies in the middle of a collective operation (gloo, NCCL, TCPStore).
_PEER_LOST = re.compile(
    r"gloo|NCCL|Connection (closed|reset) by peer|Broken pipe|ProcessGroup|TCPStore|store->get|heartbeat", re.IGNORECASE
)


class WorkerFailure(Exception):
    """A failure on its way from a worker.

    Args:
        record: of the `HeadraceError` that tells it.
        permanent: it would come again: trying again cannot help.
        lost_peer: it only says that another worker died.
        trace: the traceback as text.
    """

    def __init__(self, record: dict[str, Any], permanent: bool, lost_peer: bool, trace: str) -> None:
        super().__init__(record, permanent, lost_peer, trace)
        self.record = record
        self.permanent = permanent
        self.lost_peer = lost_peer
        self.trace = trace

    def __str__(self) -> str:
        return str(self.record["message"])


def is_lost_peer(error: BaseException) -> bool:
    """Whether ERROR comes of another worker's death."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if "DistError" in names:
        return True
    return isinstance(error, RuntimeError) and bool(_PEER_LOST.search(str(error)))


def is_temporary(error: BaseException) -> bool:
    """Whether the same work may well succeed on a second try."""
    if isinstance(error, Unavailable) or is_lost_peer(error):
        return True
    lasting = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
    return isinstance(error, (OSError, TimeoutError)) and not isinstance(error, lasting)


def failure_of(error: BaseException) -> WorkerFailure:
    """ERROR, raised on a worker, as what is sent to the controller."""
    trace = "".join(traceback.format_exception(error))
    told = error if isinstance(error, HeadraceError) else _explained(error)
    return WorkerFailure(told.to_record(), not is_temporary(error), is_lost_peer(error), trace)


def _explained(error: BaseException) -> RunFailed:
    text = f"{type(error).__name__}: {error}".strip()
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return RunFailed(
            f"a worker ran out of memory: {text.splitlines()[0]}",
            action="lower train.batch_size, raise train.workers, or set train.precision: bfloat16",
            code="out-of-memory",
        )
    if "Expected to have finished reduction" in text:
        return RunFailed(
            "some parameters of the model take no part in its outputs, so their gradients never come",
            action="take them out of the model, or freeze them by name under model.freeze",
            code="unused-parameters",
        )
    where = _place(error)
    return RunFailed(
        f"training failed{where}: {text}",
        action="the traceback is in the log; mend the code or the data and run again",
    )


def _place(error: BaseException) -> str:
    """Where a person should look: the innermost frame that is neither the standard library nor an installed package."""
    installed = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(installed) and not frame.filename.startswith("<"):
            return f" in {Path(frame.filename).name}, line {frame.lineno} ({frame.name})"
    return ""
