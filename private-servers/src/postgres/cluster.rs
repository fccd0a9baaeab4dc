//! The cluster on disk: which version made it, and making one so that an interrupted attempt leaves no half of it.

use std::{
    fs::{self, DirBuilder},
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::Path,
    process::Stdio,
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::{binaries::Binaries, configuration};
use crate::{DataDir, Error, private_file, server_log, spawner};

const INITDB_PATIENCE: Duration = Duration::from_secs(120);
/// MB. A segment that is new is written full of zeros and flushed before anybody's commit goes on: 20 ms for the usual 16 MB,
/// a millisecond for one.
const WAL_SEGMENTS: &str = "--wal-segsize=1";
const STAGING: &str = "postgres.new";

/// The major version that made the cluster at `data`; none where there is no cluster yet.
pub fn version(data: &Path) -> Result<Option<u32>, Error> {
    let path = data.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => parse_version(&text).map(Some).ok_or(Error::VersionUnreadable { path }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// `15`, or `9.6` for one from before version 10.
fn parse_version(text: &str) -> Option<u32> {
    text.trim().split('.').next()?.parse().ok()
}

/// Makes a cluster beside its place and puts it there when it is complete.
pub async fn make(
    directory: &DataDir,
    data: &Path,
    binaries: &Binaries,
    owner: &str,
    password: &str,
) -> Result<(), Error> {
    info!(version = binaries.major, path = %data.display(), "making a new private PostgreSQL cluster");
    let staging = directory.path().join(STAGING);
    remove(&staging).await.map_err(Error::io("remove", &staging))?;
    DirBuilder::new().mode(0o700).create(&staging).map_err(Error::io("create", &staging))?;
    // Inside, for a moment: initdb runs as the servers' account and cannot read our own copy.
    let password_file = staging.join("password");
    let account = directory.account();
    private_file::write(&password_file, password.as_bytes(), Some(account))?;
    account.take_over(&staging).map_err(Error::io("change the owner of", &staging))?;

    let made = staging.join("data");
    initialize(directory, &made, &password_file, binaries, owner).await?;
    let authentication = configuration::HOST_BASED_AUTHENTICATION.as_bytes();
    private_file::write(&made.join("pg_hba.conf"), authentication, Some(account))?;

    // An empty directory in its place gives way to it; one with anything in it does not.
    fs::rename(&made, data).map_err(Error::io("put a new cluster at", data))?;
    private_file::sync_directory(directory.path()).map_err(Error::io("write", directory.path()))?;
    remove(&staging).await.map_err(Error::io("remove", &staging))
}

async fn initialize(
    directory: &DataDir,
    made: &Path,
    password_file: &Path,
    binaries: &Binaries,
    owner: &str,
) -> Result<(), Error> {
    let program = binaries.program("initdb");
    // Killed, not asked: what it leaves behind is thrown away.
    let mut command = spawner::command(&program, directory.account(), Signal::SIGKILL);
    command
        .args([
            "--data-checksums",
            "--encoding=UTF8",
            "--locale=C",
            "--auth=scram-sha-256",
            "--no-instructions",
            WAL_SEGMENTS,
        ])
        .args(["--username", owner, "--pwfile"])
        .arg(password_file)
        .arg("--pgdata")
        .arg(made)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let child = spawner::spawn(command).await.map_err(Error::io("run", &program))?;
    let ended = timeout(INITDB_PATIENCE, child.wait_with_output()).await;
    let output = ended
        .map_err(|_| Error::Initdb { reason: format!("not done after {} s", INITDB_PATIENCE.as_secs()) })?
        .map_err(Error::io("run", &program))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = server_log::reason(&said).trim_start_matches("initdb: ").trim_start_matches("error: ");
    Err(Error::Initdb { reason: reason.to_owned() })
}

/// Removes what an earlier attempt left. Its last process may still be writing, so more than one try is given.
async fn remove(staging: &Path) -> io::Result<()> {
    for _ in 0..20 {
        match fs::remove_dir_all(staging) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                sleep(Duration::from_millis(100)).await
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            outcome => return outcome,
        }
    }
    fs::remove_dir_all(staging)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_made_the_data_is_read() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(version(root.path()).unwrap(), None);
        for (text, expected) in [("15\n", Some(15)), ("9.6\n", Some(9)), ("\n", None), ("x", None)] {
            fs::write(root.path().join("PG_VERSION"), text).unwrap();
            assert_eq!(version(root.path()).ok().flatten(), expected, "{text:?}");
        }
    }
}
