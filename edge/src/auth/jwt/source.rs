//! Where the keys of an issuer are read.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Client, Url, redirect};
use tokio::io::AsyncReadExt;

use super::key_set::{self, KeySet};
use crate::auth::host;

const BYTES_MAX: usize = 1024 * 1024;
const FETCH_WITHIN: Duration = Duration::from_secs(5);

/// A JWK set's place, ready to be read again and again.
#[derive(Debug)]
pub enum Source {
    File(PathBuf),
    Url(Url, Client),
}

/// Why keys were not read from a place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("jwks {0} must be a URL with https, or with http to a loopback host")]
    Insecure(String),
    #[error("jwks {0} cannot be fetched: no HTTP client can be made")]
    Client(String, #[source] reqwest::Error),
    #[error("jwks {0} cannot be read")]
    File(String, #[source] std::io::Error),
    #[error("jwks {0} cannot be fetched")]
    Fetch(String, #[source] reqwest::Error),
    #[error("jwks {0} cannot be fetched: it is answered with status {1}")]
    Status(String, u16),
    #[error("jwks {0} is longer than {BYTES_MAX} bytes")]
    TooLong(String),
    #[error("jwks {0} cannot be used")]
    Keys(String, #[source] key_set::Error),
}

impl Source {
    /// # Errors
    /// Where somebody on the way could put keys of their own there, or no client can be made, for want of system
    /// certificates say.
    pub fn url(url: Url) -> Result<Self, Error> {
        let loopback = url.host_str().is_some_and(host::is_loopback);
        if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
            return Err(Error::Insecure(place(&url)));
        }
        let client = Client::builder()
            .timeout(FETCH_WITHIN)
            // A redirect would let whoever answers choose another place, and another scheme.
            .redirect(redirect::Policy::none());
        // This machine is not asked for over the network in clear, whatever HTTP_PROXY says.
        let client = if loopback { client.no_proxy() } else { client };
        let client = client.build().map_err(|error| Error::Client(place(&url), error))?;
        Ok(Self::Url(url, client))
    }

    /// # Errors
    /// Where the place cannot be read in time, or what is there cannot be used.
    pub async fn read(&self) -> Result<KeySet, Error> {
        let bytes = match self {
            Self::File(path) => self.read_file(path).await?,
            Self::Url(url, client) => self.fetch(client, url).await?,
        };
        KeySet::parse(&bytes).map_err(|error| Error::Keys(self.place(), error))
    }

    async fn read_file(&self, path: &Path) -> Result<Vec<u8>, Error> {
        let failed = |error| Error::File(self.place(), error);
        let mut bytes = Vec::new();
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await.map_err(failed)?;
        if bytes.len() > BYTES_MAX { Err(Error::TooLong(self.place())) } else { Ok(bytes) }
    }

    async fn fetch(&self, client: &Client, url: &Url) -> Result<Vec<u8>, Error> {
        let failed = |error: reqwest::Error| Error::Fetch(self.place(), error.without_url());
        let mut response = client.get(url.clone()).send().await.map_err(failed)?;
        if response.status() != http::StatusCode::OK {
            return Err(Error::Status(self.place(), response.status().as_u16()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > BYTES_MAX {
                return Err(Error::TooLong(self.place()));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn place(&self) -> String {
        match self {
            Self::File(path) => format!("file {}", path.display()),
            Self::Url(url, _) => place(url),
        }
    }
}

/// As it may stand in a log, without what may be secret in it.
fn place(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}
