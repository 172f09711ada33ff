"""What a step reads of where it is, and what it is told when that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.api.site import Site, read_site
from headrace.base.errors import SpecInvalid
from headrace.cluster import rights

SITE = {"store": {"uri": "s3://models"}, "mlflow": {"trackingURI": "http://mlflow:5000"}}


def read(value: object) -> Site | None:
    return read_site({"HEADRACE_SITE": value if isinstance(value, str) else json.dumps(value)})


def test_a_laptop_has_no_site() -> None:
    assert read_site({}) is None
    assert read_site({"HEADRACE_SITE": ""}) is None


def test_a_site_is_what_the_custom_resources_are_made_of() -> None:
    site = read({**SITE, "queue": "gpus", "gpusPerWorker": 1, "pods": {"worker": {"gpu": 1}}})
    assert site is not None
    assert (site.store.uri, site.queue, site.gpus_per_worker, site.pods.worker.gpu) == ("s3://models", "gpus", 1, 1)
    assert (site.max_retries, site.ttl_seconds_after_finished, site.authentication.mode) == (3, 604_800, "token")
    assert read(site.to_json()) == site


def test_every_mistake_is_told_with_its_path_and_what_is_allowed() -> None:
    with pytest.raises(SpecInvalid, match="3 mistakes") as raised:
        read({"store": {"uri": "models"}, "que": "gpus", "mlflow": SITE["mlflow"], "gpusPerWorker": "many"})
    told = [str(finding) for finding in raised.value.findings]
    assert any(line.startswith("HEADRACE_SITE.store.uri: models") for line in told)
    assert any("HEADRACE_SITE.que: not a key of a site" in line and "queue" in line for line in told)
    assert any(line.startswith("HEADRACE_SITE.gpusPerWorker: many") for line in told)
    assert "ConfigMap headrace-site" in raised.value.action


@pytest.mark.parametrize("text", ["{", "[]", "null", '"s3://models"'])
def test_what_is_no_site_at_all_is_refused(text: str) -> None:
    with pytest.raises(SpecInvalid):
        read(text)


def test_the_rights_of_steps_are_those_of_the_table() -> None:
    assert rights.main(["--check"]) == 0
    assert (Path(rights.ROOT) / rights.FILE).read_text().count("\n# ") == len(rights.RIGHTS)


def test_a_training_s_object_stays_until_its_step_has_seen_its_end() -> None:
    """The operator would delete it in the same moment, and "gone" is not "succeeded"."""
    with pytest.raises(SpecInvalid) as raised:
        read({**SITE, "ttlSecondsAfterFinished": 0})
    (finding,) = raised.value.findings
    assert (finding.where, "3600" in finding.allowed) == ("HEADRACE_SITE.ttlSecondsAfterFinished", True)
