"""What the store knows of a training and of its measurements, wherever they are made.

A laptop trains what is missing itself, a step on a cluster has it trained; both look it up in the same way, under the
same keys, and give the same facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from headrace.base.errors import DataInvalid, RunFailed
from headrace.spec.measured import is_whole
from headrace.steps.keys import code_versions, evaluation_uri, train_key
from headrace.steps.step import Step

MARKER = "headrace.json"  # a package's folder is whole once it is there


class Version(Protocol):
    """A registered version, as `headrace.tracking.registry` finds it."""

    @property
    def name(self) -> str:
        """The model."""

    @property
    def version(self) -> str:
        """Its number."""

    @property
    def package_uri(self) -> str | None:
        """Where its package lies."""

    @property
    def package_sha256(self) -> str | None:
        """The package's hash."""


class Trained:
    """A training, PART on the split SPLIT_FINGERPRINT, as the store knows it."""

    def __init__(self, step: Step, part: Mapping[str, Any], split_fingerprint: str) -> None:
        self.step = step
        self.part = part
        self.split_fingerprint = split_fingerprint
        self.key = train_key(part, split_fingerprint, code_versions())

    def known(self) -> dict[str, Any] | None:
        """The trained package's record; None where there is none."""
        known = self.step.recall(self.key)
        if known is None or not self.step.store.exists(f"{known['package_uri']}/{MARKER}"):
            return None
        return known

    def require_watched(self) -> None:
        """Raise DataInvalid where the training is steered by a validation split that came out empty."""
        watchers = {"tune": self.part.get("tune"), "train.early_stop": self.part["train"].get("early_stop")}
        steered = [name for name, settings in watchers.items() if settings is not None]
        split = self.step.store.read_json(self.step.store.uri("splits", self.split_fingerprint, "split.json"))
        if not steered or not isinstance(split, dict) or split["counts"]["validation"]:
            return
        counts = ", ".join(f"{split['counts'][name]:,} to {name}" for name in ("train", "validation", "test"))
        share = split["parameters"]["validation"]
        raise DataInvalid(
            f"{' and '.join(steered)} goes by the validation split, to which no sample fell ({counts})",
            action=f"give more data, or a larger data.split.validation (it is {share:g}), or leave out {steered[0]}",
            code="no-validation",
        )

    def evaluation(self, package_sha256: str) -> dict[str, Any] | None:
        """What the store knows of a package on this run's test split."""
        return read_evaluation(self.step, package_sha256, self.split_fingerprint)

    def unmeasured(self, known: Mapping[str, Any] | None, champion: Mapping[str, Any] | None) -> list[str]:
        """The packages that exist and have no evaluation on this split, or one that lacks a metric."""
        packages = [known] if known is not None else []
        if champion is not None and champion["error"] is None:
            packages.append(champion)
        tasks = [str(task["name"]) for task in self.part["tasks"]]
        return [p["package_uri"] for p in packages if not is_whole(self.evaluation(p["package_sha256"]), tasks)]

    def required_evaluation(self, sha256: str) -> dict[str, Any]:
        """The evaluation of the package SHA256. Raises RunFailed where there is none."""
        evaluation = self.evaluation(sha256)
        if evaluation is None:
            raise RunFailed(
                f"the new model {sha256[:12]} has no evaluation on the test split",
                action="the log says what went wrong while it was measured",
                code="evaluation-missing",
            )
        return evaluation

    def values(
        self, known: Mapping[str, Any], champion: Mapping[str, Any] | None, parts: Mapping[str, float]
    ) -> dict[str, Any]:
        """The facts of a train step; PARTS are seconds by what they were spent on."""
        sha256 = known["package_sha256"]
        evaluation = self.required_evaluation(sha256)
        return {
            **known,
            "trained_by": known.get("run_id", self.step.run_id),
            "split_fingerprint": self.split_fingerprint,
            "metrics": evaluation["metrics"],
            "samples": evaluation.get("samples"),
            "evaluation_uri": evaluation_uri(self.step.store.uri, sha256, self.split_fingerprint),
            "champion": champion,
            "parts": dict(parts),
        }


def find_champion(step: Step, resolve: Callable[[str], Version | None], reference: str) -> dict[str, Any] | None:
    """The version that REFERENCE names, and why it cannot be measured, if that is known; None where there is none."""
    if not reference:
        return None
    found = resolve(reference)
    if found is None:
        return None
    record: dict[str, Any] = {
        "name": found.name,
        "version": found.version,
        "package_uri": found.package_uri,
        "package_sha256": found.package_sha256,
        "error": None,
    }
    if found.package_uri is None or found.package_sha256 is None:
        record["error"] = f"{found.name}/{found.version} was not registered by Headrace: it has no package"
    elif not step.store.exists(f"{found.package_uri}/{MARKER}"):
        record["error"] = f"the package of {found.name}/{found.version} is gone: {found.package_uri}"
    return record


def read_evaluation(step: Step, package_sha256: str, split_fingerprint: str) -> dict[str, Any] | None:
    """What the store knows of a package on a split's test side."""
    found = step.store.read_json(evaluation_uri(step.store.uri, package_sha256, split_fingerprint))
    return found if isinstance(found, dict) else None
