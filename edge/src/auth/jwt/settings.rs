//! Whom to believe, as plain values, and what must not be believed.

use std::{path::PathBuf, time::Duration};

use reqwest::Url;

use super::source::{self, Error as JwksError};
use crate::principal::{Tenant, parse};

/// Whom to believe.
#[derive(Clone, Debug)]
pub struct Settings {
    pub issuers: Vec<Issuer>,
    /// How far clocks may differ, for `exp` and `nbf`.
    pub leeway: Duration,
    /// How often keys are fetched from URLs. Files are read again within a second of a change.
    pub refresh: Duration,
}

/// One issuer and what it may say.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// `iss`, to the letter.
    pub issuer: String,
    /// What `aud` must hold.
    pub audience: String,
    pub jwks: Source,
    /// The tenants that it may speak for; empty for all. With one only, tokens may leave `tenant` out.
    pub tenants: Vec<String>,
}

/// Where an issuer publishes its keys, as a JWK set (RFC 7517).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    /// https, or http to a loopback host.
    Url(Url),
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("issuers: at least one is needed")]
    NoIssuer,
    #[error("issuer: must not be empty")]
    EmptyIssuer,
    #[error("issuer {0} is configured twice")]
    IssuerTwice(String),
    #[error("audience of {0}: must not be empty, or a token for another service would do")]
    EmptyAudience(String),
    #[error("tenant {1:?} of issuer {0}")]
    Tenant(String, String, #[source] parse::Error),
    #[error(transparent)]
    Jwks(#[from] JwksError),
}

impl Issuer {
    /// Its tenants, once everything else about it was found to be in order.
    pub(super) fn check(&self) -> Result<Vec<Tenant>, Error> {
        if self.issuer.is_empty() {
            return Err(Error::EmptyIssuer);
        }
        if self.audience.is_empty() {
            return Err(Error::EmptyAudience(self.issuer.clone()));
        }
        let tenant = |text: &String| {
            Tenant::parse(text).map_err(|error| Error::Tenant(self.issuer.clone(), text.clone(), error))
        };
        self.tenants.iter().map(tenant).collect()
    }

    pub(super) fn source(&self) -> Result<source::Source, JwksError> {
        match &self.jwks {
            Source::File(path) => Ok(source::Source::File(path.clone())),
            Source::Url(url) => source::Source::url(url.clone()),
        }
    }
}
