#!/bin/sh
# PostgreSQL for MLflow: makes the database once, runs it, and lets in whoever /credentials/roles.sql names, also when
# that file changes while it runs, so that a new password needs no restart. Needs PGDATA; works with the official image
# and with Debian's packages, as any user that the image has a name for.
set -eu
PATH="$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1):$PATH"
export PATH
socket=/var/run/postgresql
rm -f /tmp/ready # of a container before this one in the same pod
here=$(postgres --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  rm -rf "$PGDATA.new" # of a start that was cut off
  initdb -D "$PGDATA.new" --username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 --data-checksums
  mv "$PGDATA.new" "$PGDATA"
fi
there=$(cat "$PGDATA/PG_VERSION")
if [ "$there" != "$here" ]; then
  echo "the data is of PostgreSQL $there, this image has $here: restore a backup into an empty volume (docs/operate.md)" >&2
  exit 1
fi

postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories="$socket" -c hba_file=/scripts/pg_hba.conf \
  -c logging_collector=off "$@" &
server=$!
trap 'kill -INT "$server"' TERM INT # a fast shutdown: open transactions are rolled back, nothing is lost

let_in() { psql -q -X -v ON_ERROR_STOP=1 -h "$socket" -U postgres -d postgres -f /credentials/roles.sql; }

known=""
while kill -0 "$server" 2>/dev/null; do
  now=$(cksum </credentials/roles.sql)
  if [ "$now" != "$known" ] && pg_isready -q -h "$socket" -U postgres; then
    if let_in; then known=$now; fi
  fi
  if [ -n "$known" ]; then touch /tmp/ready; sleep 5 & else sleep 0.3 & fi
  wait $! || true # a signal ends the wait at once
done
wait "$server"
