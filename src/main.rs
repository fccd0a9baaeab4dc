//! `rollcall`: one binary, a subcommand for each role.

mod config;
mod http;
mod master_key;
mod telemetry;
mod up;

use anyhow::Context;
use clap::{Parser, Subcommand};

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
    let telemetry = match telemetry_of_environment() {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let outcome = match role {
        Role::Up(options) => runtime.block_on(up::run(options)),
    };
    // What may still run (a connection that was not drained in time) is not waited for.
    runtime.shutdown_background();
    telemetry.flush();
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn telemetry_of_environment() -> anyhow::Result<telemetry::Guard> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let ratio = variable("ROLLCALL_TELEMETRY_SAMPLE_RATIO").map_or(Ok(1.0), |text| text.parse());
    telemetry::init(&telemetry::Settings {
        filter: variable("ROLLCALL_LOG").as_deref().unwrap_or("info,async_nats=warn"),
        format: variable("ROLLCALL_LOG_FORMAT").as_deref().unwrap_or("auto").parse()?,
        otlp_endpoint: variable("ROLLCALL_TELEMETRY_OTLP_ENDPOINT").as_deref(),
        service_name: variable("ROLLCALL_TELEMETRY_SERVICE_NAME").as_deref().unwrap_or("rollcall"),
        sample_ratio: ratio.context("telemetry.sample_ratio must be between 0 and 1")?,
    })
}

/// One clear line.
fn fail(error: &anyhow::Error) -> std::process::ExitCode {
    eprintln!("rollcall: {error:#}");
    std::process::ExitCode::FAILURE
}
