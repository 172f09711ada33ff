"""What is wrong with data that was read, said so that it can be mended: what refuses a split and what is only told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.base.errors import DataInvalid, Finding
from headrace.data.formats import ID_OF_PLACE, Report, Request
from headrace.data.leaks import Equals, Place
from headrace.data.strategies import SPLITS

MOST_IGNORED = 100  # other files named in split.json; they are counted besides
MOST_TOLD = 50  # of one kind of finding; the rest is counted and stands in split.json
FEW = "its metrics will say little; add samples"


def check_corrupt(report: Report, max_corrupt: float) -> None:
    """Raise DataInvalid, naming every bad file, if more than the share MAX_CORRUPT is bad or nothing is left."""
    total = report.usable + report.corrupt
    if total == 0:
        raise DataInvalid("the data holds no sample", action="check data.source")
    share = report.corrupt / total
    if share <= max_corrupt and report.usable:
        return
    findings = [Finding(named.uri, named.reason, "", "mend or remove it") for named in report.left_out]
    if report.corrupt > len(findings):
        findings.append(Finding("and more", f"{report.corrupt - len(findings):,} {report.unit}", "", ""))
    message = (
        f"{report.corrupt:,} of {total:,} {report.unit} cannot be used "
        f"({100 * share:.3g} %; data.max_corrupt allows {100 * max_corrupt:.3g} %)"
    )
    raise DataInvalid(message, action="mend or remove those named, or raise data.max_corrupt", findings=findings)


def check_equals(report: Report, found: Equals, request: Request) -> None:
    """Raise DataInvalid for equal content under two labels.

    With `data.id` a person has said what a sample is: a column's value, or with ID_OF_PLACE every row. Equal rows are
    then observations of their own, and are only told.
    """
    if not found.conflicts:
        return
    if request.id is not None:
        given = f"{found.conflicts:,} rows equal another in all features and have another label"
        report.notes.append(Finding("data", given, "", "told only, since data.id says what a sample is"))
        return
    if request.label_kind == "annotation":
        later = "; ".join(f"{place_uri(report, b)} = {place_uri(report, a)}" for a, b in found.conflicting[:5])
        given = f"{found.conflicts:,} pictures equal another and have other boxes ({later})"
        report.notes.append(Finding("annotations", given, "", "kept on one side; remove the wrong ones"))
        return
    files = report.unit == "files"
    action = "remove the wrong one" if files else f"correct the label, or set data.id: {ID_OF_PLACE} if each row counts"
    findings = [
        Finding(place_uri(report, later), f"the same content as {place_uri(report, first)}", "one label", action)
        for first, later in found.conflicting
    ]
    message = f"{found.conflicts:,} {report.unit} have the content of another under a different label"
    raise DataInvalid(message, action=action, findings=findings)


def check_groups(report: Report, found: Equals, strategy: str) -> None:
    """Raise DataInvalid if a group (a value of `data.group`, a video) lies on two sides."""
    if not found.conflicts:
        return
    findings = [
        Finding(
            place_uri(report, later), f"its group is on another side too: {place_uri(report, first)}", "one side", ""
        )
        for first, later in found.conflicting
    ]
    message = f"the {strategy} strategy puts samples of one group (data.group, or a video) on two sides"
    raise DataInvalid(message, action="set data.split.strategy: group", findings=findings)


def check_classes(report: Report, classes: Mapping[tuple[str, str], int], label_kind: str) -> None:
    """Raise DataInvalid if there are not two classes to tell apart."""
    names = {name for name, _ in classes}
    if label_kind == "annotation" and not names:
        action = "check data.source and data.format; every problem is in findings"
        findings = [Finding(p.uri, p.reason, "", p.action) for p in report.problems[:MOST_TOLD]]
        findings += [Finding(named.uri, named.reason, "", "not taken") for named in report.ignored[:MOST_TOLD]]
        raise DataInvalid("no picture has an object", action=action, findings=findings)
    if label_kind == "class" and len(names) < 2:
        dropped = (
            f" (dropped for want of usable samples: {', '.join(report.dropped_classes)})"
            if report.dropped_classes
            else ""
        )
        raise DataInvalid(
            f"there is one class only: {', '.join(names)}{dropped}", action="a classification needs two classes or more"
        )


def check_counts(report: Report, summary: Mapping[str, Any]) -> None:
    """Note splits and classes that came out empty though they have a fraction; an empty train raises DataInvalid."""
    counts, fractions = summary["counts"], summary["parameters"]
    if not counts["train"]:
        raise DataInvalid(
            f"no sample falls to train ({summary['samples']:,} in all)", action="add data, or use another strategy"
        )
    for split in SPLITS:
        if not fractions[split]:
            continue
        if not counts[split]:
            report.notes.append(Finding("data.split", f"{split} is empty", "", "add data, or use another strategy"))
            continue
        lacking = [name for name, by_split in summary["classes"].items() if not by_split[split]]
        if lacking:
            shown = ", ".join(lacking[:MOST_TOLD]) + (" ..." if len(lacking) > MOST_TOLD else "")
            report.notes.append(Finding(f"classes without a sample in {split}", shown, "", FEW))


def duplicates_record(report: Report, found: Equals) -> dict[str, Any]:
    """Equal samples as split.json has them: how many beyond the first of each, of how many, and pairs of URIs."""
    pairs = [[place_uri(report, first), place_uri(report, later)] for first, later in found.examples]
    return {"samples": found.extra, "groups": found.groups, "examples": pairs}


def place_uri(report: Report, place: Place) -> str:
    """The URI of a sample."""
    file, row = place
    return report.uris[file] if row < 0 else f"{report.uris[file]}#{row}"


def findings_of(summary: Mapping[str, Any]) -> tuple[Finding, ...]:
    """What a person should hear of a split that was made: left out, dropped, equal, ignored, and the notes."""
    told = [Finding(f["uri"], f["reason"], "", "left out") for f in summary["left_out"]["files"][:MOST_TOLD]]
    if (more := summary["left_out"]["count"] - len(told)) > 0:
        told.append(Finding("and more", f"{more:,}", "", "left out; split.json names them"))
    told += _told_problems(summary.get("annotations", {}).get("problems", {"count": 0, "named": []}))
    told += [Finding(f"class {name}", "no usable sample", "", "dropped") for name in summary["dropped_classes"]]
    if duplicates := summary["duplicates"]["samples"]:
        pairs = summary["duplicates"]["examples"]
        kept = "kept" if summary["parameters"]["id"] else "kept on one side"
        named = "; ".join(" = ".join(pair) for pair in pairs[:5])
        told.append(Finding("equal content", f"{duplicates:,} samples equal an earlier one ({named})", "", kept))
    if ignored := summary["ignored"]["count"]:
        first = [f"{f['uri'].rsplit('/', 1)[-1]}: {f['reason']}" for f in summary["ignored"]["files"][:5]]
        given = f"{ignored:,} ({'; '.join([*first, *(['...'] if ignored > 5 else [])])})"
        told.append(Finding("other files", given, "", "ignored"))
    return (*told, *(Finding(**note) for note in summary["notes"]))


def _told_problems(problems: Mapping[str, Any]) -> list[Finding]:
    told = [Finding(named["uri"], named["reason"], "", named["action"]) for named in problems["named"][:MOST_TOLD]]
    if (more := problems["count"] - len(told)) > 0:
        actions = ", ".join(f"{count:,} {action}" for action, count in problems["actions"].items())
        told.append(Finding("and more", f"{more:,} (in all: {actions})", "", "split.json names them"))
    return told


def classes_table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A split as a table for people: one row `{class, train, validation, test}` a class, and the total last.

    Of annotated pictures the classes' rows count objects; below them stand the pictures without any, and all pictures.
    """
    classes = _in_order(summary)
    rows: list[dict[str, Any]] = [{"class": name, **by_split} for name, by_split in classes]
    samples = {split: summary["counts"][split] for split in SPLITS}
    if summary["label_kind"] != "annotation":
        return [*rows, {"class": "total", **samples}]
    objects = {split: sum(by_split[split] for _, by_split in classes) for split in SPLITS}
    empty = {"class": "pictures without objects", **summary["annotations"]["without_objects"]}
    return [*rows, {"class": "objects", **objects}, empty, {"class": "pictures", **samples}]


def _in_order(summary: Mapping[str, Any]) -> list[tuple[str, dict[str, int]]]:
    classes = summary["classes"]  # a stored summary has them sorted as text; the schema has their order
    return [(name, classes[name]) for name in summary["schema"]["classes"]]
