"""Serve's HAProxy, kept on loopback. Ray runs this module's wrapper in place of the haproxy binary.

Ray writes HAProxy's configuration from a template with hard-coded wildcard listeners, a world-writable admin socket and
no limits. The wrapper mends the file where it lies, then becomes the real binary: Ray keeps the process it started, its
arguments and its reloads. Standard library only: it starts anew at every change of what is served.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import sys
from pathlib import Path

BINARY_VARIABLE = "HEADRACE_HAPROXY_BINARY"
LIMIT_VARIABLE = "HEADRACE_SERVE_MAX_BODY_BYTES"
DEFAULT_LIMIT_BYTES = 64 * 1024 * 1024  # as FrontSettings has it; a test holds them equal

_SENTENCES = {
    502: "the server ended in the middle of this request; send it again",
    503: "no replica can take this request at present; try again later",
    504: "the server took too long to answer this request",
}
_NO_DEPLOYMENT = "there is no deployment at this path; headrace deployments lists them"


def rewrite(config: str, limit_bytes: int) -> str:
    """CONFIG with every listener on 127.0.0.1, a private admin socket, a body limit and honest errors.

    Idempotent. Raises ValueError where the result still has a listener elsewhere: better no ingress than an open one.
    """
    if "# headrace" in config:
        return config
    text = re.sub(r"(?m)^(\s*bind )(?:\*|0\.0\.0\.0|\[::\])?:(\d+)", r"\g<1>127.0.0.1:\2", config)
    text = re.sub(r"(?m)^(\s*stats socket \S+ )mode \d+", r"\1mode 600", text)
    text = re.sub(r"(?m)^\s*log (?!global)\S+ local0.*\n", "", text)  # to whoever has port 514
    text = re.sub(r"(?m)^\s*errorfile 50[234] .*\n", "", text)  # turned all three into 500
    text = re.sub(r"(?m)^defaults\n", lambda found: found.group(0) + _errors(), text, count=1)
    front = _front(limit_bytes)
    text = re.sub(r"(?m)^(frontend http_frontend\n\s*bind .*\n)", lambda found: found.group(1) + front, text)
    # Before the routes are loaded every path would be a 404, which clients take for "no such model".
    loaded = re.search(r"(?m)^\s*use_backend ", text) is not None
    unknown = _return(404, _NO_DEPLOYMENT) if loaded else f"{_return(503, _SENTENCES[503])} hdr Retry-After 2"
    text = re.sub(r"(?m)^(\s*)http-request return status 404 .*$", lambda found: found.group(1) + unknown, text)
    if strange := re.findall(r"(?m)^\s*bind (?!127\.0\.0\.1:).*$", text):
        raise ValueError(f"HAProxy's configuration has a listener that is not on loopback: {strange[0].strip()}")
    return f"# headrace: rewritten\n{text}"


def _errors() -> str:
    lines = []
    for status, sentence in _SENTENCES.items():
        again = " hdr Retry-After 2" if status == 503 else ""
        lines.append(f"    http-error status {status} content-type application/json {_body(sentence)}{again}\n")
    return "".join(lines)


def _body(sentence: str) -> str:
    return f'string \'{{"error":"{sentence}"}}\''


def _return(status: int, sentence: str) -> str:
    return f"http-request return status {status} content-type application/json {_body(sentence)}"


def _front(limit_bytes: int) -> str:
    sentence = f"the request body is larger than the limit of {limit_bytes} bytes"
    return (
        f"    {_return(413, sentence)} if {{ req.hdr_val(content-length) gt {limit_bytes} }}\n"
        # Serve would start two tasks a request to notice clients that leave; answers here take milliseconds.
        "    http-request set-header x-request-disconnect-disabled ?1\n"
    )


def write_wrapper(folder: Path) -> Path:
    """Write the executable that Ray is given as its haproxy binary; returns its path."""
    script = folder / "haproxy.py"
    script.write_text(_SCRIPT.format(module=str(Path(__file__).resolve())), encoding="utf-8")
    path = folder / "haproxy"  # of sh, for a shebang's length is limited and an environment's path may be long
    words = f"{shlex.quote(sys.executable)} -IS {shlex.quote(str(script))}"
    path.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
    path.chmod(stat.S_IRWXU)
    return path


_SCRIPT = """\
import importlib.util

spec = importlib.util.spec_from_file_location("headrace_haproxy", {module!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.main()
"""


def main() -> None:
    """Rewrite the file that `-f` names, then become the real haproxy."""
    arguments = sys.argv[1:]
    path = Path(arguments[arguments.index("-f") + 1])
    limit = int(os.environ.get(LIMIT_VARIABLE) or DEFAULT_LIMIT_BYTES)
    path.write_text(rewrite(path.read_text(encoding="utf-8"), limit), encoding="utf-8")
    os.umask(0o077)
    binary = os.environ[BINARY_VARIABLE]
    os.execv(binary, [binary, *arguments])  # noqa: S606 no shell is what is wanted
