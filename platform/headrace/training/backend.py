"""Our own backend for Ray Train: it only tells the workers where to meet.

Ray's TorchTrainer imports torch in the driver and in the controller as well (1.4 s of CPU each), starts the process
group by a call of the controller, and opens a TCP store on all interfaces. Here the workers open their process group
themselves (`group.py`), through a file where all are on one machine: nothing listens beyond loopback, and no port can
be taken by somebody else.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.train.backend import Backend, BackendConfig

from headrace.training.rendezvous import RENDEZVOUS


def choose_rendezvous(scratch: str, single_node: bool) -> str:
    """On the first worker: a fresh meeting point. SCRATCH is a folder the driver removes, if it is on this machine."""
    if single_node:
        folder = tempfile.mkdtemp(prefix="rendezvous-", dir=scratch if Path(scratch).is_dir() else None)
        return f"file:{folder}/store"
    import ray

    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"tcp:{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"


def prepare_worker(rendezvous: str) -> None:
    """On each worker: remember the meeting point, and begin importing torch while the controller is still busy."""
    os.environ[RENDEZVOUS] = rendezvous
    threading.Thread(target=__import__, args=("torch",), name="import-torch", daemon=True).start()


class _MeetingBackend(Backend):
    share_cuda_visible_devices = True  # NCCL's peer-to-peer copies want to see the node's other GPUs

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        nodes = {worker.metadata.node_id for worker in worker_group.get_workers()}
        rendezvous = worker_group.execute_single(0, choose_rendezvous, backend_config.scratch, len(nodes) == 1)
        worker_group.execute(prepare_worker, rendezvous)


@dataclass
class MeetingBackendConfig(BackendConfig):
    """Where the driver's scratch folder is."""

    scratch: str = ""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train calls."""
        return _MeetingBackend
