"""Which files a backup must keep: what versions, endpoints and trainings name, in the places where it lies."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.base.errors import InvalidInput, Unavailable
from headrace.steps import backup_files
from headrace.steps.backup_files import Entry, Needs, Root, folder_of
from headrace.steps.backup_manifest import Artifacts, Manifest
from headrace.steps.backup_place import Place
from headrace.tracking.database import Needed


@dataclass
class Found:
    """What has been learnt on the way to a backup."""

    manifest: Manifest
    needed: list[Needed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # what versions and endpoints need and no store has any more
    under_way: dict[str, str] = field(default_factory=dict)  # what trainings that go on need: address, and what it is


def roots_of(place: Place, found: Found) -> list[Root]:
    """The places that files come from: the store, MLflow's own files, this machine's home."""
    urls = {backup_files.STORE: place.store, **found.manifest.roots}
    if place.home is not None:
        urls[backup_files.HOME] = place.home
    roots = []
    for name, url in urls.items():
        if url.startswith("mlflow-artifacts:"):
            found.notes.append("MLflow's server keeps artifacts behind its own address, and they are in no backup")
            continue
        try:
            roots.append(Root.at(name, url))
        except InvalidInput as error:
            found.notes.append(f"{url} was left out: {error.message}")
    return roots


def needs_of(place: Place, found: Found, roots: list[Root]) -> tuple[Needs, dict[str, str], dict[str, str]]:
    """What is to be kept; of each folder of versions and endpoints what it is for people; and of those of trainings.

    A training may name anything, what was never there as well; a version names what was there when it was made.
    """
    owners: dict[str, str] = {}
    trainings: dict[str, str] = {}
    packages: set[str] = set()
    for each in found.needed:
        packages |= {each.package_sha256} if each.package_sha256 else set()
        _need(each.package_uri, f"the package of {each.name}/{each.version}", roots, owners, found)
        _need(each.model_location, f"the MLflow model of {each.name}/{each.version}", roots, owners, found)
    for uri, what in found.under_way.items():
        _need(uri, what, roots, trainings, found)
    if place.home is not None:
        from headrace.local.desired_state import read_desired

        for wish in read_desired().values():
            packages.add(wish.stable.sha256)
            _need(wish.stable.package_uri, f"the package that {wish.name} serves", roots, owners, found)
    needs = Needs(found.manifest.artifacts, frozenset(owners | trainings), frozenset(packages))
    return (needs, {}, {}) if needs.artifacts is Artifacts.none else (needs, owners, trainings)


def _need(uri: str | None, what: str, roots: list[Root], owners: dict[str, str], found: Found) -> None:
    if uri is None:
        return
    folder = folder_of(uri, roots)
    if folder is not None:
        owners[folder] = f"{what} ({uri})"
    elif found.manifest.artifacts is not Artifacts.none:
        found.notes.append(f"{what} lies outside of the store and was left out: {uri}")


def refuse_empty(roots: list[Root], empty: set[str], owners: dict[str, str]) -> None:
    """Raise Unavailable where a root without a file should have what OWNERS name: nothing is mounted there, or the
    address is wrong. Such a backup would take the place of those that are good."""
    for root in roots:
        needed = sorted(what for folder, what in owners.items() if folder.startswith(f"{root.name}/"))
        if root.name in empty and needed:
            raise Unavailable(
                f"{root.url} is empty, and should have {needed[0]}",
                action="correct HEADRACE_STORE or MLflow's artifact root, mount the folder, or restore what was lost; "
                "--artifacts none backs up all but files",
                code="store-empty",
            )


def strike_off(owners: dict[str, str], entry: Entry) -> None:
    """Take the folders that ENTRY lies in from OWNERS: they are not gone."""
    parts = f"{entry.root}/{entry.path}".split("/")
    for depth in range(2, len(parts) + 1):
        owners.pop("/".join(parts[:depth]), None)
