"""The API server as the double speaks to it: plain HTTP and JSON, and no code of the product's own client.

What a test proves with the double must not rest on the same mistake twice, so nothing of `headrace_operators` is used.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import yaml

Object = dict[str, Any]
MANAGER = "kuberay-operator"  # as KubeRay's writes are signed
_PAGE = 500
_CONNECTIONS = 64
_CLOSING_SECONDS = 0.1


class Key(NamedTuple):
    """An object's namespace and name."""

    namespace: str
    name: str


def key_of(obj: Mapping[str, Any]) -> Key:
    """The object's key."""
    return Key(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def owner_key(obj: Mapping[str, Any], kind: str) -> Key | None:
    """The key of the object's controller, if that is of KIND."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller") and owner["kind"] == kind:
            return Key(obj["metadata"]["namespace"], owner["name"])
    return None


class Refused(Exception):
    """The API server refused: its status code, its reason and its words."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class Gone(Exception):
    """A watch cannot go on from where it stood: list again."""


class Resource(NamedTuple):
    """One kind's place in the API."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """URL path of the collection, of an object, or of a subresource."""
        root = "/apis/" if "/" in self.api_version else "/api/"
        parts = [
            root + self.api_version,
            f"namespaces/{namespace}" if namespace else "",
            self.plural,
            name,
            subresource,
        ]
        return "/".join(part for part in parts if part)


RAY_JOB = Resource("ray.io/v1", "RayJob", "rayjobs")
RAY_SERVICE = Resource("ray.io/v1", "RayService", "rayservices")
RAY_CLUSTER = Resource("ray.io/v1", "RayCluster", "rayclusters")
POD = Resource("v1", "Pod", "pods")
SERVICE = Resource("v1", "Service", "services")
SECRET = Resource("v1", "Secret", "secrets")
ENDPOINT_SLICE = Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
EVENT = Resource("v1", "Event", "events")


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    if "certificate-authority-data" in cluster:
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    else:
        context = ssl.create_default_context(cafile=cluster["certificate-authority"])
    if "client-certificate" in user:
        context.load_cert_chain(user["client-certificate"], user["client-key"])
    elif "client-certificate-data" in user:
        with tempfile.NamedTemporaryFile("wb", suffix=".pem") as pem:
            for part in ("client-certificate-data", "client-key-data"):
                pem.write(base64.b64decode(user[part]))
            pem.flush()
            context.load_cert_chain(pem.name)
    return context


class Wire:
    """Requests as whoever the KUBECONFIG names; use it as an async context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.url = cluster["server"]
        self._tls = _tls(cluster, user)
        self._headers = {"User-Agent": "kuberay-double"}
        if token := user.get("token"):
            self._headers["Authorization"] = f"Bearer {token}"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Wire:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=_CONNECTIONS)
        self._session = aiohttp.ClientSession(self.url, connector=connector, headers=self._headers)
        return self

    async def __aexit__(self, *details: object) -> None:
        assert self._session is not None
        await self._session.close()
        await asyncio.sleep(_CLOSING_SECONDS)  # TLS connections end a little later (aiohttp's own advice)

    async def request(self, method: str, path: str, body: Object | None = None, **parameters: str) -> Object:
        """One request and its answer. Raises Refused; aiohttp.ClientError, TimeoutError when nobody answers."""
        assert self._session is not None, "use `async with Wire(...)`"
        content_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body)
        async with self._session.request(
            method,
            path,
            data=data,
            params=parameters,
            headers={"Content-Type": content_type},
            timeout=aiohttp.ClientTimeout(total=30),
        ) as response:
            text = await response.read()
            if response.status >= 400:
                raise _refusal(response.status, text)
            told: Object = json.loads(text)
            return told

    async def list(self, path: str, **parameters: str) -> tuple[list[Object], str]:
        """Every item of a collection, page by page, and the resource version to watch from."""
        items: list[Object] = []
        asked = {"limit": str(_PAGE)} | parameters
        while True:
            page = await self.request("GET", path, None, **asked)
            items += page.get("items") or []
            if not page["metadata"].get("continue"):
                return items, page["metadata"]["resourceVersion"]
            asked["continue"] = page["metadata"]["continue"]

    async def watch(self, path: str, resource_version: str, **parameters: str) -> AsyncIterator[tuple[str, Object]]:
        """Events from RESOURCE_VERSION on, until the server ends the watch. Raises Gone, Refused."""
        assert self._session is not None, "use `async with Wire(...)`"
        asked = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": "300",
        }
        async with self._session.get(
            path, params=asked | parameters, timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=330)
        ) as response:
            if response.status >= 400:
                refusal = _refusal(response.status, await response.read())
                raise Gone if response.status == 410 else refusal
            async for line in _lines(response.content):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Gone
                yield event["type"], event["object"]


def _refusal(status: int, text: bytes) -> Refused:
    try:
        told = json.loads(text)
    except ValueError:
        told = {}
    return Refused(status, told.get("reason", ""), told.get("message", text.decode(errors="replace")))


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length (`readline` refuses the long ones)."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
