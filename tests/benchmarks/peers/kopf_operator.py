"""The same work done with kopf, as its documentation has it: a RayJob for each TrainingRun, and a status that names it.

`operators.py` runs it in a virtual environment of its own. The RayJob is Headrace's own manifest, filled in here, so
that both operators send the same bytes.
"""

import json
import os
import ssl
from pathlib import Path

import aiohttp
import kopf
import yaml

TEMPLATE = Path(os.environ["RAY_JOB_TEMPLATE"]).read_text()
JOBS = "/apis/ray.io/v1/namespaces/{}/rayjobs"
session: aiohttp.ClientSession


@kopf.on.startup()
async def connect(**_: object) -> None:
    """One pool of connections for the RayJobs; kopf has its own for everything else."""
    global session
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
    headers = {"Content-Type": "application/json"}
    if "token" in user:
        headers["Authorization"] = f"Bearer {user['token']}"
    else:
        tls.load_cert_chain(user["client-certificate"], user["client-key"])
    session = aiohttp.ClientSession(
        cluster["server"], connector=aiohttp.TCPConnector(ssl=tls, limit=32), headers=headers
    )


@kopf.on.create("headrace.dev", "v1alpha1", "trainingruns")
async def begin(body: kopf.Body, name: str, namespace: str, uid: str, patch: kopf.Patch, **_: object) -> str:
    """Make the RayJob of the first attempt, and say so."""
    text = TEMPLATE.replace("RUN-NAMESPACE", namespace).replace("RUN-NAME", name).replace("RUN-UID", uid)
    manifest = json.loads(text)
    async with session.post(JOBS.format(namespace), json=manifest) as response:
        if response.status not in (201, 409):
            raise kopf.TemporaryError(await response.text(), delay=5)
        made = await response.json()
    patch.status["attempt"] = 1
    patch.status["phase"] = "Waiting"
    patch.status["rayJobName"] = manifest["metadata"]["name"]
    patch.status["rayJobUID"] = made.get("metadata", {}).get("uid", "")
    patch.status["observedGeneration"] = body["metadata"]["generation"]
    kopf.info(body, reason="AttemptCreated", message=f"attempt 1 is RayJob {manifest['metadata']['name']}")
    return manifest["metadata"]["name"]
