"""Serving beside FastAPI with uvicorn, the same model in the same run: python tests/benchmarks/serving.py [--seconds 4]

Bare FastAPI is what a user would write by hand: one process, one endpoint, the package's own `predict`. Headrace adds
HAProxy before it, Ray Serve around it, V2, admission, batching, metrics and the hot swap. Both are asked in turn,
several rounds, so that a busy machine slows both alike; the ratios are what counts. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CLIENTS = (1, 32)
ROUNDS = 3

BARE = """
import sys

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI
from headrace_models.package import load_package
from pydantic import BaseModel

torch.set_num_threads(1)
model = load_package(sys.argv[1])
app = FastAPI()


class Request(BaseModel):
    image: list[list[list[list[int]]]]


@app.post("/predict")
async def predict(request: Request) -> dict:
    outputs = model.predict({"image": np.array(request.image, np.uint8)})
    listed = {name: array.tolist() for name, array in outputs.items()}
    return {name: [e.decode() if isinstance(e, bytes) else e for e in rows] for name, rows in listed.items()}


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
"""


async def _client(port: int, request: bytes, until: float, seconds: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        started = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        found = re.search(rb"content-length: (\d+)", head)
        assert head.startswith(b"http/1.1 200")
        assert found is not None
        await reader.readexactly(int(found.group(1)))
        seconds.append(time.perf_counter() - started)
    writer.close()


async def _load(port: int, path: str, body: bytes, clients: int, duration: float) -> dict[str, float]:
    line = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    seconds: list[float] = []
    started = time.perf_counter()
    await asyncio.gather(*(_client(port, line.encode() + body, started + duration, seconds) for _ in range(clients)))
    rate = len(seconds) / (time.perf_counter() - started)
    quantiles = statistics.quantiles(seconds, n=100)
    return {"requests_per_second": rate, "p50_ms": quantiles[49] * 1000, "p99_ms": quantiles[98] * 1000}


def _package(home: Path) -> Any:
    """A package of an untrained mlp for digits: its weights do not change its speed."""
    import io

    import torch
    from PIL import Image
    from sklearn.datasets import load_digits

    from headrace.serving.contract import StableVersion
    from headrace_models.package import build_model, write_package
    from headrace_models.tasks import Sample, Schema, build_task

    samples = []
    for number, pixels in enumerate(load_digits().images[:32]):
        file = io.BytesIO()
        Image.fromarray((pixels * 15).astype("uint8")).save(file, "PNG")
        samples.append(Sample(str(number), file.getvalue(), {"label": str(number % 10)}))
    task = build_task({"name": "image-classification", "args": {}}, Schema("label", tuple("0123456789")))
    task.learn([task.summarise(samples)])
    torch.manual_seed(0)
    record = {"name": "mlp", "args": {}}
    folder = home / "package"
    sha256 = write_package(
        folder,
        task=task,
        model=build_model(record, task),
        model_record=record,
        code_folder=None,
        provenance={},
        example=task.request(samples[:1]),
    )
    return StableVersion("1", str(folder), sha256)


def _start_bare(folder: str, port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", BARE, folder, str(port)])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            asyncio.run(asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 1))
            return process
        except OSError:
            time.sleep(0.2)
    process.kill()
    raise SystemExit("FastAPI did not start")


def _compare(stable: Any, seconds: float) -> dict[str, Any]:
    from sklearn.datasets import load_digits

    from headrace.local.deployments import deploy
    from headrace.local.desired_state import Deployment
    from headrace.local.ports import free_serve_port

    served = deploy(Deployment("bench", "bench", stable), tell=lambda text: print(text, file=sys.stderr))
    front_port = int(served["url"].split(":")[2].split("/")[0])
    bare_port = free_serve_port(front_port + 50)
    pixels = (load_digits().images[0] * 15).astype(int)[..., None]
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": pixels.ravel().tolist()}
    ways = {
        "headrace": (front_port, "/bench/v2/models/bench/infer", json.dumps({"inputs": [tensor]}).encode()),
        "fastapi": (bare_port, "/predict", json.dumps({"image": [pixels.tolist()]}).encode()),
    }
    bare = _start_bare(stable.package_uri, bare_port)
    try:
        for way in ways.values():  # warm
            asyncio.run(_load(*way, 4, 1.0))
        taken: dict[str, dict[int, list[dict[str, float]]]] = {name: {c: [] for c in CLIENTS} for name in ways}
        for _ in range(ROUNDS):
            for clients in CLIENTS:
                for name, way in ways.items():
                    taken[name][clients].append(asyncio.run(_load(*way, clients, seconds)))
    finally:
        bare.send_signal(signal.SIGTERM)
        bare.wait(20)
    return _report(taken)


def _report(taken: dict[str, dict[int, list[dict[str, float]]]]) -> dict[str, Any]:
    medians = {
        name: {
            clients: {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}
            for clients, runs in by_clients.items()
        }
        for name, by_clients in taken.items()
    }
    ratios = {
        clients: round(
            statistics.median(
                ours["requests_per_second"] / bare["requests_per_second"]
                for ours, bare in zip(taken["headrace"][clients], taken["fastapi"][clients], strict=True)
            ),
            3,
        )
        for clients in CLIENTS
    }
    return {"medians_by_clients": medians, "headrace_to_fastapi_requests_per_second": ratios}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement")
    asked = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="hb", dir="/tmp"))
    os.environ.update({"HEADRACE_HOME": str(home), "OMP_NUM_THREADS": "1"})
    from headrace.local.ray_head import stop_head

    try:
        print(json.dumps(_compare(_package(home), asked.seconds), indent=2))
    finally:
        stop_head()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
