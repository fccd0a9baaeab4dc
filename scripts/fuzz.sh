#!/usr/bin/env bash
# Holds the running service against its own description, with schemathesis, and the parsers against arbitrary input, with
# proptest.
#
#   scripts/fuzz.sh          tens of thousands of requests, other ones every time
#   scripts/fuzz.sh quick    thousands of requests, a minute or two, the same ones every time
#
# FUZZ_SEED repeats a run. FUZZ_EXAMPLES (requests that are made up for each operation) and PROPTEST_CASES make it longer.
set -euo pipefail
cd "$(dirname "$0")/.."

quick=false
[[ ${1:-} == quick ]] && quick=true

work=$(mktemp -d "${TMPDIR:-/tmp}/rollcall-fuzz.XXXXXX")
service=
# shellcheck disable=SC2317 # the trap calls it
clean_up() {
    if [[ -n $service ]]; then
        kill "$service" 2>/dev/null || true
        wait "$service" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# What is installed changes with the list of versions alone.
venv=target/fuzz-venv
if ! cmp --silent scripts/fuzz/requirements.txt "$venv/requirements.txt"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r scripts/fuzz/requirements.txt
    cp scripts/fuzz/requirements.txt "$venv/requirements.txt"
fi

if $quick; then
    seed=${FUZZ_SEED:-1} examples=${FUZZ_EXAMPLES:-25}
else
    seed=${FUZZ_SEED:-$RANDOM$RANDOM} examples=${FUZZ_EXAMPLES:-500}
    export PROPTEST_CASES=${PROPTEST_CASES:-20000}
    echo "parsers: $PROPTEST_CASES cases of each law"
    # Laws about arbitrary input are named any_…
    cargo test --workspace --lib -- any_
fi

# The debug build: it stops at an overflow and at what it asserts.
cargo build --quiet
# PostgreSQL runs as another user where this is root, and must reach its data.
chmod 755 "$work"
target/debug/rollcall up --data-dir "$work/data" --http 127.0.0.1:0 --ready-file "$work/ready" \
    >"$work/out" 2>"$work/log" &
service=$!
for _ in {1..600}; do
    [[ -s $work/ready ]] && break
    kill -0 "$service" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done
url=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["http"])' "$work/ready")

echo "service: seed $seed, $examples examples for each operation"
status=0
(
    cd scripts/fuzz
    export PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=$work/hypothesis
    "../../$venv/bin/schemathesis" --config-file schemathesis.toml run "$url/openapi.json" \
        --seed "$seed" --max-examples "$examples" --phases examples,coverage,fuzzing,stateful --warnings off
) || status=$?

kill -0 "$service" 2>/dev/null || { echo "the service died" >&2; status=1; }
if grep -E 'panicked|ERROR' "$work/log" >&2; then
    echo "the service logged the errors above" >&2
    status=1
fi
exit "$status"
