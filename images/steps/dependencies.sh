#!/bin/sh
# Installs a lock's packages, by hash, for Debian's Python: dependencies.sh OUT LOCK [NEEDLESS]
# NEEDLESS: patterns below dist-packages of what is left out of the image, one a line.
# What comes as sources only is built by tools of /tools.lock, by hash as well; there is no compiler.
set -eu
out=$1 lock=$2
shift 2
export UV_HTTP_TIMEOUT=300 UV_LINK_MODE=copy
/tools/bin/uv pip install -q --python /usr/bin/python3.11 --no-deps --require-hashes --build-constraint /tools.lock \
  --target "$out/usr/local/lib/python3.11/dist-packages" -r "$lock"
/usr/bin/python3.11 "$(dirname "$0")/settle.py" "$out" "$@"
