"""Writes an image's bill of materials (CycloneDX) from what its layers say of themselves: sbom.py NAME PARTS FILE

Equal contents make an equal file: its serial number comes from its contents, and it names no time.
"""

from __future__ import annotations

import email.parser
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

OURS = "headrace"
DISTRIBUTION = "debian-12"


def debian_components(folder: Path) -> Iterator[Component]:
    """The packages whose control files lie in FOLDER. Their licences are in the image: usr/share/doc/*/copyright."""
    for file in sorted(folder.iterdir()):
        control = email.parser.Parser().parsestr(file.read_text())
        name, version = control["Package"], control["Version"]
        qualifiers = {"arch": control["Architecture"], "distro": DISTRIBUTION}
        purl = PackageURL("deb", "debian", name, version, qualifiers)
        yield Component(type=ComponentType.LIBRARY, name=name, version=version, purl=purl, bom_ref=str(purl))


def python_components(folder: Path) -> Iterator[Component]:
    """The distributions whose metadata lie in FOLDER."""
    for found in sorted(distributions(path=[str(folder)]), key=lambda each: each.name.lower()):
        purl = PackageURL("pypi", None, found.name.lower().replace("_", "-"), found.version)
        yield Component(
            type=ComponentType.APPLICATION if found.name == OURS else ComponentType.LIBRARY,
            name=found.name,
            version=found.version,
            purl=purl,
            bom_ref=str(purl),
            licenses=list(_licenses(found)),
        )


def _licenses(found: Distribution) -> Iterator[License]:
    """What FOUND says of its licence: an SPDX expression, else one line in its author's words."""
    said = found.metadata.get("License-Expression") or found.metadata.get("License") or ""
    line = said.strip().partition("\n")[0]
    if line and len(line) < 100:  # some put the whole text there
        yield LicenseFactory().make_from_string(line)


def bill(name: str, parts: Path) -> Bom:
    """The bill of the image NAME: what PARTS tell."""
    bom = Bom()
    components = [*debian_components(parts / "debian"), *python_components(parts / "python")]
    bom.components.update(components)
    bom.metadata.component = Component(type=ComponentType.CONTAINER, name=name, bom_ref=name)
    bom.register_dependency(bom.metadata.component, components)
    bom.metadata.timestamp = datetime(1970, 1, 1, tzinfo=UTC)
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(sorted(str(each.purl) for each in components)))
    return bom


def main() -> None:
    """Write the bill, and prove that it is a valid one."""
    name, parts, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    text = JsonV1Dot6(bill(name, parts)).output_as_string(indent=1)
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"the bill of materials is not valid: {wrong}")
    target.write_text(text)


if __name__ == "__main__":
    main()
