//! `rollcall`: one binary, a subcommand for each role.

mod adopt_restored;
mod audit_projections;
mod config;
mod doctor;
mod healthcheck;
mod http;
mod master_key;
mod migrate;
mod nats;
mod parked;
mod process;
mod ready;
mod rebuild;
mod serve;
mod service;
mod status;
mod telemetry;
mod text;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use config::{Config, DEFAULTS, Flags, Settings};
use service::Projects;

/// Commands come and go by the ten thousand a second, each with dozens of small values.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An event-sourced user service: every change to a user is an immutable event.
#[derive(Parser)]
#[command(
    version,
    after_help = "Every key of the configuration can be set in a file, in the environment and with --set: see \
                  `rollcall config --defaults`."
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
    /// Prepare a database for this version, with its owner's rights; safe to repeat.
    Migrate(Flags),
    /// Make a restored log the one history, with its owner's rights, so that commands are taken again: shows what was
    /// found, and asks.
    AdoptRestored(adopt_restored::Options),
    /// Serve commands.
    CommandApi(serve::Options),
    /// Serve queries.
    QueryApi(serve::Options),
    /// Keep read models and NATS up to the log: all of them, or those that are named.
    Projector {
        /// What to keep up.
        names: Vec<Projects>,
        #[command(flatten)]
        options: serve::Options,
    },
    /// Make a read model anew from the log, beside the one that serves, and let it serve.
    Rebuild(rebuild::Options),
    /// Show how far everything has come: partitions, read models, leases, processes, publisher.
    Status(status::Options),
    /// Compare the read models that serve with the log; exit status 1 where they differ.
    AuditProjections(audit_projections::Options),
    /// Print what is in force, and where each value came from.
    Config {
        /// Print every key with its default and what it means instead: a file to start from.
        #[arg(long)]
        defaults: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Check everything that a start needs, and say how to mend what is missing.
    Doctor(Flags),
    /// Look at streams that a projection had to park at an event, and decide what becomes of them.
    Parked(Box<parked::Options>),
    /// Ask a running process whether it is ready: exit status 0 if so.
    Healthcheck(healthcheck::Options),
}

fn main() -> ExitCode {
    let Arguments { role } = Arguments::parse();
    // Which one the libraries would find by themselves depends on what else was built with them.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let outcome = match role {
        Role::Up(options) => run(&options.flags, |settings| up::run(settings, options.ready_file)),
        Role::Migrate(flags) => run_on(&flags, migrate::run),
        Role::AdoptRestored(options) => {
            let wish = options.wish();
            run_on(&options.flags, |settings| adopt_restored::run(settings, wish))
        }
        Role::CommandApi(options) => serve(serve::Role::CommandApi, options),
        Role::QueryApi(options) => serve(serve::Role::QueryApi, options),
        Role::Projector { names, options } => serve(serve::Role::Projector(names), options),
        Role::Rebuild(options) => {
            let (name, wish) = (options.name, options.wish());
            run_on(&options.flags, |settings| rebuild::run(settings, name, wish))
        }
        Role::Status(options) => {
            let wish = options.wish();
            run_on(&options.flags, |settings| status::run(settings, wish))
        }
        Role::AuditProjections(options) => {
            let wish = options.wish();
            run_on(&options.flags, |settings| audit_projections::run(settings, wish))
        }
        Role::Config { defaults: true, .. } => {
            print!("{DEFAULTS}");
            Ok(())
        }
        Role::Config { flags, .. } => Config::load(&flags).and_then(|config| {
            print!("{}", config.show());
            for warning in &config.warnings {
                eprintln!("rollcall: {warning}");
            }
            // What is in force may still be refused by a start.
            Settings::read(&config).map(drop)
        }),
        Role::Doctor(flags) => doctor::run(&flags),
        Role::Parked(options) => parked::run(&options),
        Role::Healthcheck(options) => healthcheck::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One clear line.
            eprintln!("rollcall: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(role: serve::Role, options: serve::Options) -> anyhow::Result<()> {
    run_on(&options.flags, |settings| serve::run(role, settings, options.ready_file))
}

/// Reads the configuration, begins to log, and runs a role to its end.
fn run<F: Future<Output = anyhow::Result<()>>>(
    flags: &Flags,
    role: impl FnOnce(Settings) -> F,
) -> anyhow::Result<()> {
    let config = Config::load(flags)?;
    let settings = Settings::read(&config)?;
    begin(&config, settings, role)
}

/// The same for a role that works on servers which are there.
fn run_on<F: Future<Output = anyhow::Result<()>>>(
    flags: &Flags,
    role: impl FnOnce(Settings) -> F,
) -> anyhow::Result<()> {
    let config = Config::load(flags)?;
    begin(&config, config::on_servers(&config)?, role)
}

fn begin<F: Future<Output = anyhow::Result<()>>>(
    config: &Config,
    settings: Settings,
    role: impl FnOnce(Settings) -> F,
) -> anyhow::Result<()> {
    // Before the runtime: the exporter of traces has threads of its own.
    let telemetry = telemetry::init(&settings.telemetry)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    process::raise_open_files();
    let runtime = process::runtime()?;
    let outcome = runtime.block_on(role(settings));
    // What may still run (a connection that was not drained in time) is not waited for.
    runtime.shutdown_background();
    telemetry.flush();
    outcome
}
