#!/bin/sh
# Readies the machine that builds: Debian's Python and the locked tools of tools.lock. Nothing of it is in an image.
set -eu
apt-get -qq update
apt-get -qq install -y --no-install-recommends ca-certificates python3.11 python3.11-venv >/dev/null
python3.11 -m venv /tools
/tools/bin/pip install -q --disable-pip-version-check --no-cache-dir --require-hashes -r "$1"
