"""What a command says and does when Kubeflow is away, refuses, or does not know who asks. Kubeflow is its stand-in."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import kfp
import pytest

from headrace.base.errors import HeadraceError
from headrace_pipelines.kubeflow import absence, connection
from headrace_testbed.pki import Pki
from kfp_stand_in import Beats, KubeflowStandIn, World
from kfp_stand_in.commands import Bed

pytestmark = pytest.mark.timeout(120)
QUICK = Beats(scale=0.005)


# away and refusing


def test_a_server_that_is_down_ends_with_4_and_the_address_tried(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.Connection.__init__, "__kwdefaults__", {"patience_seconds": 0.5})
    bed.stand_in.go_away()
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 4
    assert bed.stand_in.url in bed.json()["error"]["message"]
    assert not (bed.folder / "store").exists()


def test_a_server_that_comes_back_in_time_is_waited_for(bed: Bed) -> None:
    bed.stand_in.go_away()
    threading.Timer(1.0, bed.stand_in.come_back).start()
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> list[HeadraceError]:
    """What whoever follows has met so far."""
    found: list[HeadraceError] = []
    take = absence.Absence.met

    def hear(self: absence.Absence, error: HeadraceError) -> Any:
        found.append(error)
        return take(self, error)

    monkeypatch.setattr(absence.Absence, "met", hear)
    return found


def test_a_server_lost_in_mid_run_is_told_once_and_the_run_is_followed_to_its_end(
    bed: Bed, met: list[HeadraceError]
) -> None:
    back = threading.Event()
    bed.play(train=bed.steps.waits_for(back, "train"))

    def lose() -> None:
        bed.until(lambda: bool(bed.stand_in.runs()))
        bed.stand_in.go_away()
        bed.until(lambda: len(met) > 3)
        bed.stand_in.come_back()
        back.set()

    threading.Thread(target=lose, daemon=True).start()
    assert bed("run", bed.spec, "--on", "kubeflow") == 0
    assert bed.out.count("cannot be reached") == 1
    assert "all answers again" in bed.out


def test_a_server_lost_for_good_ends_the_following_with_4_and_not_the_run(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(absence, "LOST_SECONDS", 0.3)
    bed.play(train=bed.steps.waits("train"))

    def lose() -> None:
        bed.until(lambda: bool(bed.stand_in.runs()))
        bed.stand_in.go_away()

    threading.Thread(target=lose, daemon=True).start()
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 4
    record = bed.json()
    assert record["state"] == "running"
    assert bed.stand_in.runs()[0]["display_name"] == f"{record['run_id']}-1"
    assert bed.stand_in.url in record["error"]["message"]


def test_a_proxy_without_its_server_is_no_silence_of_25_seconds(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.Connection.__init__, "__kwdefaults__", {"patience_seconds": 0.5})
    bed.stand_in.intercept = lambda method, path: (503, "text/html", "<html>no healthy upstream</html>")
    began = time.monotonic()
    assert bed("run", bed.spec, "--on", "kubeflow") == 4
    assert time.monotonic() - began < 20
    assert "HTTP 503" in bed.err


def test_a_server_is_asked_once_whether_it_is_well(bed: Bed) -> None:
    assert bed("schedules", "--on", "kubeflow") == 0
    assert bed.stand_in.calls.count(("GET", "/healthz")) == 1  # not by kfp too, which has no time-out yet


def test_a_login_page_is_called_one(bed: Bed) -> None:
    bed.stand_in.intercept = lambda method, path: (200, "text/html", "<html>sign in</html>")
    assert bed("run", bed.spec, "--on", "kubeflow") == 2
    assert "is it a login?" in bed.err


def test_an_address_without_kubeflow_says_so(bed: Bed) -> None:
    bed.target()
    path = bed.folder / "home" / "targets.yaml"
    path.write_text(path.read_text().replace(bed.stand_in.url, f"{bed.stand_in.url}/elsewhere"))
    bed.stand_in.intercept = lambda method, asked: (404, "text/plain", "404 page not found")
    assert bed("run", bed.spec, "--on", "kubeflow") == 2
    assert "there is no Kubeflow Pipelines at" in bed.err


def test_a_pipeline_that_kubeflow_refuses_is_told_with_its_words(bed: Bed) -> None:
    def refuse(method: str, path: str) -> tuple[int, str, str] | None:
        body = {"code": 13, "message": "Failed to compile to Argo: no such thing", "details": []}
        return (500, "application/json", json.dumps(body)) if (method, path) == ("POST", "/runs") else None

    bed.stand_in.intercept = refuse
    assert bed("run", bed.spec, "--on", "kubeflow") == 1
    assert "refused to create the run (500): Failed to compile to Argo: no such thing" in bed.err


def test_a_lost_answer_to_create_run_makes_no_second_run(bed: Bed) -> None:
    lost: list[str] = []
    answer = bed.stand_in.answer

    def lose(method: str, target: str, headers: Any, body: bytes) -> Any:
        told = answer(method, target, headers, body)
        if method == "POST" and target.endswith("/runs") and not lost:
            lost.append(target)
            return 502, "text/html", b"<html>bad gateway</html>"
        return told

    bed.stand_in.answer = lose  # type: ignore[method-assign]
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    assert lost
    assert len(bed.stand_in.runs()) == 1


# who may


def test_a_token_is_read_anew_for_every_request(bed: Bed, met: list[HeadraceError]) -> None:
    token = bed.folder / "token"
    token.write_text("first\n")
    world = bed.stand_in.world
    world.multi_user, world.tokens = True, {"first": {"team-a"}}
    bed.target(namespace="team-a", token_file=str(token))
    renewed = threading.Event()
    bed.play(train=bed.steps.waits_for(renewed, "train"))

    def renew() -> None:
        bed.until(lambda: bool(bed.stand_in.runs()))
        world.tokens = {"second": {"team-a"}}
        bed.until(lambda: len(met) > 1)
        (bed.folder / "new").write_text("second\n")
        (bed.folder / "new").replace(token)  # in one moment, as a mounted one is replaced
        renewed.set()

    threading.Thread(target=renew, daemon=True).start()
    assert bed("run", bed.spec, "--on", "kubeflow") == 0
    assert "does not know the token (401)" in bed.out


@pytest.mark.parametrize(
    ("token", "namespace", "said"),
    [
        ("bad", "team-a", "does not know the token (401)"),
        ("good", "team-b", "does not allow to list pipelines (403)"),
        (None, "team-a", "the environment variable KFP_TOKEN, which holds the token for Kubeflow, is not set"),
    ],
)
def test_a_refused_caller_is_told_what_to_mend(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, token: str | None, namespace: str, said: str
) -> None:
    bed.stand_in.world.multi_user, bed.stand_in.world.tokens = True, {"good": {"team-a"}}
    bed.target(namespace=namespace, token_env="KFP_TOKEN")
    monkeypatch.delenv("KFP_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("KFP_TOKEN", token)
    assert bed("run", bed.spec, "--on", "kubeflow") == 2
    assert said in bed.err
    assert token is None or token not in bed.err.split()


def test_only_the_target_decides_who_asks(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    context = bed.folder / "context.json"
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(context))
    monkeypatch.setenv("KF_PIPELINES_IAP_OAUTH2_CLIENT_ID", "somebody's")
    cookie = {"client_authentication_cookie": "secret", "client_authentication_header_name": "x-secret"}
    context.write_text(json.dumps({"namespace": "theirs", "client_authentication_header_value": "secret", **cookie}))
    bed.stand_in.world.multi_user, bed.stand_in.world.tokens = True, {"ours": {"team-a"}}
    monkeypatch.setenv("KFP_TOKEN", "ours")
    bed.target(namespace="team-a", token_env="KFP_TOKEN")
    answer, asked = bed.stand_in.answer, list[str]()

    def hear(method: str, target: str, headers: Any, body: bytes) -> Any:
        asked.append(str(dict(headers)))
        return answer(method, target, headers, body)

    bed.stand_in.answer = hear  # type: ignore[method-assign]
    assert bed("run", bed.spec, "--on", "kubeflow") == 0
    assert not [headers for headers in asked if "secret" in headers]
    context.write_text("no json")
    assert bed("schedules", "--on", "kubeflow") == 0


def test_a_multi_user_kubeflow_needs_a_namespace(bed: Bed) -> None:
    bed.stand_in.world.multi_user = True
    assert bed("run", bed.spec, "--on", "kubeflow") == 2
    assert "names no namespace" in bed.err


def test_the_targets_ca_is_what_its_certificate_is_held_to(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection.Connection.__init__, "__kwdefaults__", {"patience_seconds": 0.2})
    pki, other = Pki(tmp_path / "pki"), Pki(tmp_path / "other")
    certificate, key = pki.server("kubeflow")
    with KubeflowStandIn(World(beats=QUICK), certificate=(str(certificate), str(key))) as secure:
        bed.stand_in = secure
        bed.play()
        bed.target(ca=str(pki.ca_file))
        assert bed("run", bed.spec, "--on", "kubeflow") == 0
        bed.target(ca=str(other.ca_file))
        assert bed("run", bed.spec, "--on", "kubeflow") == 4
        assert "CERTIFICATE_VERIFY_FAILED" in bed.err
        bed.target(verify=False)
        assert bed("run", bed.spec, "--on", "kubeflow") == 0
