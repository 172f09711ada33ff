"""The knobs of a front, each with its unit, its effect and the reason for its default.

They are read from the environment of the replica's process when it starts, so that one value holds for all requests of
its life. The Ray head of a laptop passes the caller's `HEADRACE_*` variables on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class FrontSettings:
    """Limits and batching of one replica.

    max_body_bytes (HEADRACE_SERVE_MAX_BODY_BYTES): longest request body, as sent and again after decompression;
        longer ones are answered 413. 64 MiB holds 64 RGB images of 224x224 as FP32 and some.
    max_requests (HEADRACE_SERVE_MAX_REQUESTS): requests inside one replica at once, waiting or being computed; more are
        answered 503 with Retry-After. Higher absorbs longer bursts and lets answers get older: 256 requests wait at
        most 0.2 s at the 1,300 requests/s that one CPU serves of a small model.
    max_held_bytes (HEADRACE_SERVE_MAX_HELD_BYTES): bytes of bodies inside one replica at once, so that many large
        bodies cannot exhaust its memory; beyond it 503. Four of the largest bodies.
    max_batch_rows (HEADRACE_SERVE_MAX_BATCH_ROWS): rows of all requests that are computed together. Higher is more
        throughput under load, and a longer wait behind a full batch; 64 is where CPU throughput of small networks has
        levelled off.
    max_delay_ms (HEADRACE_SERVE_MAX_DELAY_MS): milliseconds that a request may wait for others to join its batch.
        0 waits for none: what arrives while a batch is being computed makes the next one, which costs an idle server
        nothing. A few milliseconds pay only for large networks on a GPU.
    inline_below_ms (HEADRACE_SERVE_INLINE_BELOW_MS): batches expected to take less than this are computed on the event
        loop's own thread, without the two thread switches (0.1 ms, a third of a small model's time); longer ones in a
        thread, so that health checks and reading go on. 0 always uses the thread.
    """

    max_body_bytes: int = 64 * MEBIBYTE
    max_requests: int = 256
    max_held_bytes: int = 256 * MEBIBYTE
    max_batch_rows: int = 64
    max_delay_ms: float = 0.0
    inline_below_ms: float = 3.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> FrontSettings:
        """The defaults, overridden by `HEADRACE_SERVE_<NAME>`. Raises ValueError for what is no number."""
        given: dict[str, float] = {}
        for field in fields(cls):
            variable = f"HEADRACE_SERVE_{field.name.upper()}"
            text = environment.get(variable)
            if text is not None:
                kind = int if isinstance(field.default, int) else float
                try:
                    given[field.name] = kind(text)
                except ValueError:
                    raise ValueError(f"{variable} is {text!r}, which is not a number") from None
        return cls(**given)  # type: ignore[arg-type]
