//! `rollcall`: one binary, a subcommand for each role.

mod config;
mod http;
mod master_key;
mod up;

use std::io::IsTerminal;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Commands come and go by the ten thousand a second, each with dozens of small values.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An event-sourced user service: every change to a user is an immutable event.
#[derive(Parser)]
#[command(
    version,
    after_help = "ROLLCALL_LOG says what is logged to stderr: info, debug, rollcall_projections=debug,info, …"
)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Run everything in one process: both APIs, the projectors and the publisher, with a PostgreSQL and a nats-server of
    /// its own where none are named.
    Up(up::Options),
}

fn main() -> std::process::ExitCode {
    let Arguments { role } = Arguments::parse();
    let filter =
        EnvFilter::try_from_env("ROLLCALL_LOG").unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn"));
    let terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(terminal).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let outcome = match role {
        Role::Up(options) => runtime.block_on(up::run(options)),
    };
    // What may still run (a connection that was not drained in time) is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// One clear line.
fn fail(error: &anyhow::Error) -> std::process::ExitCode {
    eprintln!("rollcall: {error:#}");
    std::process::ExitCode::FAILURE
}
