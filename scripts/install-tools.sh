#!/usr/bin/env bash
# Installs with apt what is missing of the programs that checks and examples need: install-tools.sh PROGRAM[:PACKAGE]…
# The program `venv` stands for Python's modules. Says nothing and changes nothing where all of it is there.
set -euo pipefail

# On a user's PATH the directories for servers may be missing.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

has() {
    case $1 in
        venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

packages=()
for tool in "$@"; do
    program=${tool%%:*}
    case $program in
        venv) package=python3-venv ;;
        *) package=${tool#*:} ;;
    esac
    has "$program" || packages+=("$package")
done
((${#packages[@]} > 0)) || exit 0

by_hand() {
    echo "$1. Install these and run this again: ${packages[*]}" >&2
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

echo "installing: ${packages[*]}" >&2
# Programs are wanted, not services: Debian's packages ask this program before they start one.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy && ! -L $policy ]]; then
    trap 'as_root rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
fi
as_root apt-get update --quiet >&2 || echo "apt-get update failed; trying with the lists that are there" >&2
as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=120 \
    "${packages[@]}" >&2 || by_hand "apt-get could not install everything"
