"""Deploying on this machine: a wish is written down, told to Serve, and proven by what every replica answers.

`deploy` returns only when all replicas answer with the new version; else it puts the previous wish back, so that a
deployment that fails changes nothing but its own report.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from headrace.base.errors import HeadraceError, InvalidInput, RunFailed, Unavailable
from headrace.base.ids import LONGEST_NAME
from headrace.local import desired_state
from headrace.local.desired_state import Deployment, new_config_id
from headrace.local.head_record import Head
from headrace.local.ray_head import ensure_head, find_head, require_same_s3
from headrace.serving.client import FrontReplicas, ServeClient, front_statuses, replicas_of
from headrace.serving.contract import FrontStatus
from headrace.serving.packages import is_copied
from headrace.serving.verdict import Verdict, judge_answers, serve_reason

Tell = Callable[[str], None]

_POLL_SECONDS = 0.2


def deploy(
    deployment: Deployment,
    *,
    tell: Tell,
    conclude: Callable[[], None] = lambda: None,
    timeout_seconds: float = 180.0,
) -> dict[str, str]:
    """Serve DEPLOYMENT in place of what its name serves now; returns {"url", "model", "version"}.

    Args:
        conclude: called when every replica answers; where it raises, the deployment has failed, but for Unavailable.

    Raises:
        RunFailed: the version could not be loaded (in the front's own words) or did not come up in time; what was
            served before is served still, a first deployment is removed.
        HeadraceError: what CONCLUDE refused. Then, too, what was served before is served still.
        Unavailable: the Ray head or Serve went away meanwhile, and the wish is carried out when they are back; or what
            CONCLUDE needs is away. The wish stands, for the resumed run.

    Being interrupted (Ctrl-C) puts back what was served before, too.
    """
    _check(deployment)
    head = ensure_head(tell)
    if not is_copied(deployment.stable):
        require_same_s3(head, deployment.stable.package_uri)
    wish, previous, head = _write_wish(head, deployment, tell)
    url = f"{head.serve_url}/{deployment.name}"
    try:
        _wait_until_proven(head, wish, url, tell, timeout_seconds)
    except (RunFailed, KeyboardInterrupt):
        _put_back(head, wish, previous, tell)
        raise
    try:
        conclude()
    except Unavailable:
        raise
    except HeadraceError:  # what is interrupted there may be concluded
        _put_back(head, wish, previous, tell)
        raise
    return {"url": url, "model": deployment.model, "version": deployment.stable.version}


def undeploy(name: str, *, tell: Tell = lambda _: None, timeout_seconds: float = 60.0) -> bool:
    """Serve NAME no more; whether it was served. With no head running only the wish is taken back."""
    head = find_head()
    with desired_state.locked():
        desired = desired_state.read_desired()
        if desired.pop(name, None) is None:
            return False
        desired_state.write_desired(desired)
        if head is None:
            return True
        desired_state.put(head, desired, tell)
    deadline = time.monotonic() + timeout_seconds
    with ServeClient(head.dashboard_url, head.token()) as client:
        while client.replicas(name) is not None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    return True


def deployments() -> list[dict[str, Any]]:
    """Everything that should be served, each {name, url, model, version, replicas, state, error}.

    `state`: `ready` (every replica answers with the version), `updating`, `failed`, or `stopped` (no head runs).
    `version` is what answers now where a replica answers, else what is wished for.
    """
    desired = desired_state.read_desired()
    head = find_head() if desired else None
    details: dict[str, Any] = {}
    if head is not None:
        try:
            with ServeClient(head.dashboard_url, head.token(), timeout_seconds=5.0) as client:
                details = client.details()
        except (Unavailable, OSError):
            head = None
    return [_describe(desired[name], head, details) for name in sorted(desired)]


def bring_back(head: Head, *, tell: Tell = lambda _: None, timeout_seconds: float = 120.0) -> list[dict[str, Any]]:
    """Tell HEAD's Serve all that should be served and wait until each answers or fails; their records."""
    if desired_state.put_desired_state(head, tell):
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline and any(r["state"] == "updating" for r in deployments()):
            time.sleep(2 * _POLL_SECONDS)
    return deployments()


def judge(wish: Deployment, replicas: FrontReplicas | None, statuses: dict[str, FrontStatus]) -> Verdict:
    """Whether WISH is in force, from what Serve says of its replicas and what they answer themselves."""
    answered = judge_answers(wish.config_id, wish.stable.version, wish.replicas, statuses.values())
    if answered.error:
        return answered
    if replicas is None:
        return Verdict(waiting_for="Ray Serve to take it up")
    if replicas.status == "DEPLOY_FAILED":
        return Verdict(error=serve_reason(replicas.message))
    if not replicas.settled or replicas.wanted != wish.replicas:
        return Verdict(waiting_for=f"replicas to start ({replicas.running} of {wish.replicas} run)")
    if replicas.status != "RUNNING":
        return Verdict(waiting_for=f"Ray Serve to call it running (it says {replicas.status})")
    return answered


def _check(deployment: Deployment) -> None:
    name = deployment.name
    allowed = name[:1].isalpha() and name == name.lower() and name.replace("-", "").isalnum() and name.isascii()
    if not allowed or len(name) > LONGEST_NAME:
        raise InvalidInput(
            f"{name!r} cannot be a deployment's name",
            action=f"use lower case letters, digits and hyphens, at most {LONGEST_NAME}, beginning with a letter",
        )
    if deployment.replicas < 1:
        raise InvalidInput(f"{deployment.replicas} replicas cannot serve", action="ask for at least one")


def _write_wish(head: Head, deployment: Deployment, tell: Tell) -> tuple[Deployment, Deployment | None, Head]:
    wish = replace(deployment, config_id=new_config_id(deployment.stable.version))
    with desired_state.locked():
        desired = desired_state.read_desired()
        previous = desired.get(wish.name)
        desired_state.write_desired(desired | {wish.name: wish})
        try:
            head = desired_state.put(head, desired | {wish.name: wish}, tell)
        except RunFailed:  # Serve refuses it: then it was never served
            desired_state.write_desired(desired)
            raise
    return wish, previous, head


def _put_back(head: Head, wish: Deployment, previous: Deployment | None, tell: Tell) -> None:
    """Take WISH back, unless another command has wished something else since."""
    with desired_state.locked():
        desired = desired_state.read_desired()
        present = desired.get(wish.name)
        if present is None or present.config_id != wish.config_id:
            return
        del desired[wish.name]
        if previous is not None:
            desired[wish.name] = previous
        desired_state.write_desired(desired)
        try:
            desired_state.put(head, desired, tell)
        except Unavailable:
            tell("Ray Serve cannot be reached; what was served before comes back with the head")


def _wait_until_proven(head: Head, wish: Deployment, url: str, tell: Tell, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    told = ""
    verdict = Verdict()
    with ServeClient(head.dashboard_url, head.token()) as client:
        while time.monotonic() < deadline:
            replicas = _replicas(client, head, wish.name)
            statuses = front_statuses(url, max(1, wish.replicas), timeout_seconds=2.0) if replicas else {}
            verdict = judge(wish, replicas, statuses)
            if verdict.proven:
                return
            if verdict.error:
                raise RunFailed(
                    f"{wish.model} version {wish.stable.version} was not deployed as {wish.name}: {verdict.error}",
                    action="what was served before is served still; mend the model, or look into the log",
                    code="deploy-failed",
                    log=str(head.log_dir),
                )
            if verdict.waiting_for != told:
                told = verdict.waiting_for
                tell(f"waiting for {told}")
            time.sleep(_POLL_SECONDS)
    raise RunFailed(
        f"{wish.model} version {wish.stable.version} was not deployed as {wish.name} within {timeout_seconds:.0f} s: "
        f"still waiting for {verdict.waiting_for}",
        action="what was served before is served still; look into the log",
        code="deploy-failed",
        log=str(head.log_dir),
    )


def _replicas(client: ServeClient, head: Head, name: str) -> FrontReplicas | None:
    try:
        return client.replicas(name)
    except Unavailable:
        if head.leader.alive():
            return None  # Serve is being started, or busy
        raise Unavailable(
            "the Ray head ended while the model was being deployed",
            action="headrace up starts it anew and brings back what is served; then resume the run",
            log=str(head.log_path),
        ) from None


def _describe(wish: Deployment, head: Head | None, details: dict[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": wish.name,
        "url": None if head is None else f"{head.serve_url}/{wish.name}",
        "model": wish.model,
        "version": wish.stable.version,
        "replicas": wish.replicas,
        "state": "stopped",
        "error": None,
    }
    if head is None:
        return record
    replicas = replicas_of(details, wish.name)
    statuses = front_statuses(record["url"], wish.replicas, timeout_seconds=1.0) if replicas else {}
    verdict = judge(wish, replicas, statuses)
    state = "ready" if verdict.proven else "failed" if verdict.error else "updating"
    answering = sorted({s.stable for s in statuses.values() if s.stable})
    return record | {
        "state": state,
        "error": verdict.error,
        "version": answering[0] if len(answering) == 1 else wish.stable.version,
        "replicas": replicas.running if replicas else 0,
    }
