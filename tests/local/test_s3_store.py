"""A store keeps its word on a disk and on S3 alike, also between processes that race and through S3's bad days."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.base.errors import Superseded, Unavailable
from headrace.steps import doctor
from headrace.store import Store, attempt_order, conditional
from headrace.store.filesystems import files_below
from headrace.store.s3 import REPEATS
from headrace_testbed.s3 import S3Store
from headrace_testbed.s3_trouble import Trouble, TroubledStore, environment, new_bucket

KINDS = ("disk", "s3")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text(st.sampled_from("abcXYZ019-_. +=&%äß'()"), min_size=1, max_size=12).filter(
    lambda name: name.strip(". ") == name and "//" not in name
)
ATTEMPTS = st.tuples(st.integers(1, 12), st.integers(1, 12)).map(lambda pair: f"{pair[0]}.{pair[1]}")
SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return store_of(request, tmp_path)


def store_of(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A fresh store of the kind that the test runs with."""
    place = str(tmp_path) if request.param == "disk" else request.getfixturevalue("bucket")
    return Store(f"{place}/some/prefix")


# the contract, on both


@given(name=NAMES, first=JSON, second=JSON)
@SETTINGS
def test_the_newest_value_is_read_whatever_its_name_and_content(
    store: Store, name: str, first: object, second: object
) -> None:
    uri = store.uri("runs", "r", name)
    store.write_json(uri, first)
    assert store.read_json(uri) == first
    assert store.exists(uri)
    store.write_json(uri, second)
    assert store.read_json(uri) == second
    assert store.names(store.uri("runs", "r")).count(name) == 1


@given(values=st.lists(JSON, min_size=2, max_size=4))
@SETTINGS
def test_only_the_first_create_succeeds(store: Store, values: list[object]) -> None:
    uri = store.uri("claims", f"{secrets.token_hex(8)}.json")
    assert [store.create_json(uri, value) for value in values] == [True, *[False] * (len(values) - 1)]
    assert store.read_json(uri) == values[0]


@given(claims=st.lists(ATTEMPTS, min_size=1, max_size=6))
@SETTINGS
def test_claims_in_any_order_leave_the_newest_attempt_the_owner(store: Store, claims: list[str]) -> None:
    run_id, newest = secrets.token_hex(8), ""
    for attempt in claims:
        try:
            store.claim_attempt(run_id, attempt)
            assert not newest or attempt_order(attempt) >= attempt_order(newest)
            newest = attempt
        except Superseded:
            assert attempt_order(attempt) < attempt_order(newest)
        assert store.current_attempt(run_id) == newest


def test_what_is_not_there_is_none_and_no_folder(store: Store) -> None:
    assert store.read_json(store.uri("nothing.json")) is None
    assert not store.exists(store.uri("nothing.json"))
    assert not store.exists(store.uri("no", "folder"))
    assert store.names(store.uri("no", "folder")) == []
    store.remove_folder(store.uri("no", "folder"))
    with pytest.raises(FileNotFoundError):
        store.get_folder(store.uri("no", "folder"), Path("/nowhere"))


def test_a_name_that_begins_like_another_is_another(store: Store) -> None:
    store.write_json(store.uri("runs", "digits-a", "x.json"), 1)
    assert not store.exists(store.uri("runs", "digits"))
    assert not store.exists(store.uri("runs", "digits-a", "x"))
    assert store.names(store.uri("runs", "digits")) == []
    store.remove_folder(store.uri("runs", "digits"))
    assert store.names(store.uri("runs")) == ["digits-a"]


