"""What the client makes of the API server's answers: pages, events, errors; and how a log line looks."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from headrace_operators.runtime.client import Page, parse_event
from headrace_operators.runtime.errors import (
    AlreadyExists,
    Busy,
    Conflict,
    FieldOwned,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    Unreachable,
    api_error,
)
from headrace_operators.runtime.logs import JsonLines, TextLines
from headrace_operators.runtime.server import split_address

ITEMS = [{"metadata": {"name": "a"}, "note": 'tricky: "items":[1,2] ]}'}, {"metadata": {"name": "b"}, "list": [[], {}]}]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ":")])
@pytest.mark.parametrize("before", [True, False])
def test_a_page_gives_its_items_and_its_metadata_wherever_that_stands(separators: Any, before: bool) -> None:
    metadata = {"resourceVersion": "9", "continue": "next"}
    page = {"kind": "L", **({"metadata": metadata} if before else {}), "items": ITEMS, "metadata": metadata}
    read = Page(json.dumps(page, separators=separators).encode())
    assert list(read) == ITEMS
    assert read.metadata() == metadata


def test_a_page_tells_its_metadata_also_when_its_items_were_not_taken() -> None:
    read = Page(json.dumps({"items": ITEMS, "metadata": {"resourceVersion": "9"}}, separators=(",", ":")).encode())
    assert next(iter(read)) == ITEMS[0]
    assert read.metadata() == {"resourceVersion": "9"}


@pytest.mark.parametrize("items", ["[]", "null"])
def test_a_page_without_items_is_empty(items: str) -> None:
    read = Page(f'{{"items":{items},"metadata":{{"resourceVersion":"9"}}}}'.encode())
    assert list(read) == []
    assert read.metadata() == {"resourceVersion": "9"}


@pytest.mark.parametrize("raw", [b'{"items":[{"a":1},{"b"', b'{"items":[{"a":1}]', b"<html>", b"[]", b"\xff\xfe"])
def test_a_page_that_is_cut_short_or_no_list_at_all_is_no_answer(raw: bytes) -> None:
    def read() -> None:
        page = Page(raw)
        list(page)
        page.metadata()

    with pytest.raises(Unreachable):
        read()


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"type":"ADDED"}', b"null", b"\xff"])
def test_a_watch_line_that_is_no_event_is_no_answer(line: bytes) -> None:
    with pytest.raises(Unreachable):
        parse_event(line)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {"reason": "NotFound"}, NotFound),
        (409, {"reason": "AlreadyExists"}, AlreadyExists),
        (409, {"reason": "Conflict"}, Conflict),
        (409, {"reason": "Conflict", "details": {"causes": [{"reason": "FieldManagerConflict"}]}}, FieldOwned),
        (410, {"reason": "Gone"}, Gone),
        (410, {"reason": "Expired"}, Gone),
        (422, {"reason": "Invalid"}, Invalid),
        (400, {"reason": "BadRequest"}, Invalid),
        (403, {"reason": "Forbidden"}, Forbidden),
        (401, {"reason": "Unauthorized"}, Forbidden),
        (429, {"reason": "TooManyRequests"}, Busy),
        (500, {"reason": "InternalError"}, Unreachable),
        (500, {"message": "failed to create typed patch object (n/b): .spec.x: field not declared in schema"}, Invalid),
        (503, {}, Unreachable),
    ],
)
def test_every_answer_has_its_error(status: int, body: dict[str, Any], kind: type) -> None:
    assert type(api_error(status, {"message": "words", **body})) is kind


def test_errors_say_whether_somebody_must_mend_something() -> None:
    temporary = {
        status for status in (400, 401, 403, 404, 409, 410, 422, 429, 500, 503) if api_error(status, {}).temporary
    }
    assert temporary == {409, 410, 429, 500, 503}


def line(formatter: logging.Formatter, message: str, *, fields: Any = None, error: bool = False) -> str:
    try:
        if error:
            raise ValueError("oh")
        info = None
    except ValueError:
        info = sys.exc_info()
    record = logging.LogRecord("headrace_operators", logging.WARNING, "file", 1, message, (), info)
    record.created = 1795657446.25
    record.fields = fields or {}
    return formatter.format(record)


def test_a_json_line_has_when_how_bad_which_object_and_what() -> None:
    fields = {"controller": "trainingrun", "namespace": "n", "name": "run"}
    assert json.loads(line(JsonLines(), 'it is "late"', fields=fields)) == {
        "time": "2026-11-26T01:44:06.250Z",
        "level": "warning",
        "controller": "trainingrun",
        "namespace": "n",
        "name": "run",
        "message": 'it is "late"',
    }
    assert "ValueError: oh" in json.loads(line(JsonLines(), "x", error=True))["traceback"]


def test_a_text_line_quotes_what_has_spaces() -> None:
    found = line(TextLines(), 'it is "late"', fields={"name": "run"})
    assert found == 'time=2026-11-26T01:44:06.250Z level=warning name=run message="it is \\"late\\""'


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("127.0.0.1:80", "127.0.0.1", 80), (":8080", "0.0.0.0", 8080), ("[::1]:0", "::1", 0)],
)
def test_addresses_are_host_and_port(address: str, host: str, port: int) -> None:
    assert split_address(address) == (host, port)


@pytest.mark.parametrize("address", ["8080", "host", "host:http", ""])
def test_what_is_no_address_is_told_with_an_example(address: str) -> None:
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:8080"):
        split_address(address)
