#!/bin/sh
# Sets apart what says which packages a layer holds, for the bill of materials: parts.sh OUT PARTS
set -eu
out=$1 parts=$2
mkdir -p "$parts/debian" "$parts/python"
[ ! -d "$out/var/lib/dpkg/status.d" ] || cp "$out"/var/lib/dpkg/status.d/* "$parts/debian/"
[ ! -d "$out/usr/local/lib/python3.11/dist-packages" ] || {
  cd "$out/usr/local/lib/python3.11/dist-packages"
  cp --parents ./*.dist-info/METADATA "$parts/python/"
}
