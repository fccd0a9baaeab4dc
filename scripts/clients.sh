#!/usr/bin/env bash
# Runs the examples of docs/clients.md against a service of their own, and compares what they print with what the page
# says. ROLLCALL_BIN names the binary; the debug build if not set.
#
# In the page, a fenced block with `file=NAME` is a piece of that file, and one with `output=NAME` is what running the
# file prints, with <id>, <token> and <instant> for what differs from run to run; `in any order` says that the lines may
# come in any.
set -euo pipefail
cd "$(dirname "$0")/.."

rollcall=$(realpath "${ROLLCALL_BIN:-target/debug/rollcall}")
[[ -x $rollcall ]] || { echo "there is no rollcall at $rollcall: build it, or name one with ROLLCALL_BIN" >&2; exit 1; }
scripts/install-tools.sh curl jq python3 venv node:nodejs npm

page=$PWD/docs/clients.md
packages=$PWD/tests/clients
work=$PWD/target/clients
mkdir -p "$work"

echo "packages" >&2
if ! cmp --silent "$packages/requirements.txt" "$work/venv/requirements.txt"; then
    rm -rf "$work/venv"
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes \
        --requirement "$packages/requirements.txt"
    cp "$packages/requirements.txt" "$work/venv/"
fi
mkdir -p "$work/typescript"
cp "$packages/package.json" "$packages/package-lock.json" "$packages/tsconfig.json" "$work/typescript/"
if ! cmp --silent "$packages/package-lock.json" "$work/typescript/node_modules/.installed"; then
    (cd "$work/typescript" && npm ci --no-audit --no-fund --loglevel=error)
    cp "$packages/package-lock.json" "$work/typescript/node_modules/.installed"
fi

rm -rf "$work"/{sh,python,expected,data,ready.json} "$work"/typescript/*.ts
mkdir -p "$work"/{sh,python,expected}/ "$work"/expected/{sh,python,typescript}
awk -v work="$work" '
    /^```/ && out { close(out); out = ""; next }
    match($0, /^```.* file=/) { out = work "/" substr($0, RLENGTH + 1); next }
    match($0, /^```.* output=/) {
        out = work "/expected/" substr($0, RLENGTH + 1)
        if (sub(/ in any order$/, "", out)) print > (out ".unordered")
        printf "" > out
        next
    }
    out { print >> out }' "$page"

stop() {
    if [[ -n ${service:-} ]]; then
        kill "$service" 2>/dev/null || true
        wait "$service" 2>/dev/null || true
        service=
    fi
}
trap stop EXIT
trap 'exit 130' INT TERM

# start MODE [VARIABLE=VALUE…]
start() {
    echo "service, auth.mode = $1" >&2
    rm -rf "$work/data" "$work/ready.json"
    env --unset=DATABASE_URL --unset=NATS_URL "${@:2}" "$rollcall" up --http 127.0.0.1:0 \
        --data-dir "$work/data" --ready-file "$work/ready.json" >"$work/service.log" 2>&1 &
    service=$!
    for ((tries = 0; tries < 600; tries++)); do
        [[ -s $work/ready.json ]] && break
        kill -0 "$service" 2>/dev/null || break
        sleep 0.1
    done
    [[ -s $work/ready.json ]] || { tail -n 20 "$work/service.log" >&2; exit 1; }
    ROLLCALL_URL=$(jq --raw-output .http "$work/ready.json")
    # Without the service's own user: a subscriber needs no password.
    NATS_URL=$(jq --raw-output .nats "$work/ready.json" | sed -E 's|//[^@/]*@|//|')
    export ROLLCALL_URL NATS_URL
}

failed=()

# check OUTPUT COMMAND…: runs the command in the output's folder.
check() {
    local name=$1 expected=$work/expected/$1 actual=$work/actual status=0
    (cd "$work/${name%/*}" && "${@:2}") >"$actual" 2>"$work/stderr" || status=$?
    sed -E -i -e 's/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/<id>/g' -e 's/ct1\.[A-Za-z0-9_-]+/<token>/g' \
        -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z/<instant>/g' "$actual"
    if [[ -e $expected.unordered ]]; then
        sort -o "$expected" "$expected"
        sort -o "$actual" "$actual"
    fi
    if ((status == 0)) && diff -u --label "the page" --label "the run" "$expected" "$actual" >&2; then
        echo "  $name" >&2
    else
        cat "$work/stderr" >&2
        echo "  $name FAILED (exit code $status)" >&2
        failed+=("$name")
    fi
}

# as TENANT: who calls from now on. Every language is a tenant of its own, so that each finds what it expects.
as() {
    export ROLLCALL_TENANT=$1 ROLLCALL_ACTOR=docs
    unset ROLLCALL_TOKEN
    if [[ -n ${issuing:-} ]]; then
        ROLLCALL_TOKEN=$("$work/venv/bin/python" tests/clients/issuer.py "$work/issuer" token "$1")
        export ROLLCALL_TOKEN
    fi
}

run_all() {
    rm -f "$work"/python/*.db
    as sh
    for name in write read audit; do check "sh/$name.sh" bash "$name.sh"; done
    if command -v nats >/dev/null; then
        check sh/subscribe.sh bash subscribe.sh
    else
        echo "  sh/subscribe.sh skipped: there is no nats command line here" >&2
    fi
    as python
    for name in write read audit; do check "python/$name.py" "$work/venv/bin/python" "$name.py"; done
    check python/subscribe.py "$work/venv/bin/python" subscribe.py --until-idle
    check python/subscribe.py-again "$work/venv/bin/python" subscribe.py --until-idle
    as typescript
    for name in write read audit; do check "typescript/$name.ts" node_modules/.bin/tsx "$name.ts"; done
    check typescript/subscribe.ts node_modules/.bin/tsx subscribe.ts --until-idle
}

start open
(
    cd "$work/typescript"
    node_modules/.bin/openapi-typescript "$ROLLCALL_URL/openapi.json" --default-non-nullable false \
        --output schema.d.ts >/dev/null
    node_modules/.bin/tsc
) || { echo "  the TypeScript examples do not fit the description" >&2; failed+=("tsc"); }
run_all
stop

"$work/venv/bin/python" tests/clients/issuer.py "$work/issuer" make
start jwt ROLLCALL_AUTH_MODE=jwt ROLLCALL_AUTH_ISSUER=https://login.example.com ROLLCALL_AUTH_AUDIENCE=rollcall \
    ROLLCALL_AUTH_JWKS="$work/issuer/jwks.json"
status=$(curl --silent --output "$work/actual" --write-out '%{http_code}' "$ROLLCALL_URL/api/v1/users")
[[ $status == 401 ]] || { echo "  without a token the service answers $status" >&2; failed+=("auth.mode"); }
issuing=yes
run_all

if ((${#failed[@]} > 0)); then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
echo "every example does what the page says" >&2
