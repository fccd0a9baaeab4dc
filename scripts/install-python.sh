#!/usr/bin/env bash
# Installs what is missing of what the fuzzer runs on: Python with its venv module. Says nothing and changes nothing where
# all of it is there.
set -euo pipefail

# Debian has the module venv without what it needs to make an environment with pip.
has_venv() {
    python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

has_venv && exit 0

by_hand() {
    {
        echo "$1. Missing: Python 3.10 or newer with the module venv. On Debian, as root:"
        echo "    apt-get update && apt-get install --no-install-recommends python3 python3-venv"
        echo "Then run this again."
    } >&2
    exit 1
}

command -v apt-get >/dev/null || by_hand "There is no apt-get here"
if ((EUID == 0)); then
    as_root() { "$@"; }
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || { [[ -t 0 ]] && sudo -v; }; }; then
    as_root() { sudo "$@"; }
else
    by_hand "This needs root, and sudo does not give it"
fi

echo "installing: python3 python3-venv" >&2
as_root apt-get update --quiet >&2 || echo "apt-get update failed; trying with the lists that are there" >&2
as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends \
    -o DPkg::Lock::Timeout=120 python3 python3-venv >&2 || by_hand "apt-get could not install it"
has_venv || by_hand "The python3 that is found first is too old or has no venv"
