"""One object followed by a watch, in a thread of its own, so that whoever waits can do something else in between.

The watch is resumed from the last version seen when it ends or breaks, and begun anew where that version is too old
(410) or the server says within it that it is troubled. A server that is away is waited for as by any request.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import urllib3

from headrace.api.kinds import Kind, Object
from headrace.cluster.errors import ApiError
from headrace.cluster.transport import Transport

_GONE = 410  # the version is too old
_WATCH_SECONDS = 240  # after which the server ends a watch, and we go on with another
_SILENCE_SECONDS = 150.0  # a bookmark comes every minute; a connection that brings none is dead
_PAUSE_SECONDS = 0.5  # after a watch that broke or brought nothing: a server that ends each one is not to be flooded


class Watcher:
    """Follows the object NAME, which was last seen as KNOWN; a context manager."""

    def __init__(self, transport: Transport, kind: Kind, namespace: str, name: str, known: Object | None) -> None:
        self._transport = transport
        self._kind, self._namespace, self._name = kind, namespace, name
        self._known = known
        self._version = "" if known is None else str(known["metadata"]["resourceVersion"])
        self._news: queue.Queue[Object | Exception | None] = queue.Queue()
        self._stream: urllib3.BaseHTTPResponse | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"headrace-watch-{name}", daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        stream = self._stream
        if isinstance(stream, urllib3.HTTPResponse):
            try:
                stream.shutdown()
            except (OSError, ValueError, RuntimeError):  # it has ended meanwhile
                return

    def next(self, seconds: float) -> Object | None:
        """The object as it is after its next change, or as it was after SECONDS without one; None where it is gone.

        Raises:
            Unavailable: the API server stays away.
            HeadraceError: it refuses the watch.
        """
        try:
            news = self._news.get(timeout=seconds)
            while not self._news.empty():  # only the newest is of interest
                later = self._news.get_nowait()
                news = news if isinstance(news, Exception) else later
        except queue.Empty:
            return self._known
        if isinstance(news, Exception):
            self._news.put(news)  # nothing comes after it
            raise news
        self._known = news
        return news

    def _work(self) -> None:
        try:
            while not self._over.is_set():
                try:
                    if not self._watch():
                        self._over.wait(_PAUSE_SECONDS)
                except ApiError as error:
                    if error.status != _GONE and not error.temporary:
                        raise
                    self._version = ""
                    self._over.wait(_PAUSE_SECONDS)
        except ApiError as error:
            self._news.put(error.headrace_error(f"watch {self._kind.kind} {self._name}"))
        except Exception as error:  # whoever waits must not wait for a thread that has ended
            self._news.put(error)

    def _watch(self) -> bool:
        """Follow one watch to its end; whether it ended well and brought anything."""
        if not self._version:
            self._look()
        stream = self._transport.patiently(self._open)
        self._stream = stream
        brought = False
        try:
            for event in _events(stream):
                self._take(event)
                brought = True
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            return False
        finally:
            stream.close()
        return brought

    def _open(self) -> urllib3.BaseHTTPResponse:
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={self._name}",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        return self._transport.open_stream(self._kind.path(self._namespace), query, _SILENCE_SECONDS)

    def _look(self) -> None:
        """Find out anew how things are: from the collection, whose version a watch can go on from."""
        query = {"fieldSelector": f"metadata.name={self._name}"}
        found = self._transport.request(
            "GET", self._kind.path(self._namespace), f"list {self._kind.plural}", query=query
        )
        self._version = str(found["metadata"]["resourceVersion"])
        items = found["items"]
        self._news.put({"apiVersion": self._kind.api_version, "kind": self._kind.kind, **items[0]} if items else None)

    def _take(self, event: dict[str, Any]) -> None:
        obj = event["object"]
        if event["type"] == "ERROR":
            raise ApiError(int(obj.get("code") or 500), str(obj.get("reason")), str(obj.get("message")))
        self._version = str(obj["metadata"]["resourceVersion"])
        if event["type"] != "BOOKMARK":
            self._news.put(None if event["type"] == "DELETED" else obj)


def _events(stream: urllib3.BaseHTTPResponse) -> Iterator[dict[str, Any]]:
    """The lines of a watch; a torn last one is left out, since the watch is resumed."""
    rest = b""
    for data in stream.stream(2**16):
        *lines, rest = (rest + data).split(b"\n")
        yield from (json.loads(line) for line in lines if line.strip())
