"""The register step: the gate's verdict, and the model in the registry.

From here to the move of the alias the run holds the right to move it, so that two runs cannot both pass against the
same champion. A refused model is registered too, with its verdict and no alias: people want to see what was refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.base.errors import ChampionChanged, GateRefused
from headrace.spec.gate import evaluate_gate, parse_check
from headrace.steps.step import Artifact, Outcome, Step, describe, on_cluster, run_step, uninterrupted, uri_of
from headrace.steps.trained import Version, find_champion, read_evaluation
from headrace.store.step_files import write_note


@dataclass(frozen=True)
class RegisterTools:
    """What the step needs of the rest of the platform.

    champion: the version that a reference names, or None.
    find: the version of a model that a package is, or None.
    register: makes the version of a package, or finds it.
    tag_gate: writes the verdict to a version.
    set_alias: moves an alias.
    take_alias: waits for the right to move an alias.
    require_alias: raises if that right was lost.
    evaluate: measures a champion on the run's test split and returns why it could not, or None. Absent where a step may
        not train (a cluster): a champion that changed then ends the run.
    """

    champion: Callable[[str], Version | None]
    find: Callable[[str, str], Version | None]
    register: Callable[..., Version]
    tag_gate: Callable[..., None]
    set_alias: Callable[..., None]
    take_alias: Callable[..., None]
    require_alias: Callable[[str, str], None]
    evaluate: Callable[[Step, Mapping[str, Any], str], str | None] | None


def register(
    register_spec: str,
    deploy_spec: str,
    train_spec: str,
    training: str,
    run_id: str,
    attempt: str,
    model: Artifact | None = None,
) -> str:
    """Judge the model and register it; returns the URI of the step's result.

    Args:
        register_spec: URI of the canonical JSON.
        deploy_spec: the deploy step's, "" where there is none: then the alias moves here.
        train_spec: the train step's part, for a champion that has to be measured once more.
        training: URI of the train step's result.
        model: Kubeflow's output artifact.

    The process ends with the gate's exit code where the gate refuses.
    """

    def body(step: Step) -> Outcome:
        part, trained = step.part(register_spec), step.part(training)
        if on_cluster():
            from headrace.steps.cluster_register import cluster_register

            outcome = cluster_register(step, part, trained, moves_alias=not deploy_spec)
        else:
            from headrace.steps.register_tools import local_tools

            tools = local_tools(step.part(train_spec))
            outcome = RegisterStep(step, tools, part, trained, moves_alias=not deploy_spec).run()
        registered = outcome.values["model"] or {}
        describe(model, trained["package_uri"], name=registered.get("name"), version=registered.get("version"))
        return outcome

    return uri_of(run_step("register", run_id, attempt, body))


class RegisterStep:
    """One register step: `run` judges, registers, and gives the facts."""

    def __init__(
        self,
        step: Step,
        tools: RegisterTools,
        part: Mapping[str, Any],
        training: Mapping[str, Any],
        *,
        moves_alias: bool,
    ) -> None:
        self.step = step
        self.tools = tools
        self.gate: Sequence[str] = part["gate"]
        self.wish: Mapping[str, str] | None = part["register"]
        self.training = training
        self.moves_alias = moves_alias

    def run(self) -> Outcome:
        """The step's body."""
        if self.wish is None:
            gate = self._judge(None)
            self._note(gate, None)
            self._refuse_unless_passed(gate)
            return Outcome({"gate": gate, "model": None})
        name, alias = self.wish["name"], self.wish["alias"]
        self.tools.take_alias(name, alias, holder=f"run {self.step.run_id}", on_wait=self.step.waiting)
        self.step.check()
        champion = self._champion(f"{name}@{alias}")
        gate = self._judge(champion)
        known = self.tools.find(name, self.training["package_sha256"])
        with uninterrupted():
            version = self._register(name, gate)
        model = {"name": name, "version": version, "alias": None, "uri": f"models:/{name}/{version}"}
        self._note(gate, model)
        self._refuse_unless_passed(gate)
        if self.moves_alias:
            self._move(name, alias, version)
            model["alias"] = alias
        values = {"gate": gate, "model": model, "package": self._package(), "judged_against": self._judged(champion)}
        if known is None:
            return Outcome(values)
        return Outcome(values, "cached", f"it is version {version} already")

    def _judged(self, champion: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """The version that the gate compared with, which the alias must still name when it moves; None: no matter."""
        return {"version": None if champion is None else champion["version"]} if self._compares() else None

    def _package(self) -> dict[str, str]:
        return {"uri": self.training["package_uri"], "sha256": self.training["package_sha256"]}

    # the gate

    def _judge(self, champion: Mapping[str, Any] | None) -> dict[str, Any]:
        error = None if champion is None else champion["error"]
        measured = None
        if champion is not None and error is None:
            evaluation = read_evaluation(self.step, champion["package_sha256"], self.training["split_fingerprint"])
            measured = None if evaluation is None else evaluation["metrics"]
            error = None if evaluation is not None else "it was not measured on this split"
        return evaluate_gate(self.gate, self.training["metrics"], measured, champion_error=error)

    def _champion(self, reference: str) -> dict[str, Any] | None:
        """The champion to judge against, measured; None where no check asks for it or there is none.

        Raises:
            ChampionChanged: the alias moved, and moved again while its new version was measured.
        """
        if not self._compares():
            return None
        seen: dict[str, Any] | None = self.training["champion"]
        now = find_champion(self.step, self.tools.champion, reference)
        if _same(now, seen):
            return seen
        if now is None or now["error"] is not None:
            return now
        self.step.message(f"{reference} is version {now['version']} by now; measuring that")
        self._measure(now, reference)
        after = find_champion(self.step, self.tools.champion, reference)
        if not _same(now, after):
            raise self._changed(reference)
        return now

    def _compares(self) -> bool:
        return any(parse_check(check).against_champion for check in self.gate)

    def _measure(self, champion: dict[str, Any], reference: str) -> None:
        fingerprint = self.training["split_fingerprint"]
        known = read_evaluation(self.step, champion["package_sha256"], fingerprint)
        if known is not None and known["metrics"].keys() >= self.training["metrics"].keys():
            return
        if self.tools.evaluate is None:
            raise self._changed(reference)
        champion["error"] = self.tools.evaluate(self.step, self.training, champion["package_uri"])

    def _changed(self, reference: str) -> ChampionChanged:
        return ChampionChanged(
            f"{reference} moved while this run was judging against it",
            action=f"`headrace resume {self.step.run_id}` judges again, without training",
        )

    def _refuse_unless_passed(self, gate: Mapping[str, Any]) -> None:
        if gate["passed"]:
            return
        failed = [check for check in gate["checks"] if not check["passed"]]
        said = "; ".join(
            f"{check['check']} (it is {check['value']}{', ' + check['note'] if check.get('note') else ''})"
            for check in failed
        )
        raise GateRefused(
            f"the gate refused the model: {said}", action="train a better model, or change the gate in the spec"
        )

    def _note(self, gate: Mapping[str, Any], model: Mapping[str, Any] | None) -> None:
        note = {"attempt": self.step.attempt, "gate": gate, "model": model}
        self.step.check()
        write_note(self.step.store, self.step.run_id, "gate", note)

    # the registry

    def _register(self, name: str, gate: Mapping[str, Any]) -> str:
        training = self.training
        version = self.tools.register(
            name,
            package_uri=training["package_uri"],
            package_sha256=training["package_sha256"],
            run_id=training["trained_by"],
            mlflow_run_id=training["mlflow"]["run_id"],
            model_uri=training["model_uri"],
            model_id=training["model_id"],
            check=self.step.check,
        ).version
        self.tools.tag_gate(
            name,
            version,
            passed=gate["passed"],
            checks=gate["checks"],
            split_fingerprint=training["split_fingerprint"],
            check=self.step.check,
        )
        return version

    def _move(self, name: str, alias: str, version: str) -> None:
        with uninterrupted():
            self.tools.require_alias(name, alias)
            self.tools.set_alias(name, alias, version, check=self.step.check)


def _same(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one["version"] == other["version"] and one["package_sha256"] == other["package_sha256"])
