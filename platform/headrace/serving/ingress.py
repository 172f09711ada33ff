"""How Ray Serve is told to pass requests on: the variables of the head's and the workers' environment, on a laptop and
in pods alike. Measured in DESIGN §7: 7 ms a request without them, 1.1 with."""

from __future__ import annotations

TUNING = {
    # One hop instead of three: HAProxy gives a request to a replica's own HTTP server.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
    # What Serve's throughput mode sets. No request writes a line, so lines are written as they come: in a buffer the
    # traceback of a failed request would wait for a thousand others.
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",  # a datagram a request to a Python process; the fronts measure themselves
    # A killed ingress or replica is missed within seconds.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "2",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "30",
}
