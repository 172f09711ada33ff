"""An informer against a scripted API server: lists, watches, and everything that can go wrong with them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from headrace_operators.runtime.cache import Store, Watch, by_name
from headrace_operators.runtime.client import Page, parse_event
from headrace_operators.runtime.errors import Gone, NotFound, Unreachable
from headrace_operators.runtime.informer import Informer
from headrace_operators.runtime.kinds import Key, Kind
from headrace_operators.runtime.logs import Log

KIND = Kind("example.com", "v1", "Widget", "widgets")
FOREVER = "forever"


def widget(name: str, version: int, size: int = 0) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "n", "resourceVersion": str(version)}, "spec": {"size": size}}


def bookmark(version: int) -> tuple[str, dict[str, Any]]:
    return "BOOKMARK", {"kind": "Widget", "metadata": {"resourceVersion": str(version)}}


class Api:
    """Answers each list and each watch with the next entry of its script; an exception in it is raised."""

    def __init__(self, lists: list[Any], watches: list[list[Any]]) -> None:
        self.lists, self.watches = lists, watches
        self.asked: list[str] = []

    async def pages(self, kind: Kind, namespace: str | None, label_selector: str) -> AsyncIterator[Page]:
        self.asked.append("list")
        entry = self.lists.pop(0)
        if isinstance(entry, Exception):
            raise entry
        version, *pages = entry
        for items in pages:
            if isinstance(items, Exception):
                raise items
            yield Page(
                json.dumps({"items": items, "metadata": {"resourceVersion": str(version)}}).replace(": ", ":").encode()
            )

    async def watch(
        self, kind: Kind, namespace: str | None, version: str, timeout_seconds: int, label_selector: str
    ) -> AsyncIterator[Any]:
        self.asked.append(f"watch {version}")
        assert 300 <= timeout_seconds <= 600
        for event in self.watches.pop(0) if self.watches else [FOREVER]:
            if event == FOREVER:
                await asyncio.Event().wait()
            elif isinstance(event, Exception):
                raise event
            elif isinstance(event, (int, float)):
                await asyncio.sleep(event)
            elif isinstance(event, bytes):
                yield parse_event(event)
            else:
                yield event


class Run:
    def __init__(self, api: Api, optional: bool) -> None:
        self.api = api
        self.store = Store(Watch(KIND, by_name, optional=optional))
        self.changed: list[str] = []

    async def for_seconds(self, seconds: float) -> None:
        informer = Informer(self.api, self.store, None, lambda key: self.changed.append(key.name), Log())  # type: ignore[arg-type]
        task = asyncio.create_task(informer.run())
        await asyncio.sleep(seconds)
        assert not task.done(), task.exception()
        task.cancel()


@pytest.fixture
def run(in_virtual_time: Callable[..., Any]) -> Callable[..., Run]:
    def start(lists: list[Any], watches: list[list[Any]], seconds: float = 100.0, optional: bool = False) -> Run:
        api = Api(lists, watches)
        made = Run(api, optional)

        async def work() -> None:
            try:
                await made.for_seconds(seconds)
            except RuntimeError as error:
                if "everybody waits" not in str(error):
                    raise

        in_virtual_time(work())
        return made

    return start


Start = Callable[..., Run]


def names(store: Store) -> list[str]:
    return sorted(key.name for key in store)


def test_it_lists_all_pages_and_watches_from_there(run: Start) -> None:
    seen = run([[10, [widget("a", 3)], [widget("b", 9)]]], [[("ADDED", widget("c", 11)), FOREVER]])
    assert names(seen.store) == ["a", "b", "c"]
    assert seen.changed == ["a", "b", "c"]
    assert seen.api.asked == ["list", "watch 10"]
    assert (seen.store.synced, seen.store.seen) == (True, 11)


def test_a_watch_that_ends_in_time_goes_on_from_the_last_event_without_a_list(run: Start) -> None:
    seen = run([[10, []]], [[("ADDED", widget("a", 12)), 300], [FOREVER]], 400)
    assert seen.api.asked == ["list", "watch 10", "watch 12"]


def test_a_bookmark_moves_the_place_to_go_on_from_and_wakes_nobody(run: Start) -> None:
    seen = run([[10, []]], [[bookmark(500), 300], [FOREVER]], 400)
    assert seen.api.asked == ["list", "watch 10", "watch 500"]
    assert seen.changed == []
    assert seen.store.seen == 500


def test_410_lists_anew_and_wakes_exactly_what_changed_appeared_or_went(run: Start) -> None:
    first = [10, [widget("same", 1), widget("changed", 2), widget("gone", 3)]]
    second = [50, [widget("same", 1), widget("changed", 40, size=2), widget("new", 41)]]
    seen = run([first, second], [[Gone(410, "Expired", "too old")], [FOREVER]])
    assert names(seen.store) == ["changed", "new", "same"]
    assert seen.changed == ["same", "changed", "gone", "changed", "new", "gone"]
    assert seen.api.asked == ["list", "watch 10", "list", "watch 50"]


def test_410_may_also_come_as_an_event_in_the_stream(run: Start) -> None:
    error = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}'
    seen = run([[10, []], [60, []]], [[("ADDED", widget("a", 12)), error], [FOREVER]])
    assert seen.api.asked == ["list", "watch 10", "list", "watch 60"]
    assert names(seen.store) == []


def test_a_list_that_expires_between_its_pages_is_begun_anew(run: Start) -> None:
    lists = [[10, [widget("a", 1)], Gone(410, "Expired", "continue token")], [20, [widget("b", 2)]]]
    seen = run(lists, [[FOREVER]])
    assert seen.api.asked == ["list", "list", "watch 20"]
    assert names(seen.store) == ["b"]


def test_a_garbled_line_ends_the_watch_which_goes_on_from_the_last_good_event(run: Start) -> None:
    seen = run([[10, []]], [[("ADDED", widget("a", 12)), b'{"type":"MODI'], [("ADDED", widget("b", 14)), FOREVER]])
    assert seen.api.asked == ["list", "watch 10", "watch 12"]
    assert names(seen.store) == ["a", "b"]


def test_an_event_that_comes_twice_or_late_changes_nothing_and_wakes_nobody(run: Start) -> None:
    new, old = ("MODIFIED", widget("a", 12, size=2)), ("MODIFIED", widget("a", 11, size=1))
    seen = run([[10, []]], [[new, new, old, ("DELETED", widget("a", 9)), FOREVER]])
    assert seen.changed == ["a"]
    assert (seen.store.get(Key("n", "a")) or {})["spec"] == {"size": 2}


def test_a_deleted_object_is_forgotten_and_its_primary_woken(run: Start) -> None:
    seen = run([[10, [widget("a", 1)]]], [[("DELETED", widget("a", 12)), ("DELETED", widget("a", 12)), FOREVER]])
    assert names(seen.store) == []
    assert seen.changed == ["a", "a"]


def test_a_server_that_is_away_is_asked_less_and_less_often_but_at_least_every_twelve_seconds(run: Start) -> None:
    seen = run([Unreachable(0, "Unreachable", "refused")] * 200, [], 600)
    asked = len(seen.api.asked)
    assert 600 / 12 <= asked <= 600 / 8 + 8


def test_a_watch_that_ends_at_once_and_empty_is_not_begun_again_at_once(run: Start) -> None:
    seen = run([[10, []]], [[]] * 1000, 600)
    assert 600 / 12 <= len(seen.api.asked) <= 600 / 8 + 10


def test_a_missing_kind_is_waited_for_unless_it_may_be_missing(run: Start) -> None:
    missing = [NotFound(404, "Not Found", "404 page not found")] * 3
    needed = run([*missing, [10, [widget("a", 1)]]], [[FOREVER]], 25)
    assert needed.api.asked == ["list"] * 3
    assert not needed.store.synced
    later = run([*missing, [10, [widget("a", 1)]]], [[FOREVER]], 35)
    assert (names(later.store), later.store.synced) == (["a"], True)
    optional = run([*missing, [10, [widget("a", 1)]]], [[FOREVER]], 25, optional=True)
    assert optional.api.asked == ["list"] * 3
    assert (optional.store.synced, optional.store.missing) == (True, True)


def test_a_server_whose_data_was_set_back_is_listed_anew(run: Start) -> None:
    error = b'{"type":"ERROR","object":{"code":504,"reason":"Timeout","message":"Too large resource version"}}'
    seen = run([[1000, [widget("a", 999)]], [20, [widget("a", 15, size=7)]]], [[error], [FOREVER]])
    assert seen.api.asked == ["list", "watch 1000", "list", "watch 20"]
    assert (seen.store.get(Key("n", "a")) or {})["spec"] == {"size": 7}
    assert seen.store.seen == 20


def test_an_object_that_is_not_as_its_kind_should_be_is_left_out_and_the_rest_goes_on(
    in_virtual_time: Callable[..., Any],
) -> None:
    api = Api([[10, [{**widget("bad", 1), "spec": None}, widget("good", 2, size=1)]]], [[FOREVER]])
    made = Run(api, optional=False)
    made.store = Store(Watch(KIND, by_name, keep=lambda obj: {**obj, "size": obj["spec"]["size"]}))

    async def work() -> None:
        await made.for_seconds(5)

    in_virtual_time(work())
    assert names(made.store) == ["good"]
