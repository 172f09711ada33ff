"""The operator as a process: what flags and environment say becomes a connection, reconcilers and a manager that runs.

Signals: the first SIGTERM or SIGINT stops it in peace, a second one at once. Exit codes: 0 stopped, 1 the lease was
lost (start it again), 4 there is nothing that says where the API server is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, runtime_checkable

from headrace.base.errors import InvalidInput, Unavailable
from headrace_operators.errands import follow_backup, follow_mlflow
from headrace_operators.mlflow import MLflow
from headrace_operators.runtime.client import Client
from headrace_operators.runtime.connection import SERVICE_ACCOUNT, Connection, NoConnection, connect
from headrace_operators.runtime.controller import Reconciler
from headrace_operators.runtime.errors import NotLeading
from headrace_operators.runtime.leader import LeaseOptions, LeaseTimes
from headrace_operators.runtime.logs import Format, Log, set_up
from headrace_operators.runtime.manager import Errand, Manager, Options
from headrace_operators.runtime.server import CannotListen, split_address
from headrace_operators.runtime.transport import Transport
from headrace_operators.settings import OperatorSettings

LOST_THE_LEASE = 1


@runtime_checkable
class Closing(Protocol):
    """A reconciler that holds connections of its own."""

    async def close(self) -> None:
        """Give them back."""


@dataclass(frozen=True)
class ProcessOptions:
    """What can be set from outside; `headrace operator --help` says what each means."""

    namespace: str | None = None
    workers: int = 8
    metrics_address: str = "127.0.0.1:8080"
    health_address: str = "127.0.0.1:8081"
    lease_name: str | None = "headrace-operator"  # None: no leader election
    lease_namespace: str | None = None
    lease_times: LeaseTimes = field(default_factory=LeaseTimes)
    kubeconfig: str | None = None
    service_account: Path = SERVICE_ACCOUNT
    log_level: str = "info"
    log_format: Format = "json"
    settings: OperatorSettings = field(default_factory=OperatorSettings)


def reconcilers(settings: OperatorSettings) -> list[Reconciler]:
    """One reconciler of each of our kinds."""
    from headrace_operators import model_deployment, model_monitor, training_run

    makers = (training_run.reconciler, model_deployment.reconciler, model_monitor.reconciler)
    return [make(settings) for make in makers]


def run(options: ProcessOptions, make: Callable[[OperatorSettings], Sequence[Reconciler]] = reconcilers) -> int:
    """Run what MAKE makes until a signal comes or the lease is lost; the exit code.

    Raises:
        Unavailable: nothing says where the API server is.
        InvalidInput: an address is none, or is taken.
    """
    set_up(options.log_level, options.log_format)
    for address in filter(None, (options.metrics_address, options.health_address)):
        try:
            split_address(address)
        except ValueError as error:
            raise InvalidInput(str(error), code="usage") from error
    return asyncio.run(_run(options, make))


async def _run(options: ProcessOptions, make: Callable[[OperatorSettings], Sequence[Reconciler]]) -> int:
    try:
        connection = await connect(options.kubeconfig, options.service_account)
    except NoConnection as error:
        raise Unavailable(str(error), action="name a kubeconfig by --kubeconfig, or run it in a pod") from error
    identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    transport = Transport(connection, f"headrace-operator/{version('headrace')} ({identity})")
    made, mlflow = make(options.settings), MLflow()
    errands = (
        partial(follow_backup, namespace=options.lease_namespace or connection.namespace),
        lambda _: follow_mlflow(mlflow, options.settings.mlflow_interval_seconds),
    )
    try:
        return await supervise(Client(transport), made, _options(options, connection, identity), errands)
    except CannotListen as error:
        action = "choose others by --metrics-address and --health-address; HOST:0 takes a free port"
        raise InvalidInput(str(error), action=action, code="usage") from error
    finally:
        for each in made:
            if isinstance(each, Closing):
                await each.close()
        await mlflow.close()
        await transport.close()


async def supervise(client: Client, of: Sequence[Reconciler], options: Options, errands: Sequence[Errand] = ()) -> int:
    """Run the manager of reconcilers until a signal comes or the lease is lost; the exit code."""
    log, stop = Log(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_once(number: signal.Signals) -> None:
        log.info("received %s", number.name)
        stop.set()
        loop.remove_signal_handler(number)  # the next one ends the process

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_once, number)
    log.info(
        "starting", fields={"pid": os.getpid(), "namespace": options.namespace or "all", "workers": options.workers}
    )
    try:
        await Manager(client, of, options, errands).run(stop)
    except NotLeading as error:
        log.error("the lease is lost, nothing more is written, the process ends: %s", error)
        return LOST_THE_LEASE
    log.info("stopped")
    return 0


def _options(options: ProcessOptions, connection: Connection, identity: str) -> Options:
    lease = None
    if options.lease_name:
        namespace = options.lease_namespace or connection.namespace
        lease = LeaseOptions(namespace, options.lease_name, identity, options.lease_times)
    return Options(
        namespace=options.namespace,
        workers=options.workers,
        lease=lease,
        metrics_address=options.metrics_address,
        health_address=options.health_address,
    )
