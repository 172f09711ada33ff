"""A machine inside the machine: namespaces and cgroups in which a node runs as root and from which nothing gets out.

A guard process outside makes it, and ends it when whoever asked for it ends, however that ended: it waits for the end
of its standard input. Inside, process 1 has a network without a way out, folders of Debian's packages laid over /usr,
and its own /run, /etc and /var; all of that is the kernel's to clear away with the namespaces. What the kernel does
not clear away are cgroups: the guard does.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from headrace_testbed.sandbox_process import MYSELF

_END_SECONDS = 90
_TEST_BED = Path(__file__).parents[1]


class Sandbox:
    """Namespaces and cgroups named NAME, with their files in FOLDER; PACKAGES is laid over /usr.

    What stands in FOLDER under the names of RUBBISH goes with it.
    """

    def __init__(self, name: str, folder: Path, packages: Path, rubbish: Sequence[str] = ()) -> None:
        self._folder = folder
        rubbish = [str(folder / each) for each in rubbish]
        self._plan = json.dumps({"name": name, "packages": str(packages), "rubbish": rubbish})
        self._guard: subprocess.Popen[str] | None = None
        self.pid = 0
        self.prefix = (str(folder / "nn"),)

    def start(self) -> None:
        """Make it; from then on `prefix` before a command runs it inside."""
        with open(self._folder / "sandbox.log", "ab") as log:
            self._guard = subprocess.Popen(
                [*MYSELF, "guard", self._plan],
                env=os.environ | {"PYTHONPATH": str(_TEST_BED)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self._guard.stdout is not None
        said = self._guard.stdout.readline()
        if not said:
            raise RuntimeError(f"the sandbox did not start:\n{(self._folder / 'sandbox.log').read_text()[-2000:]}")
        self.pid = int(said)
        script = Path(self.prefix[0])
        script.write_text(f'#!/bin/sh\nexec nsenter --target {self.pid} --net --mount --pid --ipc -- "$@"\n')
        script.chmod(0o755)

    def stop(self) -> None:
        """End all that is in it and wait until nothing is left."""
        if self._guard is None:
            return
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self._guard.stdin.close()
        try:
            self._guard.wait(_END_SECONDS)
        finally:
            self._guard.stdout.close()

    def own_network(self) -> int:
        """A file descriptor of its network, for `setns`; the caller closes it."""
        return os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
