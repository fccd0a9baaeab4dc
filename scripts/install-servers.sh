#!/usr/bin/env bash
# Installs what is missing of what Rollcall is built with and runs on: PostgreSQL's server binaries, nats-server, a
# linker. Says nothing and changes nothing where all of it is there.
#
# Only the binaries are wanted: no cluster is created on port 5432, and no service is started.
set -euo pipefail

oldest_postgresql=15
createcluster_conf=/etc/postgresql-common/createcluster.conf
policy=/usr/sbin/policy-rc.d

# On a user's PATH the directories for servers may be missing.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

has_postgresql() {
    local directory version
    for directory in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin "$(pg_config --bindir 2>/dev/null || true)" ${PATH//:/ }; do
        [[ -x $directory/postgres && -x $directory/initdb ]] || continue
        version=$("$directory/postgres" --version 2>/dev/null | sed -E 's/^.*\(PostgreSQL\) ([0-9]+).*$/\1/') || continue
        [[ $version =~ ^[0-9]+$ ]] && ((version >= oldest_postgresql)) && return 0
    done
    return 1
}

packages=()
has_postgresql || packages+=(postgresql)
command -v nats-server >/dev/null || packages+=(nats-server)
command -v cc >/dev/null || packages+=(build-essential)

if ((${#packages[@]} > 0)); then
    wants_postgresql=false
    [[ " ${packages[*]} " == *" postgresql "* ]] && wants_postgresql=true

    by_hand() {
        {
            echo "$1. Missing: ${packages[*]}. On Debian, as root:"
            if $wants_postgresql; then
                echo "    mkdir -p ${createcluster_conf%/*}"
                echo "    echo 'create_main_cluster = false' >> $createcluster_conf"
            fi
            echo "    apt-get update && apt-get install --no-install-recommends ${packages[*]}"
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

    echo "installing: ${packages[*]}" >&2

    # PostgreSQL's package reads this file when it is configured; it keeps one that is already there.
    if $wants_postgresql && ! grep -Eqs '^[[:space:]]*create_main_cluster[[:space:]]*=' "$createcluster_conf"; then
        as_root mkdir -p "${createcluster_conf%/*}"
        echo 'create_main_cluster = false' | as_root tee -a "$createcluster_conf" >/dev/null
    fi

    # Debian's packages ask this program before they start a service. One that is already there has its reasons.
    if [[ ! -e $policy && ! -L $policy ]]; then
        trap 'as_root rm -f "$policy"' EXIT
        trap 'exit 130' INT TERM
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi

    install_packages() {
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends \
            -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=120 \
            "${packages[@]}" >&2
    }
    as_root apt-get update --quiet >&2 || echo "apt-get update failed; trying with the lists that are there" >&2
    install_packages || by_hand "apt-get could not install everything"

    # Nor at the next boot: Debian enables what it installs. PostgreSQL's service has no cluster to start.
    if [[ " ${packages[*]} " == *" nats-server "* ]] && command -v systemctl >/dev/null; then
        as_root systemctl disable --quiet nats-server.service >&2 || true
    fi

    has_postgresql || by_hand "The postgresql that apt-get installs here is older than $oldest_postgresql"
fi

if ! command -v cargo >/dev/null && [[ ! -x ${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo ]]; then
    echo "cargo is missing: install Rust from https://rustup.rs and run this again" >&2
    exit 1
fi
