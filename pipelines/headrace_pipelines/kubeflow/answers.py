"""What the errors of Kubeflow's API mean, in our own tree.

A refusal has its words in `message`, that of an upload in `error_message`. A server that is gone raises urllib3's
errors past kfp's own; both, and the answers of a proxy in front of one, are one thing here: it cannot be reached.
"""

from __future__ import annotations

import json
from typing import Any

from headrace.base.errors import HeadraceError, InvalidInput, RunFailed, Unavailable

GONE = frozenset({0, 408, 429, 502, 503, 504})  # HTTP statuses of a server, or a proxy of it, that is away or busy
LONGEST = 600  # characters of a foreign message that are told


class Refused(RunFailed):
    """Kubeflow said no. `status` is HTTP's."""

    code = "kubeflow-refused"
    status: int = 0


def refusal(status: int, body: str, host: str, doing: str) -> HeadraceError:
    """The error for HTTP STATUS with BODY, which HOST answered to DOING ("create the run")."""
    said = words(body)
    if status in GONE:
        return unreachable(host, f"HTTP {status}: {said}" if said else f"HTTP {status}")
    if status == 401:
        return InvalidInput(
            f"Kubeflow at {host} does not know the token (401)",
            action="renew it: token_env or token_file of the target; its audience must be pipelines.kubeflow.org",
            code="kubeflow-unauthorized",
        )
    if status == 403:
        return InvalidInput(
            f"Kubeflow at {host} does not allow to {doing} (403): {said}",
            action="ask for a role on resource group pipelines.kubeflow.org in the target's namespace, or correct it",
            code="kubeflow-forbidden",
        )
    error = Refused(
        f"Kubeflow at {host} refused to {doing} ({status}): {said or 'without a word'}",
        action="a newer or older Kubeflow than 2.17 may read pipelines otherwise; its API server's log has more",
    )
    error.status = status
    return error


def words(body: str) -> str:
    """What the body of an error says, in one line."""
    try:
        told: Any = json.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return "" if "<html" in body.lower() else _short(body)
    return _short(str(told.get("error_message") or told.get("message") or told.get("error") or ""))


def is_record(body: bytes) -> bool:
    """Whether BODY is what the API always gives: a JSON object."""
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def page(host: str) -> InvalidInput:
    """The error for a HOST that answers with a page where its API's answer should be."""
    return InvalidInput(
        f"Kubeflow at {host} answers with a page, not with its API: is it a login?",
        action="give the target token_env or token_file, and the API's address (often HOST/pipeline)",
        code="kubeflow-unauthorized",
    )


def unreachable(host: str, why: object) -> Unavailable:
    """The error for a HOST that does not answer."""
    return Unavailable(
        f"Kubeflow at {host} cannot be reached: {_short(str(why))}",
        action="check the address in targets.yaml and that it is up; runs that were sent go on by themselves",
        code="kubeflow-unreachable",
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
