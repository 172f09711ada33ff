"""Ways into a sandbox's network for whoever stands outside: connections, and ports of this machine that lead inside.

A socket belongs to the network in which it was made, whoever uses it. So a thread goes inside, connects and ends there,
and nothing has to listen or run in the sandbox.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from concurrent.futures import ThreadPoolExecutor

from headrace_testbed.apart import Connect, pass_on
from headrace_testbed.sandbox import Sandbox

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_SECONDS = 30


class Doors:
    """Ways into SANDBOX, which must have been started before one is used."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._listeners: list[socket.socket] = []

    def connect(self, address: str, port: int) -> socket.socket:
        """A connection to ADDRESS inside."""
        with ThreadPoolExecutor(1) as own:
            return own.submit(self._connect_inside, address, port).result()

    def _connect_inside(self, address: str, port: int) -> socket.socket:
        network = self._sandbox.own_network()
        try:
            if ctypes.CDLL(None, use_errno=True).setns(network, _NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "the sandbox's network cannot be entered")
        finally:
            os.close(network)
        return socket.create_connection((address, port), timeout=_SECONDS)

    def open(self, address: str, port: int, here: int = 0) -> int:
        """Let port HERE of this machine's loopback, or any that is free, lead to ADDRESS inside; which it is."""
        listener = socket.create_server(("127.0.0.1", here))
        self._listeners.append(listener)
        pass_on(listener, self._connecting(address, port))
        return int(listener.getsockname()[1])

    def _connecting(self, address: str, port: int) -> Connect:
        def connect() -> socket.socket:
            connection = self.connect(address, port)
            connection.settimeout(None)
            return connection

        return connect

    def close(self) -> None:
        """Close the ports."""
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes who waits for a guest
            listener.close()