def test_a_folder_comes_back_as_it_was_and_can_be_removed(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    for name, size in (("headrace.json", 2), ("weights", 3 << 20), ("code/deep/net.py", 0), ("ü b.txt", 5)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(size))
    uri = store.put_folder(folder, store.uri("packages", "abc"), marker="headrace.json")
    copy = store.get_folder(uri, tmp_path / "copy")
    assert contents(copy) == contents(folder)
    assert store.names(uri) == ["code", "headrace.json", "weights", "ü b.txt"]
    store.remove_folder(uri)
    assert not store.exists(uri)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_another_process_wrote_is_seen_at_once(store: Store) -> None:
    """No listing and no absence is remembered: what was looked for in vain is there once somebody has written it."""
    uri, folder = store.uri("runs", "r", "late.json"), store.uri("runs", "r")
    store.write_json(store.uri("runs", "r", "early.json"), 1)
    assert store.read_json(uri) is None
    assert not store.exists(uri)
    assert store.names(folder) == ["early.json"]
    elsewhere("store.write_json(store.uri('runs', 'r', 'late.json'), {'by': 'another'})", store)
    assert store.exists(uri)
    assert store.names(folder) == ["early.json", "late.json"]
    elsewhere("store.filesystem.rm_file(store.path(store.uri('runs', 'r', 'late.json')))", store)
    assert not store.exists(uri)
    assert store.names(folder) == ["early.json"]


READY_GO = """
import sys
from headrace.store import Store, conditional
store = Store(sys.argv[1])
store.exists(store.uri("warm"))
print("ready", flush=True)
sys.stdin.readline()
"""
CREATE = """
who = int(sys.argv[2])
names = [store.uri("race", f"{number}.json") for number in range(60)]
print(sum(store.create_json(name, {"by": who}) for name in names))
"""
COUNT = """
path, done = store.path(store.uri("counter")), 0
while done < 25:
    found = conditional.read(store.filesystem, path)
    done += conditional.replace(store.filesystem, path, str(int(found[0]) + 1).encode(), found)
print(done)
"""


def race(store: Store, code: str) -> list[int]:
    """What two processes print that do CODE from the same moment on."""
    command = [sys.executable, "-c", READY_GO + code, store.url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    racers = [subprocess.Popen([*command, str(who)], text=True, **pipes) for who in (1, 2)]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    return [int(racer.communicate(timeout=120)[0]) for racer in racers]


def test_of_two_processes_that_race_for_claims_exactly_one_gets_each(store: Store) -> None:
    won = race(store, CREATE)
    assert sum(won) == 60
    owners = [store.read_json(store.uri("race", f"{number}.json"))["by"] for number in range(60)]
    assert [owners.count(1), owners.count(2)] == won


def test_two_processes_that_count_together_lose_no_count(store: Store) -> None:
    store.write_bytes(store.uri("counter"), b"0")
    assert race(store, COUNT) == [25, 25]
    assert store.read_bytes(store.uri("counter")) == b"50"


def elsewhere(code: str, store: Store) -> None:
    """Do CODE with STORE in another process."""
    whole = f"from headrace.store import Store\nstore = Store({store.url!r})\n{code}"
    subprocess.run([sys.executable, "-c", whole], check=True)


def test_conditions_are_found_to_be_kept(store: Store) -> None:
    assert conditional.proves_conditions(store.filesystem, store.path(store.uri("probe")))
    assert not store.exists(store.uri("probe"))


# S3's own


@pytest.fixture
def trouble(s3_server: S3Store) -> Iterator[tuple[TroubledStore, Store]]:
    """A way to make trouble, and a store that is reached by it."""
    with TroubledStore(s3_server) as way, environment(way.environment):
        yield way, Store(f"{new_bucket(s3_server)}/prefix")


def test_one_value_is_one_request(trouble: tuple[TroubledStore, Store]) -> None:
    way, store = trouble
    asked: dict[str, list[str]] = {}
    acts = {
        "write": lambda: store.write_json(store.uri("a.json"), 1),
        "read": lambda: store.read_json(store.uri("a.json")),
        "exists": lambda: store.exists(store.uri("a.json")),
        "create": lambda: store.create_json(store.uri("b.json"), 1),
        "check": lambda: store.check_attempt("r", "1.1"),
        "claim": lambda: store.claim_attempt("r", "1.1"),
        "names": lambda: store.names(store.uri()),
    }
    for name, act in acts.items():
        way.requests.clear()
        act()
        asked[name] = [method for method, _ in way.requests]
    assert asked == {
        "write": ["PUT"],
        "read": ["GET"],
        "exists": ["HEAD"],
        "create": ["PUT"],
        "check": ["GET"],
        "claim": ["GET", "PUT"],
        "names": ["GET"],
    }


@pytest.mark.parametrize(
    "spoilt",
    [
        Trouble("status", times=3),
        Trouble("status", times=2, status=500, code="InternalError"),
        Trouble("status", times=2, status=503, code="ServiceUnavailable"),
        Trouble("half", times=1, match=lambda method, _: method == "GET"),
        Trouble("lost", times=1, match=lambda method, _: method == "GET"),
    ],
    ids=["throttled", "500", "503", "cut off", "hung up"],
)
def test_a_bad_moment_is_waited_out(trouble: tuple[TroubledStore, Store], spoilt: Trouble) -> None:
    way, store = trouble
    value = {"text": "x" * 5000}
    store.write_json(store.uri("a.json"), value)
    way.make(spoilt)
    assert store.read_json(store.uri("a.json")) == value
    assert spoilt.left == 0


def test_whoever_made_a_claim_knows_it_though_the_answer_was_lost(trouble: tuple[TroubledStore, Store]) -> None:
    way, store = trouble
    lost = way.make(Trouble("lost", match=lambda method, _: method == "PUT"))
    assert store.create_json(store.uri("claim.json"), {"by": "me"})
    assert lost.left == 0
    assert way.count("PUT") > 1  # it was sent again, and refused because of itself
    assert not store.create_json(store.uri("claim.json"), {"by": "me"})


def test_a_conflict_of_two_writers_is_tried_again_after_a_while(
    trouble: tuple[TroubledStore, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    way, store = trouble
    pauses: list[float] = []
    monkeypatch.setattr(conditional, "time", SimpleNamespace(sleep=pauses.append))  # others sleep as they did
    way.make(
        Trouble(
            "status", status=409, code="ConditionalRequestConflict", times=2, match=lambda method, _: method == "PUT"
        )
    )
    assert store.create_json(store.uri("claim.json"), 1)
    assert len(pauses) == 2
    assert 0 < pauses[0] < pauses[1] < 1.0


def test_a_store_that_stays_broken_is_unavailable_with_its_endpoint(
    trouble: tuple[TroubledStore, Store], pauses: list[float]
) -> None:
    way, store = trouble
    way.make(Trouble("status", times=1000, status=500, code="InternalError"))
    with pytest.raises(Unavailable) as error:
        store.read_json(store.uri("a.json"))
    assert error.value.exit_code == 4
    assert way.endpoint in error.value.message
    assert store.url in error.value.message
    assert "InternalError: on purpose" in error.value.message
    assert len(pauses) == REPEATS


def every_act(store: Store, folder: Path) -> dict[str, object]:
    (folder / "headrace.json").write_text("{}")
    return {
        "read": lambda: store.read_json(store.uri("a.json")),
        "exists": lambda: store.exists(store.uri("b.json")),
        "write": lambda: store.write_json(store.uri("c.json"), 1),
        "create": lambda: store.create_json(store.uri("d.json"), 1),
        "claim": lambda: store.claim_attempt("r", "1.1"),
        "names": lambda: store.names(store.uri("runs")),
        "put": lambda: store.put_folder(folder, store.uri("packages", "p"), marker="headrace.json"),
        "get": lambda: store.get_folder(store.uri("packages", "p"), folder),
        "remove": lambda: store.remove_folder(store.uri("packages", "p")),
    }


REFUSALS = {
    "no bucket": ({}, "s3://no-such-bucket-here/x", "there is no bucket no-such-bucket-here at", "store-no-bucket"),
    "another secret": ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, None, "refuses access", "store-refused"),
    "nobody's key": ({"AWS_ACCESS_KEY_ID": "nobody"}, None, "refuses access", "store-refused"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_says_what_to_do_whatever_was_asked(s3_server: S3Store, tmp_path: Path, name: str) -> None:
    variables, url, words, code = REFUSALS[name]
    url = url or f"{new_bucket(s3_server)}/x"
    with environment({**s3_server.environment, **variables}):
        for what, act in every_act(Store(url), tmp_path).items():
            with pytest.raises(Unavailable, match=words) as error:
                act()  # type: ignore[operator]
            assert error.value.code == code, what
            assert s3_server.endpoint in error.value.message
            assert error.value.action


def test_without_credentials_that_is_said(s3_server: S3Store, tmp_path: Path) -> None:
    none = {"AWS_ENDPOINT_URL": s3_server.endpoint, "AWS_EC2_METADATA_DISABLED": "true"}
    files = {name: str(tmp_path / name) for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    store = f"{new_bucket(s3_server)}/x"
    with environment({**none, **files}), pytest.raises(Unavailable, match="there are no credentials") as error:
        Store(store).read_json(f"{store}/a.json")
    assert "AWS_ACCESS_KEY_ID" in error.value.action


def test_an_endpoint_that_is_gone_is_given_up_within_half_a_minute_with_its_address(
    s3_server: S3Store, pauses: list[float]
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and never listens: nobody else gets the port meanwhile
        gone = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with environment({**s3_server.environment, "AWS_ENDPOINT_URL": gone}):
            store = Store("s3://bucket/x")
            with pytest.raises(Unavailable, match=gone) as error:
                store.write_json(store.uri("a.json"), 1)
    assert len(pauses) == REPEATS
    assert all(0 <= pause <= 2**number for number, pause in enumerate(pauses))  # 31 s together, and half on average
    assert error.value.exit_code == 4


def test_a_server_that_comes_back_within_seconds_is_not_missed(trouble: tuple[TroubledStore, Store]) -> None:
    way, store = trouble
    store.write_json(store.uri("a.json"), 1)
    way.make(Trouble("lost", times=2))
    assert store.read_json(store.uri("a.json")) == 1


def test_no_secret_is_told_to_any_log(
    s3_server: S3Store, caplog: pytest.LogCaptureFixture, bucket: str, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = "an-unmistakable-secret"
    with environment({**s3_server.environment, "AWS_SECRET_ACCESS_KEY": secret}):
        for name in ("headrace", "s3fs", "fsspec"):
            caplog.set_level(logging.DEBUG, name)
        store = Store(f"{bucket}/x")
        with pytest.raises(Unavailable) as error:
            store.write_json(store.uri("a.json"), 1)
    told = caplog.text + json.dumps(error.value.to_record()) + repr(store.filesystem) + str(capfd.readouterr())
    assert secret not in told


def test_the_doctor_tries_the_store_and_leaves_nothing_there(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_STORE", f"{bucket}/store")
    (check,) = doctor._store()
    assert (check.state, check.detail.split(" at ")[0]) == ("ok", f"{bucket}/store")
    assert Store(bucket).names(bucket) == []
    monkeypatch.setenv("HEADRACE_STORE", "s3://no-such-bucket/store")
    (check,) = doctor._store()
    assert (check.state, "no bucket no-such-bucket" in check.detail) == ("missing", True)


def test_a_server_that_ignores_conditions_is_found_out(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem = Store(bucket).filesystem
    call = filesystem.call_s3

    def unconditional(method: str, **arguments: object) -> object:
        return call(method, **{name: value for name, value in arguments.items() if not name.startswith("If")})

    monkeypatch.setattr(filesystem, "call_s3", unconditional)
    monkeypatch.setenv("HEADRACE_STORE", f"{bucket}/store")
    (check,) = doctor._store()
    assert (check.state, "ignores If-None-Match" in check.detail) == ("missing", True)


def test_a_large_file_goes_in_parts_and_comes_back_whole(bucket: str, tmp_path: Path) -> None:
    store = Store(f"{bucket}/x")
    folder = tmp_path / "big"
    folder.mkdir()
    (folder / "headrace.json").write_text("{}")
    piece = os.urandom(1 << 20)
    with open(folder / "weights", "wb") as file:
        file.writelines(piece for _ in range(120))
    uri = store.put_folder(folder, store.uri("packages", "big"), marker="headrace.json")
    info = store.filesystem.info(store.path(f"{uri}/weights"))
    assert info["size"] == 120 << 20
    assert "-" in info["ETag"]  # S3's mark of an object that was put together
    copy = store.get_folder(uri, tmp_path / "copy")
    assert (copy / "weights").read_bytes() == (folder / "weights").read_bytes()


def test_a_folder_that_was_cut_off_while_it_was_put_is_not_whole_and_is_put_again(
    trouble: tuple[TroubledStore, Store], tmp_path: Path, pauses: list[float]
) -> None:
    way, store = trouble
    for name in ("headrace.json", "weights", "code.py"):
        (tmp_path / name).write_text(name)
    broken = Trouble(
        "status", times=1000, status=500, code="InternalError", match=lambda m, p: m == "PUT" and "weights" in p
    )
    way.make(broken)
    uri = store.uri("packages", "p")
    with pytest.raises(Unavailable):
        store.put_folder(tmp_path, uri, marker="headrace.json")
    assert not store.exists(f"{uri}/headrace.json")
    broken.times = 0
    store.put_folder(tmp_path, uri, marker="headrace.json")
    assert contents(store.get_folder(uri, Path(tempfile.mkdtemp(dir=tmp_path)))) == {
        name: name.encode() for name in ("headrace.json", "weights", "code.py")
    }


def test_more_objects_than_one_page_are_all_found(s3_server: S3Store, bucket: str) -> None:
    """A page of S3's listing has 1,000. They are laid into the server's folder: to send them would take a minute."""
    name = bucket.removeprefix("s3://")
    for number in range(2500):
        place = s3_server.objects / name / "many" / f"{number % 5}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:05d}.txt").touch()
    store = Store(bucket)
    found = files_below(store.filesystem, store.path(store.uri("many")))
    assert len(found) == 2500
    assert "4/02499.txt" in found
    assert store.names(store.uri("many")) == list("01234")
    store.remove_folder(store.uri("many"))
    assert store.names(store.uri("many")) == []


def test_threads_share_one_store(bucket: str) -> None:
    store = Store(f"{bucket}/x")
    won: list[bool] = []

    def work() -> None:
        won.append(store.create_json(store.uri("claim.json"), {"by": threading.get_ident()}))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won.count(True) == 1
