//! What a start tells: to a program by a file, to a person by a greeting.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use rollcall_private_servers::DataDir;

use crate::config::show::without_password;

/// The file that `up` leaves in its data directory for as long as it runs.
const OF_UP: &str = "ready.json";

#[derive(Clone, Serialize, Deserialize)]
pub struct Urls {
    pub http: String,
    /// The owner's; only `up` tells it, and NATS's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats: Option<String>,
}

impl Urls {
    /// What the `up` left that runs in a directory; none where none does.
    ///
    /// # Errors
    /// Where it cannot be read: it belongs to another account, for example.
    pub fn of_up(data: &Path) -> anyhow::Result<Option<Self>> {
        // Of one that was killed the file is there still, and whoever has its port now is a stranger.
        if !DataDir::in_use(data)? {
            return Ok(None);
        }
        let path = data.join(OF_UP);
        let read = || format!("{} cannot be read", path.display());
        match fs::read(&path) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(read)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(read),
        }
    }

    /// That there is nobody to ask in a directory.
    pub fn none_in(data: &Path) -> String {
        format!("no \"rollcall up\" with servers of its own runs in {}", data.display())
    }

    /// Takes away what an `up` left that was killed.
    pub fn forget_in(data: &Path) {
        let _ = fs::remove_file(data.join(OF_UP));
    }

    /// Leaves the URLs for the commands that are given the directory.
    pub fn leave_in(&self, data: &Path) -> anyhow::Result<File> {
        File::write(data.join(OF_UP), self)
    }

    /// Where everything of `up` is, and what to try.
    pub fn greeting(&self, data: &Path) -> String {
        let (http, postgres, nats) = (&self.http, self.postgres.as_deref(), self.nats.as_deref());
        format!(
            "Rollcall is up.
  HTTP       {http}   (the API: {http}/docs)
  PostgreSQL {postgres}
  NATS       {nats}   (subscribers of the private server need no password)
  data       {data}

Try:
  curl -i {http}/api/v1/users -H 'Content-Type: application/json' \\
    -d '{{\"email\": \"grace@example.com\", \"given_name\": \"Grace\", \"family_name\": \"Hopper\"}}'
  curl {http}/api/v1/users
  curl {http}/api/v1/audit
  curl {http}/readyz
  {program} status --data-dir {data}   (doctor, parked, rebuild, audit-projections likewise)

Ctrl-C stops all of it.",
            postgres = without_password(postgres.unwrap_or_default()),
            nats = without_user(nats.unwrap_or_default()),
            data = data.display(),
            program = std::env::args().next().unwrap_or_else(|| "rollcall".to_owned()),
        )
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
            postgres: Some("postgres://owner:se:cr@et@127.0.0.1:5/rollcall".to_owned()),
            nats: Some("nats://127.0.0.1:4".to_owned()),
        };
        let text = urls.greeting(Path::new("/data"));
        assert!(
            text.contains("postgres://owner:***@127.0.0.1:5/rollcall") && text.contains("nats://127.0.0.1:4")
        );
        assert!(!text.contains("cr@et") && !text.contains("se:"));
    }
}
