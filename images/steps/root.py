"""Fills a root file system with Debian packages and nothing else: no package manager, no shell unless one is asked for.

Packages are unpacked, not installed: what their scripts would do for our packages is done here, in `_finish`. What was
unpacked is written down in var/lib/dpkg/status.d, where scanners of images look when there is no dpkg.

    root.py OUT PACKAGES [PACKAGES ...]     each PACKAGES a file; a line is a name, `-NAME` (a dependency that is left
                                            out) or `/PATTERN` (files that are); `#` begins a remark
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from settle import STANDARD_LIBRARY as PYTHON
from settle import compile_below

MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
# Licences (usr/share/doc/*/copyright) stay. The rest is for people at a terminal, or belongs to excluded packages.
NEEDLESS = (
    "usr/share/doc/*/[!c]*",
    "usr/share/doc/*/changelog*",
    "usr/share/doc-base",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/bash-completion",
    "usr/share/zoneinfo/right",
    "usr/lib/*/gconv",  # other character sets than UTF-8, for iconv
    f"{PYTHON}/lib-dynload/nis.*.so",
    f"{PYTHON}/lib-dynload/_dbm.*.so",
    f"{PYTHON}/ensurepip",
    f"{PYTHON}/idlelib",
    f"{PYTHON}/lib2to3",
    f"{PYTHON}/pydoc_data",
    f"{PYTHON}/test",
    f"{PYTHON}/turtle.py",
    f"{PYTHON}/venv",  # what it makes needs ensurepip
)
LOADER = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}
ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n"
    "headrace:x:65532:65532:headrace:/home/headrace:/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\nheadrace:x:65532:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


@dataclass(frozen=True)
class Wanted:
    """What a root file system is made of."""

    names: list[str]
    without: set[str]
    needless: list[str]


def wanted(files: list[Path]) -> Wanted:
    """What FILES ask for. A package that one of them names is not left out by another."""
    lines = [line.partition("#")[0].strip() for file in files for line in file.read_text().splitlines()]
    names = [line for line in lines if line and line[0] not in "-/"]
    without = {line[1:] for line in lines if line.startswith("-")} - set(names)
    return Wanted(names, without, [line[1:] for line in lines if line.startswith("/")])


def _apt(state: Path, *arguments: str) -> None:
    """Run apt-get as if nothing were installed, so that it takes the whole closure of what is asked."""
    options = {"Dir::State::status": state / "status", "Dir::Cache::archives": state, "APT::Sandbox::User": "root"}
    flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    subprocess.run(["apt-get", "-qq", "--no-install-recommends", *flags, *arguments], check=True)


def _fetch(names: list[str], state: Path) -> list[Path]:
    (state / "partial").mkdir()
    (state / "status").touch()
    _apt(state, "update")
    _apt(state, "--download-only", "-y", "install", *names)
    return sorted(state.glob("*.deb"))


def _unpack(archive: Path, out: Path) -> None:
    """Unpack ARCHIVE through the links of a merged /usr, and write its control file down."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as tar:
        subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", out], stdin=tar.stdout, check=True)
    if tar.returncode:
        raise SystemExit(f"dpkg-deb could not read {archive.name} ({tar.returncode})")
    control = subprocess.run(["dpkg-deb", "--field", archive], check=True, capture_output=True, text=True).stdout
    name = control.partition("Package: ")[2].partition("\n")[0]
    status = out / "var/lib/dpkg/status.d" / name
    status.write_text(control.replace(f"Package: {name}\n", f"Package: {name}\nStatus: install ok installed\n"))


def _package_of(archive: Path) -> str:
    return archive.name.partition("_")[0]


def _skeleton(out: Path) -> None:
    """What Debian's base-files would lay: folders, the links of a merged /usr, accounts."""
    for folder in (
        *MERGED.values(),
        "etc",
        "root",
        "home",
        "tmp",
        "proc",
        "sys",
        "dev",
        "run",
        "var/lib/dpkg/status.d",
    ):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for link, target in MERGED.items():
        (out / link).symlink_to(target)
    (out / "var/run").symlink_to("/run")
    (out / "tmp").chmod(0o1777)
    for name, text in ACCOUNTS.items():
        (out / name).write_text(text)
    (out / "home/headrace").mkdir()
    os.chown(out / "home/headrace", 65532, 65532)


def _finish(out: Path, needless: list[str]) -> None:
    """What the packages' own scripts would do on installation, and what an image has no use for."""
    if (authorities := out / "usr/share/ca-certificates").exists():
        _bundle(out, sorted(authorities.glob("mozilla/*.crt")))
        shutil.rmtree(authorities)
    for path in [path for pattern in (*NEEDLESS, *needless) for path in out.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    if (out / "usr/bin/python3.11").exists():
        for name in ("python3", "python"):
            (out / "usr/bin" / name).symlink_to("python3.11")
    if (out / "usr/bin/bash").exists():
        (out / "usr/bin/sh").symlink_to("bash")
    subprocess.run(["ldconfig", "-r", out], check=True)
    shutil.rmtree(out / "var/cache/ldconfig", ignore_errors=True)


def _bundle(out: Path, certificates: list[Path]) -> None:
    """Make the one file of CERTIFICATES, and name it where OpenSSL looks when no variable tells it another place."""
    bundle = out / "etc/ssl/certs/ca-certificates.crt"
    bundle.write_text("".join(certificate.read_text() for certificate in certificates))
    (out / "usr/lib/ssl").mkdir(exist_ok=True)
    (out / "usr/lib/ssl/cert.pem").symlink_to("/etc/ssl/certs/ca-certificates.crt")


def _complain_of_missing_libraries(out: Path) -> None:
    """A library that was left out and is needed after all is found here, not in a pod."""
    programs = [file for pattern in ("usr/bin/*", "usr/lib/**/*.so*") for file in out.glob(pattern)]
    found: set[str] = set()
    for file in programs:
        if file.is_symlink() or not file.is_file() or file.read_bytes()[:4] != b"\x7fELF":
            continue
        inside = f"/{file.relative_to(out)}"
        listed = subprocess.run(
            ["chroot", out, LOADER[os.uname().machine], "--list", inside], capture_output=True, text=True, check=False
        )
        said = (listed.stdout + listed.stderr).splitlines()
        found |= {f"{inside}: {line.strip()}" for line in said if "not found" in line or "cannot open" in line}
    if found:
        raise SystemExit("a package that is left out is needed:\n" + "\n".join(sorted(found)))


def main() -> None:
    """Fill the folder named first from the lists named after it."""
    out, want = Path(sys.argv[1]), wanted([Path(name) for name in sys.argv[2:]])
    _skeleton(out)
    with tempfile.TemporaryDirectory() as state:
        for archive in _fetch(want.names, Path(state)):
            if _package_of(archive) not in want.without:
                _unpack(archive, out)
    _finish(out, want.needless)
    _complain_of_missing_libraries(out)
    compile_below(out)


if __name__ == "__main__":
    main()
