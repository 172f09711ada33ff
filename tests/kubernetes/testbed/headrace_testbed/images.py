"""The images of the node tier and of `make images`: which there are, and how each is made on this machine.

    python -m headrace_testbed.images [NAME ...] [--into FOLDER]

A container engine builds the Containerfiles where one answers; without one `rootfs` runs the same files in a chroot.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

from headrace_testbed.builds import program
from headrace_testbed.cache import cached, digest_of
from headrace_testbed.containerfile import Stage
from headrace_testbed.oci import Image, image, pack, packed, write_archive
from headrace_testbed.rootfs import Build

ROOT = Path(__file__).resolve().parents[4]
OURS = ("operator", "runtime", "mlflow")
ENGINES = ("docker", "podman")
_VERSIONS = {"ray": "2.60.0", "postgres": "15", "versitygw": "1.8.0"}  # of the images that only the test bed runs
_TEST_BED = ROOT / "tests" / "kubernetes" / "testbed" / "images"


def version() -> str:
    """The version that pyproject.toml says, which is our images' tag."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def containerfile(name: str) -> Path:
    """The Containerfile of the image NAME: one of OURS, or one that only the test bed runs."""
    return (ROOT / "images" if name in OURS else _TEST_BED) / name / "Containerfile"


def reference(name: str) -> str:
    """What the image NAME is called in a cluster."""
    return f"docker.io/headrace/{name}:{version()}" if name in OURS else f"localhost/testbed/{name}:{_VERSIONS[name]}"


def packed_image(name: str) -> Image:
    """The image NAME, packed first where its layers are missing. Needs root then."""
    if name == "versitygw":
        return one_program(name)
    build = Build(containerfile(name), ROOT, {"VERSION": version()})
    return image(reference(name), build.image, build.layers())


def one_program(name: str) -> Image:
    """An image of one static program that the test bed builds."""
    source = program(name)

    def fill(folder: Path) -> None:
        place = folder / "files" / "usr" / "local" / "bin"
        place.mkdir(parents=True)
        shutil.copy2(source, place)
        pack(folder / "files", folder / "layer")
        shutil.rmtree(folder / "files")

    layer = packed(cached(f"image-{name}-{digest_of(source.read_bytes())}", fill) / "layer")
    lines = [("ENV", "PATH=/usr/local/bin"), ("USER", "65532:65532"), ("ENTRYPOINT", f'["{name}"]')]
    return image(reference(name), Stage("scratch", configuration=lines), [layer])


def engine() -> str | None:
    """The container engine that answers on this machine, if one does."""
    for name in ENGINES:
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return name
    return None


def build_with(engine: str, name: str, archive: Path) -> None:
    """Let ENGINE build the image NAME, keep it under its name, and save it to ARCHIVE."""
    argument = f"VERSION={version()}"
    command = [engine, "build", "--build-arg", argument, "-f", containerfile(name), "-t", reference(name), ROOT]
    subprocess.run(command, check=True)
    form = ["--format", "oci-archive"] if engine == "podman" else []  # docker's own has an OCI layout in it
    archive.unlink(missing_ok=True)
    subprocess.run([engine, "save", *form, "-o", archive, reference(name)], check=True)


def main() -> None:
    """Make the images named, or ours, and leave an archive of each in a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=OURS)
    parser.add_argument("--into", type=Path, default=ROOT / "build" / "images")
    given = parser.parse_args()
    given.into.mkdir(parents=True, exist_ok=True)
    found = engine()
    print(
        f"The images are built by {found}" if found else "No container engine answers: packed here, by the same steps"
    )
    for name in given.names:
        started = time.monotonic()
        archive = given.into / f"{name}.oci.tar"
        if found and name != "versitygw":
            build_with(found, name, archive)
        else:
            with open(archive, "wb") as file:
                write_archive([packed_image(name)], file)
        size = archive.stat().st_size / 1e6
        print(f"{archive}: {reference(name)}, {size:.1f} MB, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
