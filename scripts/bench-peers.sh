#!/usr/bin/env bash
# Measures Rollcall beside what a user could pick instead, on one private PostgreSQL cluster: Directus (create, read,
# update, revert over HTTP) and the Python library eventsourcing (create, read, update in-process).
#
# BENCH_SECONDS is how long each load takes (5 if not set); BENCH_OUT.md and BENCH_OUT.json are written
# (target/bench-peers/results if not set). ROLLCALL_BIN names the binary; the release build if not set. Where Directus
# cannot be installed or does not start, the table says so and has the others.
set -euo pipefail
cd "$(dirname "$0")/.."

rollcall=$(realpath "${ROLLCALL_BIN:-target/release/rollcall}")
[[ -x $rollcall ]] || { echo "there is no rollcall at $rollcall: build it, or name one with ROLLCALL_BIN" >&2; exit 1; }
scripts/install-tools.sh curl jq python3 venv node:nodejs npm make g++

sources=$PWD/benches/peers
installed=$PWD/target/bench-peers
mkdir -p "$installed"
BENCH_SECONDS=${BENCH_SECONDS:-5}
BENCH_OUT=$(realpath --canonicalize-missing "${BENCH_OUT:-$installed/results}")
mkdir -p "${BENCH_OUT%/*}"

work=$(mktemp -d "${TMPDIR:-/tmp}/rollcall-peers.XXXXXX")
# PostgreSQL runs as another user where this is root, and must reach its data.
chmod 711 "$work"
started=()
# shellcheck disable=SC2317 # the trap calls it
clean_up() {
    # In the opposite order: what uses PostgreSQL ends before it.
    local place
    for ((place = ${#started[@]} - 1; place >= 0; place--)); do
        kill "${started[place]}" 2>/dev/null || true
        wait "${started[place]}" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# What is installed changes with the lists of versions alone.
venv=$installed/venv
if ! cmp --silent "$sources/requirements.txt" "$venv/requirements.txt"; then
    echo "packages: eventsourcing" >&2
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes \
        --requirement "$sources/requirements.txt"
    cp "$sources/requirements.txt" "$venv/"
fi

# Directus wants a newer Node than Debian has; one comes as a package like the others. No package runs a script of its
# own: those would look for prebuilt binaries elsewhere. The one that has to be built is built here.
node_modules=$installed/node_modules
install_directus() {
    cmp --silent "$sources/package-lock.json" "$node_modules/.installed" && return
    echo "packages: Directus" >&2
    cp "$sources/package.json" "$sources/package-lock.json" "$installed/" &&
        (cd "$installed" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2) || return
    local node_home
    node_home=$(echo "$node_modules"/node-linux-*)
    (
        cd "$node_modules/isolated-vm"
        PATH=$node_home/bin:$PATH node "$node_modules/node-gyp/bin/node-gyp.js" rebuild --release --loglevel=error \
            --nodedir="$node_home" >"$work/build" 2>&1 || { tail -n 20 "$work/build" >&2; exit 1; }
    ) && cp "$sources/package-lock.json" "$node_modules/.installed"
}
absent=
install_directus || absent="it could not be installed"
node=$(compgen -G "$node_modules/node-linux-*/bin/node" || command -v node)

# wait_for PID LOG SECONDS COMMAND…: until the command succeeds.
wait_for() {
    local pid=$1 log=$2 tries
    for ((tries = $3 * 10; tries > 0; tries--)); do
        "${@:4}" && return
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$log" >&2
    return 1
}

echo "service" >&2
env --unset=DATABASE_URL --unset=NATS_URL --unset=ROLLCALL_MASTER_KEY_FILE "$rollcall" up --http 127.0.0.1:0 \
    --data-dir "$work/data" --ready-file "$work/ready.json" >"$work/rollcall.log" 2>&1 &
started+=($!)
wait_for $! "$work/rollcall.log" 60 test -s "$work/ready.json"
ROLLCALL_URL=$(jq --raw-output .http "$work/ready.json")
postgres=$(jq --raw-output .postgres "$work/ready.json")

# Databases of their own in the same cluster, which ends with the service.
"$venv/bin/python" - "$postgres" >"$work/postgres.json" <<'PYTHON'
import json, sys
import psycopg

with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    for database in ("bench_directus", "bench_eventsourcing"):
        connection.execute(f"CREATE DATABASE {database}")
    info = connection.info
    version = info.parameter_status("server_version").split()[0]
    print(json.dumps({"host": info.host, "port": info.port, "user": info.user, "password": info.password, "version": version}))
PYTHON
of_postgres() { jq --raw-output ".$1" "$work/postgres.json"; }

if [[ -z $absent ]]; then
    echo "Directus" >&2
    mkdir -p "$work/directus"/{extensions,uploads,temporary}
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    DIRECTUS_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
    # Nothing of this environment changes what is measured, and nothing is sent anywhere. Its command line would ask for
    # news first; what that calls does not.
    in_directus() {
        cd "$work/directus" && exec env --ignore-environment PATH="$PATH" HOME="$work/directus" NODE_ENV=production \
            HOST=127.0.0.1 PORT="$port" PUBLIC_URL="http://127.0.0.1:$port" SERVE_APP=false \
            DB_CLIENT=pg DB_CONNECTION_STRING="${postgres%/*}/bench_directus" \
            SECRET="$DIRECTUS_TOKEN" ADMIN_EMAIL=admin@example.com ADMIN_PASSWORD="$DIRECTUS_TOKEN" \
            ADMIN_TOKEN="$DIRECTUS_TOKEN" TELEMETRY=false PROJECT_OWNER_ENABLED=false LOG_LEVEL=error \
            CACHE_ENABLED=false RATE_LIMITER_ENABLED=false PRESSURE_LIMITER_ENABLED=false \
            EXTENSIONS_PATH="$work/directus/extensions" STORAGE_LOCAL_ROOT="$work/directus/uploads" \
            TEMP_PATH="$work/directus/temporary" "$node" "$node_modules/@directus/api/dist/cli/run.js" "$@"
    }
    if (in_directus bootstrap) >"$work/directus.log" 2>&1; then
        (in_directus start) >>"$work/directus.log" 2>&1 &
        started+=($!)
        wait_for $! "$work/directus.log" 60 curl --silent --fail --output "$work/ping" \
            "http://127.0.0.1:$port/server/ping" || absent="it did not start"
    else
        tail -n 20 "$work/directus.log" >&2
        absent="its database could not be prepared"
    fi
    DIRECTUS_URL=http://127.0.0.1:$port
fi
if [[ -n $absent ]]; then
    echo "Directus is skipped: $absent" >&2
    DIRECTUS_URL='' DIRECTUS_TOKEN=''
fi

BENCH_VERSIONS=$(jq --null-input --compact-output \
    --arg rollcall "$("$rollcall" --version | sed 's/^[^ ]* //')" \
    --arg directus "$(jq --raw-output .dependencies.directus "$sources/package.json")" \
    --arg eventsourcing "$("$venv/bin/python" -c 'from importlib.metadata import version; print(version("eventsourcing"))')" \
    --arg python "$("$venv/bin/python" -c 'import platform; print(platform.python_version())')" \
    --arg node "$("$node" --version | tr -d v)" \
    --arg postgresql "$(of_postgres version)" \
    '$ARGS.named')

# What the preparation wrote is not written out within the first load.
"$venv/bin/python" -c 'import sys, psycopg; psycopg.connect(sys.argv[1], autocommit=True).execute("CHECKPOINT")' "$postgres"

echo "loads of $BENCH_SECONDS s" >&2
POSTGRES_HOST=$(of_postgres host) POSTGRES_PORT=$(of_postgres port) POSTGRES_USER=$(of_postgres user)
POSTGRES_PASSWORD=$(of_postgres password) POSTGRES_DBNAME=bench_eventsourcing
EVENTSOURCING_PYTHON=$venv/bin/python DIRECTUS_ABSENT=$absent PYTHONDONTWRITEBYTECODE=1
export POSTGRES_HOST POSTGRES_PORT POSTGRES_USER POSTGRES_PASSWORD POSTGRES_DBNAME
export BENCH_SECONDS BENCH_OUT BENCH_VERSIONS ROLLCALL_URL DIRECTUS_URL DIRECTUS_TOKEN DIRECTUS_ABSENT
export EVENTSOURCING_PYTHON PYTHONDONTWRITEBYTECODE
# In the background, so that a signal to this script ends it at once.
"$node" "$sources/main.mjs" &
started+=($!)
status=0
wait $! || status=$?
unset 'started[-1]'
exit "$status"
