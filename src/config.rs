//! Configuration: every key from a flag, the environment, a file or the default, checked once at a start.
//!
//! Shape: [`Flags`] + environment + file + `default.toml` -> [`Config`] (values with their origins) -> [`Settings`], or
//! all problems at once, each under its key's name. `default.toml` is the documentation and the list of what keys there are.

mod reader;
mod show;
mod sources;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use rollcall_edge::{
    auth::jwt,
    rate,
};

use crate::telemetry;

pub use sources::{Config, Flags};

/// What is in force. One struct for each component.
#[derive(Debug)]
pub struct Settings {
    /// None where the role's own default counts.
    pub http: Option<SocketAddr>,
    pub data_dir: Option<PathBuf>,
    pub database: Database,
    pub nats_url: Option<Secret>,
    pub master_key_file: Option<PathBuf>,
    pub auth: Auth,
    pub limits: Limits,
    pub shutdown: Shutdown,
    pub telemetry: telemetry::Settings,
}

#[derive(Debug)]
pub struct Database {
    pub url: Option<Secret>,
    pub pool_connections: u32,
    pub read_connections: usize,
}

/// How callers are known.
#[derive(Debug)]
pub enum Auth {
    Open,
    Jwt(jwt::Settings),
}

/// What one process takes on at once.
#[derive(Clone, Debug)]
pub struct Limits {
    pub connections: usize,
    pub requests: usize,
    pub request_timeout: Duration,
    pub idle_timeout: Duration,
    pub body_bytes_in_flight: usize,
    pub append_queue: usize,
    pub rate: rate::Limits,
}

#[derive(Clone, Copy, Debug)]
pub struct Shutdown {
    /// None where the default stands: `up` then does not wait.
    pub notice: Option<Duration>,
    pub drain: Duration,
}

/// A text that does not print.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("<secret>")
    }
}
