"""The version that answers, and the change to the next one without a stop.

A change is loaded by a thread beside the event loop while the old version goes on answering; the swap itself is one
assignment. A version that cannot be loaded leaves the old one where it is and its reason in the status.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from headrace.serving.contract import FrontConfig, FrontStatus, StableVersion

logger = logging.getLogger("headrace.serving")
Model = TypeVar("Model")


@dataclass(frozen=True)
class Live(Generic[Model]):
    """What answers now: the configuration that brought it, and the model it loaded."""

    config: FrontConfig
    model: Model


class Versions(Generic[Model]):
    """One replica's versions.

    Args:
        replica: this replica's name in the status.
        load: fetches and loads one version; called in a thread. Its exception's text is what a deployer is shown.
    """

    def __init__(self, replica: str, load: Callable[[StableVersion], Model]) -> None:
        self._replica = replica
        self._load = load
        self._lock = threading.Lock()
        self._live: Live[Model] | None = None
        self._wanted: FrontConfig | None = None
        self._loading: str | None = None
        self._error: str | None = None
        self._failed_at: float | None = None
        self._idle = threading.Event()
        self._idle.set()

    @property
    def live(self) -> Live[Model] | None:
        """What answers now, or None before the first version is loaded."""
        return self._live

    def configure(self, config: FrontConfig) -> None:
        """Make CONFIG the wanted one and return at once; the newest wanted one wins."""
        with self._lock:
            self._wanted = config
            self._error = None
            self._failed_at = None
            live = self._live
            if live is not None and live.config.stable == config.stable and self._idle.is_set():
                self._live = Live(config, live.model)
                return
            self._loading = config.stable.version
            if not self._idle.is_set():
                return  # the thread looks for a newer one when it is done
            self._idle.clear()
        threading.Thread(target=self._work, name="headrace-load", daemon=True).start()

    def wait_idle(self, timeout_seconds: float | None = None) -> bool:
        """Wait until nothing is being loaded; whether it is so."""
        return self._idle.wait(timeout_seconds)

    def failed_seconds(self) -> float | None:
        """For how long there has been no version to answer with because the first one could not be loaded."""
        failed_at = self._failed_at
        return None if failed_at is None or self._live is not None else time.monotonic() - failed_at

    def status(self) -> FrontStatus:
        """As the status path answers it."""
        with self._lock:
            live = self._live
            return FrontStatus(
                replica=self._replica,
                config_id=None if live is None else live.config.config_id,
                stable=None if live is None else live.config.stable.version,
                loading=self._loading,
                error=self._error,
                wanted=None if self._wanted is None else self._wanted.config_id,
            )

    def _work(self) -> None:
        while True:
            with self._lock:
                config, live = self._wanted, self._live
                assert config is not None
                self._loading = config.stable.version
            model: Model | None = None
            error: str | None = None
            try:
                model = live.model if live and live.config.stable == config.stable else self._load(config.stable)
            except Exception as problem:  # whatever a package can do wrong
                logger.exception("version %s of %s could not be loaded", config.stable.version, config.model)
                error = f"version {config.stable.version} could not be loaded: {describe(problem)}"
            with self._lock:
                if config is not self._wanted:
                    continue
                if model is not None:
                    self._live = Live(config, model)
                self._error = error
                self._failed_at = time.monotonic() if error else None
                self._loading = None
                self._idle.set()
                return


def describe(problem: BaseException) -> str:
    """An exception as one line for people: its own words, and its type where those are missing or cryptic."""
    text = " ".join(str(problem).split())
    if isinstance(problem, KeyError) or not text:
        return f"{type(problem).__name__}: {text}"
    return text
