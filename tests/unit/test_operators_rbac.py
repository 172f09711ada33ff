"""The rights that the operators ask for, as manifests."""

from __future__ import annotations

import pytest
import yaml

from headrace_operators import kinds, rbac
from headrace_operators.runtime.kinds import Kind


def test_what_is_committed_is_what_the_table_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert rbac.main(["--check"]) == 0, capsys.readouterr().err


def test_drift_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(rbac, "USES", rbac.USES[1:])
    assert rbac.main(["--check"]) == 1
    assert "run 'make generate'" in capsys.readouterr().err


def test_every_kind_that_the_operators_know_has_its_rights_and_no_other_has_any() -> None:
    known = {value for value in vars(kinds).values() if isinstance(value, Kind)}
    assert {use.kind for use in (*rbac.USES, *rbac.LEASE_USES)} <= known


def test_nothing_is_granted_by_a_star() -> None:
    assert "*" not in rbac.text()


def test_secrets_are_nobody_s_business() -> None:
    assert "secrets" not in rbac.text()


def test_no_right_stands_twice() -> None:
    granted = [(use.resource, use.kind.group, verb) for use in (*rbac.USES, *rbac.LEASE_USES) for verb in use.verbs]
    assert len(granted) == len(set(granted))


def test_every_rule_has_its_reason_beside_it() -> None:
    text = rbac.text()
    assert all(f"# {use.why}\n" in text for use in (*rbac.USES, *rbac.LEASE_USES))
    assert list(yaml.safe_load_all(text)) == rbac.manifests()


def test_the_namespace_is_the_operator_s_everywhere() -> None:
    account, _, binding, role, lease_binding = rbac.manifests("elsewhere")
    assert account["metadata"]["namespace"] == role["metadata"]["namespace"] == "elsewhere"
    subject = {"kind": "ServiceAccount", "name": "headrace-operator", "namespace": "elsewhere"}
    assert binding["subjects"] == lease_binding["subjects"] == [subject]


def test_an_operator_of_one_namespace_has_no_right_beyond_it() -> None:
    kinds_of = [(each["kind"], each["metadata"].get("namespace")) for each in rbac.manifests("ours", watched="theirs")]
    assert kinds_of == [
        ("ServiceAccount", "ours"),
        ("Role", "theirs"),
        ("RoleBinding", "theirs"),
        ("Role", "ours"),
        ("RoleBinding", "ours"),
    ]
