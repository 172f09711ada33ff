"""Lists of Kubeflow's API, which come in pages, read to their end; and filters by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from headrace_pipelines.kubeflow.connection import Connection

PAGE = 100
EQUALS = 1  # as kfp.Client itself writes it
Record = dict[str, Any]
Ask = Callable[[Any, str], Any]  # of the client and a page's token


def pages(connection: Connection, doing: str, items: str, ask: Ask) -> Iterator[Record]:
    """The ITEMS of every page that ASK gives. DOING says in an error what was wanted."""
    token = ""
    while True:
        page = connection.call(doing, partial(_swapped, ask, token)) or {}
        yield from page.get(items) or ()
        token = page.get("next_page_token") or ""
        if not token:
            return


def _swapped(ask: Ask, token: str, client: Any) -> Any:
    return ask(client, token)


def named(key: str, value: str) -> str:
    """A filter of those whose KEY is VALUE."""
    return json.dumps({"predicates": [{"operation": EQUALS, "key": key, "stringValue": value}]})
