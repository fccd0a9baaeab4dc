#!/usr/bin/env bash
# Makes the secrets that compose.yaml names, each once: what is there is kept. Nobody but you can enter the folder. The
# files in it must be readable by the containers' users, which see them one by one: root gives Rollcall's to its user
# alone, anybody else leaves them readable behind the closed folder.
set -euo pipefail
umask 022
directory=$(dirname "$0")/secrets
mkdir -p "$directory"
chmod 700 "$directory"
cd "$directory"

random() {
    openssl rand -hex "$1"
}

# keep FILE: what comes in, unless the file is there. Whole or not at all.
keep() {
    if [[ -e $1 ]]; then
        cat >/dev/null
    else
        cat >"$1.new"
        mv "$1.new" "$1"
        echo "made $directory/$1"
    fi
}

random 32 | keep master.key
random 24 | keep postgres.password
echo "postgres://rollcall_owner:$(<postgres.password)@postgres:5432/rollcall" | keep owner.url
random 24 | keep publisher.password
random 24 | keep subscriber.password
echo "nats://publisher:$(<publisher.password)@nats:4222" | keep publisher.url
printf 'PUBLISHER_PASSWORD: "%s"\nSUBSCRIBER_PASSWORD: "%s"\n' "$(<publisher.password)" "$(<subscriber.password)" |
    keep nats-accounts.conf
random 16 | keep grafana.password

if ((EUID == 0)); then
    chown 65532:65532 master.key owner.url publisher.url
    chmod 400 master.key owner.url publisher.url
fi

[[ -e jwks.json ]] || echo "still missing: $directory/jwks.json, the public keys of who makes your tokens (RFC 7517)"
echo "back up $directory/master.key apart from the database: without it nothing personal can be read"
