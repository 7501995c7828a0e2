# Installs the tools of the suites by name. Sourced after `cd` to the repository; sets `tools`, the folder for what is not Debian's,
# and `CS_BIN`, the service to test.
# shellcheck shell=sh

tools=${CS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/countersign-tests}
mkdir -p "$tools"

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# install_missing PACKAGE …: those that are not there. Nothing that is installed for a test may start by itself.
install_missing() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    echo "installing:$missing"
    policy=/usr/sbin/policy-rc.d ours=
    if [ ! -e $policy ]; then
        ours=yes
        printf '#!/bin/sh\nexit 101\n' | as_root install -m 755 /dev/stdin $policy
    fi
    status=0
    as_root apt-get update -qq || true
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null || status=$?
    [ -z "$ours" ] || as_root rm -f $policy
    return $status
}

# python_tools FOLDER REQUIREMENTS: a virtual environment with exactly what the file names.
python_tools() {
    cmp -s "$2" "$1/installed.txt" && return 0
    rm -rf "$1"
    python3 -m venv "$1"
    "$1/bin/pip" install --quiet --disable-pip-version-check -r "$2"
    cp "$2" "$1/installed.txt"
}

if [ -z "${CS_BIN:-}" ]; then
    CS_BIN=${CARGO_TARGET_DIR:-$PWD/target}/debug/countersign
    [ -x "$CS_BIN" ] || cargo build --locked
fi
export CS_BIN
export PYTHONDONTWRITEBYTECODE=1
