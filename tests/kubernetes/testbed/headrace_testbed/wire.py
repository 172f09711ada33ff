"""A wire between a program and the API server that a test can cut: a TCP proxy on a port of its own."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType

_AT_ONCE = struct.pack("ii", 1, 0)  # closing resets the connection and drops what was not sent


class Wire:
    """Passes bytes on to PORT of this machine until it is cut. Its own port is `port`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cut()
        self._listener.close()

    def cut(self) -> None:
        """End every connection and let no new one through."""
        self._cut = True
        for end in list(self._open):
            self._close(end)

    def mend(self) -> None:
        """Let new connections through again."""
        self._cut = False

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                if self._cut:
                    self._close(here)
                    continue
                try:
                    there = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    self._close(here)  # nobody listens there for now
                    continue
                self._open |= {here, there}
                if self._cut:  # while it was made
                    self._close(here)
                    self._close(there)
                    continue
                for source, sink in ((here, there), (there, here)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        self._close(source)
        self._close(sink)

    def _close(self, end: socket.socket) -> None:
        self._open.discard(end)
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            end.shutdown(socket.SHUT_RDWR)
        end.close()
