#!/usr/bin/env bash
# Breaks one guard at a time on purpose, and expects a directed run to find it. What is built lies in target/broken-guards,
# the dependencies once for all guards: only the workspace's own crates see the cfg.
set -euo pipefail
cd "$(dirname "$0")/.."

target=target/broken-guards
wrapper=$target/rustc

# A run is random: where its load never met what is broken, another one is taken.
runs_max=3

# expect GUARD PROGRAM TEST WORDS: the test fails, and says why in words that fit.
expect() {
    local guard=$1 program=$2 run=$3 words=$4 said=$target/$1.log
    mkdir -p "$wrapper"
    # A wrapper for each guard: cargo tells builds apart by its path.
    printf '#!/bin/sh\nexec "$@" --cfg '\''rollcall_break="%s"'\''\n' "$guard" >"$wrapper/$guard"
    chmod +x "$wrapper/$guard"
    export RUSTC_WORKSPACE_WRAPPER=$PWD/$wrapper/$guard
    cargo test --workspace --test "$program" --target-dir "$target" --no-run
    local runs=1
    while cargo test --workspace --test "$program" --target-dir "$target" -- "$run" >"$said" 2>&1; do
        if [ "$runs" = "$runs_max" ]; then
            echo "$run passes $runs_max times although a guard is broken: $guard" >&2
            return 1
        fi
        runs=$((runs + 1))
    done
    if ! grep -Eq "$words" "$said"; then
        echo "$run fails for another reason than the broken guard: $guard ($said)" >&2
        tail -n 40 "$said" >&2
        return 1
    fi
    echo "caught: $guard: $(grep -Em1 -o "$words" "$said")"
}

faults=connections_that_break_at_any_statement_cost_nothing
expect contiguity soak $faults 'partition [0-9]+ has a hole'
expect lost-answers soak $faults 'a command that was refused happened'
expect checkpoint soak $faults 'a read with a token does not see what it names|the audit does not list once|stuck: .*'
expect fencing projections epochs_move_nothing_any_more 'partition [0-9]+, epoch [0-9]+'
