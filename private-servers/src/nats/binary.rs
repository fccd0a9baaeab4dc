//! The nats-server binary that the system has.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use crate::account::{self, Account};

const OLDEST: (u32, u32) = (2, 9);
/// On a user's PATH the system directories may be missing.
const BESIDE_PATH: [&str; 4] = ["/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/usr/bin"];
const VERSION_PATIENCE: Duration = Duration::from_secs(5);

/// Why there is none to run.
#[derive(Debug, PartialEq, Eq)]
pub enum Absence {
    NotFound,
    TooOld { path: PathBuf, version: (u32, u32) },
}

impl fmt::Display for Absence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = OLDEST;
        match self {
            Self::NotFound => {
                write!(formatter, "nats-server not found (looked in PATH, {})", BESIDE_PATH.join(", "))
            }
            Self::TooOld { path, version: (had_major, had_minor) } => write!(
                formatter,
                "{} is version {had_major}.{had_minor}, and {major}.{minor} or newer is needed",
                path.display()
            ),
        }
    }
}

/// The first on the way that `account` can run and that is new enough.
pub async fn find(account: &Account) -> Result<PathBuf, Absence> {
    find_in(account::places(std::env::var_os("PATH").as_deref(), &BESIDE_PATH), account).await
}

async fn find_in(places: Vec<PathBuf>, account: &Account) -> Result<PathBuf, Absence> {
    let mut absence = Absence::NotFound;
    for path in places.into_iter().map(|place| place.join("nats-server")) {
        if !account.can_run(&path) {
            continue;
        }
        match version(&path).await {
            Some(version) if version >= OLDEST => return Ok(path),
            Some(version) => absence = Absence::TooOld { path, version },
            None => {}
        }
    }
    Err(absence)
}

async fn version(program: &Path) -> Option<(u32, u32)> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = timeout(VERSION_PATIENCE, command.output()).await.ok()?.ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// From `nats-server: v2.9.10`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().rsplit_once('v')?.1.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn program(directory: &Path, version: &str) {
        fs::create_dir_all(directory).unwrap();
        let path = directory.join("nats-server");
        fs::write(&path, format!("#!/bin/sh\necho 'nats-server: v{version}'\n")).unwrap();
        for path in [directory, &path] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("nats-server: v2.9.10\n"), Some((2, 9)));
        assert_eq!(parse_version("nats-server: v2.12.0-RC.1\n"), Some((2, 12)));
        assert_eq!(parse_version("something else"), None);
    }

    #[tokio::test]
    async fn the_first_that_is_new_enough_is_taken() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let account = Account::choose(&[]).unwrap();
        let [empty, old, new] = ["empty", "old", "new"].map(|name| root.path().join(name));
        program(&old, "2.8.4");
        program(&new, "2.10.1");
        assert_eq!(find_in(vec![empty.clone()], &account).await, Err(Absence::NotFound));
        let too_old = find_in(vec![old.clone()], &account).await.unwrap_err().to_string();
        assert!(too_old.contains("is version 2.8, and 2.9 or newer is needed"), "{too_old}");
        assert_eq!(find_in(vec![empty, old, new.clone()], &account).await, Ok(new.join("nats-server")));
    }
}
