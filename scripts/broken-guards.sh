#!/usr/bin/env bash
# Breaks one guard at a time on purpose, and expects the short fault run to find it. What is built lies in target/broken-guards,
# the dependencies once for all guards: only the workspace's own crates see the cfg.
set -euo pipefail
cd "$(dirname "$0")/.."

target=target/broken-guards
wrapper=$target/rustc
run=connections_that_break_at_any_statement_cost_nothing

# expect GUARD WORDS: the run fails, and says why in words that fit.
expect() {
    local guard=$1 words=$2 said=$target/$1.log
    mkdir -p "$wrapper"
    # A wrapper for each guard: cargo tells builds apart by its path.
    printf '#!/bin/sh\nexec "$@" --cfg '\''rollcall_break="%s"'\''\n' "$guard" >"$wrapper/$guard"
    chmod +x "$wrapper/$guard"
    export RUSTC_WORKSPACE_WRAPPER=$PWD/$wrapper/$guard
    cargo test --workspace --test soak --target-dir "$target" --no-run
    if cargo test --workspace --test soak --target-dir "$target" -- "$run" >"$said" 2>&1; then
        echo "the fault run passes although a guard is broken: $guard" >&2
        return 1
    fi
    if ! grep -Eq "$words" "$said"; then
        echo "the fault run fails for another reason than the broken guard: $guard ($said)" >&2
        tail -n 40 "$said" >&2
        return 1
    fi
    echo "caught: $guard: $(grep -Em1 -o "$words" "$said")"
}

expect contiguity 'partition [0-9]+ has a hole'
expect lost-answers 'a command that was refused happened'
expect checkpoint 'a read with a token does not see what it names|the audit does not list once|stuck: .*'
