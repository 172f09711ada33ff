"""Where the workers of a training meet, as `backend` (which knows Ray and not torch) tells `group` (the reverse)."""

RENDEZVOUS = "HEADRACE_RENDEZVOUS"  # "file:PATH" or "tcp:HOST:PORT", in each worker's environment
