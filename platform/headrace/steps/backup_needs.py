"""Which files a backup must keep: what registered versions and endpoints name, in the places where it lies."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.base.errors import InvalidInput
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


def roots_of(place: Place, found: Found) -> list[Root]:
    """The places that files come from: the store, MLflow's own files, this machine's home."""
    urls = {backup_files.STORE: place.store, **found.manifest.roots}
    if place.home is not None:
        urls[backup_files.HOME] = place.home
    roots = []
    for name, url in urls.items():
        try:
            roots.append(Root.at(name, url))
        except InvalidInput as error:
            found.notes.append(f"{url} was left out: {error.message}")
    return roots


def needs_of(place: Place, found: Found, roots: list[Root]) -> tuple[Needs, dict[str, str]]:
    """What is to be kept, and of each folder what it is for people."""
    owners: dict[str, str] = {}
    packages: set[str] = set()
    for each in found.needed:
        packages |= {each.package_sha256} if each.package_sha256 else set()
        _need(each.package_uri, f"the package of {each.name}/{each.version}", roots, owners, found)
        _need(each.model_location, f"the MLflow model of {each.name}/{each.version}", roots, owners, found)
    if place.home is not None:
        from headrace.local.desired_state import read_desired

        for wish in read_desired().values():
            packages.add(wish.stable.sha256)
            _need(wish.stable.package_uri, f"the package that {wish.name} serves", roots, owners, found)
    needs = Needs(found.manifest.artifacts, frozenset(owners), frozenset(packages))
    return needs, owners if needs.artifacts is not Artifacts.none else {}


def _need(uri: str | None, what: str, roots: list[Root], owners: dict[str, str], found: Found) -> None:
    if uri is None:
        return
    folder = folder_of(uri, roots)
    if folder is not None:
        owners[folder] = f"{what} ({uri})"
    elif found.manifest.artifacts is not Artifacts.none:
        found.notes.append(f"{what} lies outside of the store and was left out: {uri}")


def strike_off(owners: dict[str, str], entry: Entry) -> None:
    """Take the folders that ENTRY lies in from OWNERS: they are not gone."""
    parts = f"{entry.root}/{entry.path}".split("/")
    for depth in range(2, len(parts) + 1):
        owners.pop("/".join(parts[:depth]), None)
