"""Structured logs on stderr: each line says when, how bad, which controller and which object, then what happened."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal

Format = Literal["json", "text"]


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines carry fields; `log.info("...", fields={...})` adds more."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(logging.getLogger("headrace_operators"), fields)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Join the logger's fields and the line's."""
        kwargs["extra"] = {"fields": {**(self.extra or {}), **kwargs.pop("fields", {})}}
        return msg, kwargs


class _Lines(logging.Formatter):
    def record(self, record: logging.LogRecord) -> dict[str, Any]:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": moment.replace("+00:00", "Z"), "level": record.levelname.lower()}
        line.update(getattr(record, "fields", {"logger": record.name}))
        line["message"] = record.getMessage()
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return line


class JsonLines(_Lines):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return json.dumps(self.record(record), default=str)


class TextLines(_Lines):
    """`key=value`, quoted where it has spaces; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = self.record(record)
        traceback = line.pop("traceback", None)
        text = " ".join(f"{key}={_quoted(value)}" for key, value in line.items())
        return f"{text}\n{traceback}" if traceback else text


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(sign in text for sign in ' "=\n') else text


def set_up(level: str, format_: Format) -> None:
    """Send all logs of the process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if format_ == "json" else TextLines())
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.WARNING)  # foreign libraries
    logging.getLogger("headrace_operators").setLevel(level.upper())


def object_fields(key: tuple[str, str]) -> Mapping[str, str]:
    """The fields that name an object; its controller is a field of the logger."""
    return {"namespace": key[0], "name": key[1]}
