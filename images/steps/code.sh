#!/bin/sh
# Builds our wheel of a checkout and installs it alone, then writes the bill of materials: code.sh NAME OUT SOURCES PARTS
set -eu
name=$1 out=$2 sources=$3 parts=$4
steps=$(dirname "$0")
/tools/bin/uv build -q --wheel --no-build-isolation --python /tools/bin/python --out-dir /wheels "$sources"
/tools/bin/uv pip install -q --python /usr/bin/python3.11 --no-deps --no-index --link-mode copy \
  --target "$out/usr/local/lib/python3.11/dist-packages" /wheels/*.whl
rm -f "$out"/usr/local/lib/python3.11/dist-packages/*.dist-info/uv_cache.json # a time, so that no two builds would be equal
/usr/bin/python3.11 "$steps/settle.py" "$out"
sh "$steps/parts.sh" "$out" "$parts"
mkdir -p "$out/usr/share/headrace"
/tools/bin/python "$steps/sbom.py" "$name" "$parts" "$out/usr/share/headrace/sbom.json"
