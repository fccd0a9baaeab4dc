//! What a start tells: to a program by a file, to a person by a greeting.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Serialize;

#[derive(Serialize)]
pub struct Urls {
    pub http: String,
    /// The owner's.
    pub postgres: String,
    pub nats: String,
}

impl Urls {
    /// Where everything is, and what to try.
    pub fn greeting(&self, data: &Path) -> String {
        let http = &self.http;
        format!(
            "Rollcall is up.
  HTTP       {http}   (the API's description: {http}/openapi.json)
  PostgreSQL {postgres}
  NATS       {nats}   (subscribers of the private server need no password)
  data       {data}

Try:
  curl -i {http}/api/v1/users -H 'Content-Type: application/json' \\
    -d '{{\"email\": \"grace@example.com\", \"given_name\": \"Grace\", \"family_name\": \"Hopper\"}}'
  curl {http}/api/v1/users
  curl {http}/api/v1/audit
  curl {http}/readyz

Ctrl-C stops all of it.",
            postgres = without_password(&self.postgres),
            nats = without_user(&self.nats),
            data = data.display(),
        )
    }
}

/// A URL as it may stand on a screen.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "<set>".to_owned() };
    // Parameters may hold a password too.
    let rest = rest.split('?').next().unwrap_or_default();
    match rest.rsplit_once('@') {
        Some((user, place)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{place}")
        }
        None => format!("{scheme}://{rest}"),
    }
}

/// The URL that a subscriber of the private server can use.
fn without_user(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, place)) => format!("{scheme}://{place}"),
        None => url.to_owned(),
    }
}

/// The ready file; it goes when it is dropped, because then nothing is ready any more.
pub struct File(PathBuf);

impl File {
    /// Writes it whole, with mode 0600: it names the owner's password.
    pub fn write(path: PathBuf, urls: &Urls) -> anyhow::Result<Self> {
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(".new");
        let unfinished = PathBuf::from(unfinished);
        let write = || -> std::io::Result<()> {
            // A file that somebody else left there may have another mode.
            let _ = fs::remove_file(&unfinished);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
            file.write_all(&serde_json::to_vec(urls)?)?;
            file.write_all(b"\n")?;
            fs::rename(&unfinished, &path)
        };
        write().with_context(|| format!("the ready file {} cannot be written", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Whoever removed it already did what was to be done.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_shows_no_password() {
        let urls = Urls {
            http: "http://127.0.0.1:1".to_owned(),
            postgres: "postgres://owner:se:cr@et@127.0.0.1:5/rollcall".to_owned(),
            nats: "nats://127.0.0.1:4".to_owned(),
        };
        let text = urls.greeting(Path::new("/data"));
        assert!(
            text.contains("postgres://owner:***@127.0.0.1:5/rollcall") && text.contains("nats://127.0.0.1:4")
        );
        assert!(!text.contains("cr@et") && !text.contains("se:"));
    }
}
