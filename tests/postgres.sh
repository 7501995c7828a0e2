#!/bin/sh
# A throw-away PostgreSQL server for the tests, on a free port and in a temporary folder.
#
#   tests/postgres.sh run COMMAND…   start one, run the command with COUNTERSIGN_TEST_POSTGRES set, stop it
#   tests/postgres.sh start FOLDER   start one that keeps its files in FOLDER (made here), print its URL
#   tests/postgres.sh stop FOLDER    stop it and remove FOLDER
#
# Durability stays on (fsync), so that the tests meet the waits of production.
set -eu

find_binaries() {
    for folder in $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | sort -rV) ""; do
        if [ -x "${folder:-$(dirname "$(command -v initdb || echo /nonexistent/initdb)")}/initdb" ]; then
            echo "${folder:-$(dirname "$(command -v initdb)")}"
            return
        fi
    done
}

# The server refuses to run as root.
as_server() {
    if [ "$(id -u)" -eq 0 ]; then
        setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups -- "$@"
    else
        "$@"
    fi
}

# Below the kernel's range of ephemeral ports. Another process may take the port first; then the caller tries again.
free_port() {
    port=$((20000 + ($$ + 100 * $1) % 12000))
    while grep -qi ":$(printf %04X "$port") " /proc/net/tcp 2>/dev/null; do
        port=$((port + 1))
    done
    echo "$port"
}

start() {
    folder=$1
    binaries=$(find_binaries)
    if [ -z "$binaries" ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql >&2
        binaries=$(find_binaries)
    fi
    if [ -z "$binaries" ]; then
        echo "tests/postgres.sh: PostgreSQL is not installed" >&2
        exit 1
    fi
    mkdir -p "$folder"
    if [ "$(id -u)" -eq 0 ]; then
        chown postgres "$folder"
    fi
    cd "$folder"
    as_server "$binaries/initdb" -D "$folder/data" -U postgres --auth=trust -E UTF8 --locale=C.UTF-8 >"$folder.log" 2>&1 ||
        { cat "$folder.log" >&2; exit 1; }
    # Members of this role log in with a password, all others without.
    sed -i '1i host all +with_password 127.0.0.1/32 scram-sha-256' "$folder/data/pg_hba.conf"
    attempt=1
    port=$(free_port $attempt)
    until as_server "$binaries/pg_ctl" -D "$folder/data" -l "$folder/server.log" -w -t 30 \
        -o "-p $port -k $folder -c listen_addresses=127.0.0.1 -c max_connections=300 -c log_min_messages=fatal" \
        start >>"$folder.log" 2>&1; do
        if [ "$attempt" -ge 5 ] || ! grep -q 'could not create any TCP/IP sockets' "$folder/server.log"; then
            cat "$folder.log" "$folder/server.log" >&2
            exit 1
        fi
        attempt=$((attempt + 1))
        port=$(free_port $attempt)
    done
    rm -f "$folder.log"
    echo "postgres://postgres@127.0.0.1:$port/postgres"
}

stop() {
    folder=$1
    binaries=$(find_binaries)
    if [ -f "$folder/data/postmaster.pid" ]; then
        (cd "$folder" && as_server "$binaries/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1) || true
    fi
    rm -rf "$folder"
}

case "${1:-}" in
start | stop)
    "$1" "$2"
    ;;
run)
    shift
    folder=$(mktemp -d /tmp/countersign-postgres.XXXXXX)
    trap 'stop "$folder"' EXIT
    trap 'exit 130' INT TERM
    COUNTERSIGN_TEST_POSTGRES=$(start "$folder")
    export COUNTERSIGN_TEST_POSTGRES
    "$@"
    ;;
*)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
