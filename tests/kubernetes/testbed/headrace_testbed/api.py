"""A small client of the API server for tests: plain dicts in and out, synchronous, as whoever its credentials name.

Tests look at the cluster through this and never through the product's own client, so that a fault in the one cannot
hide the same fault in the other.
"""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import httpx

from headrace_testbed.waiting import eventually

Object = dict[str, Any]
_PAGE = 500


class ApiError(Exception):
    """The API server refused: its status code, its reason (`Forbidden`, `Invalid`, ...) and its words."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class Api:
    """Requests to one API server, with a client certificate or a bearer token."""

    def __init__(
        self, url: str, ca_file: Path, certificate: tuple[Path, Path] | None = None, token: str | None = None
    ) -> None:
        context = ssl.create_default_context(cafile=str(ca_file))
        if certificate:
            context.load_cert_chain(*certificate)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=url, verify=context, headers=headers, timeout=120, trust_env=False)
        self._resources: dict[tuple[str, str], tuple[str, bool]] = {}

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def request(self, method: str, path: str, **options: Any) -> Any:
        """One request; what it answers, as a dict where that is JSON, else as text."""
        response = self._client.request(method, path, **options)
        is_json = "json" in response.headers.get("content-type", "")
        if response.is_error:
            status = response.json() if is_json else {}
            raise ApiError(response.status_code, status.get("reason", ""), status.get("message", response.text))
        return response.json() if is_json else response.text

    def get(self, path: str, **parameters: Any) -> Object:
        """GET path?parameters."""
        return self.request("GET", path, params=parameters)

    def post(self, path: str, body: Object) -> Object:
        """Create."""
        return self.request("POST", path, json=body)

    def put(self, path: str, body: Object) -> Object:
        """Replace."""
        return self.request("PUT", path, json=body)

    def patch(self, path: str, body: Object) -> Object:
        """Merge BODY in (RFC 7386)."""
        headers = {"content-type": "application/merge-patch+json"}
        return self.request("PATCH", path, content=json.dumps(body), headers=headers)

    def delete(self, path: str, body: Object | None = None) -> Object:
        """Delete, with DeleteOptions if given."""
        return self.request("DELETE", path, json=body)

    def list(self, path: str, **parameters: Any) -> list[Object]:
        """Every item of a collection, page by page."""
        items: list[Object] = []
        more = ""
        while True:
            page = self.get(path, limit=_PAGE, **({"continue": more} if more else {}), **parameters)
            items += page.get("items") or []
            more = page["metadata"].get("continue", "")
            if not more:
                return items

    def path_of(self, manifest: Object, namespace: str | None = None) -> str:
        """The path of the object that MANIFEST describes, as the server's discovery tells it."""
        version, metadata = manifest["apiVersion"], manifest["metadata"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        key = (version, manifest["kind"])
        if key not in self._resources:
            eventually(lambda: self._discover(root, version, manifest["kind"]))
        plural, namespaced = self._resources[key]
        place = f"/namespaces/{metadata.get('namespace') or namespace or 'default'}" if namespaced else ""
        return f"{root}{place}/{plural}/{metadata['name']}"

    def _discover(self, root: str, version: str, kind: str) -> bool:
        """Whether the server says where KIND is: of a kind that is new it does some time after it serves it."""
        try:
            resources = self.get(root)["resources"]
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        for resource in resources:
            if "/" not in resource["name"]:
                self._resources[version, resource["kind"]] = resource["name"], resource["namespaced"]
        return (version, kind) in self._resources

    def apply(
        self, manifest: Object, manager: str = "test", force: bool = False, namespace: str | None = None
    ) -> Object:
        """Apply MANIFEST on the server's side as MANAGER, unknown fields refused; FORCE takes fields from others."""
        parameters = {"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        headers = {"content-type": "application/apply-patch+yaml"}  # JSON is YAML
        path = self.path_of(manifest, namespace)
        return self.request("PATCH", path, params=parameters, content=json.dumps(manifest), headers=headers)
