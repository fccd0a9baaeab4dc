//! What can go wrong with the private servers, each in one line that says how to mend it.

use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no place to keep data: neither XDG_DATA_HOME nor HOME is set; name a data directory")]
    NoHome,
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "data directory {} is in use by {holder}; stop that one, or choose another data directory",
        path.display()
    )]
    InUse { path: PathBuf, holder: String },
    #[error(
        "data directory {} belongs to {owner}; run as that user, or choose another data directory",
        path.display()
    )]
    Foreign { path: PathBuf, owner: String },
    #[error(
        "the servers run as user {account}, who cannot enter {} and so cannot keep data in {}; \
         choose a data directory outside it, such as /var/lib/rollcall",
        barrier.display(), path.display()
    )]
    Unreachable { path: PathBuf, barrier: PathBuf, account: String },
    #[error(
        "PostgreSQL does not run as root, and there is neither a user \"postgres\" nor a user \"nobody\"; \
         add one, or run as another user"
    )]
    NoAccount,
    #[error("{0}")]
    NatsMissing(String),
    #[error(
        "PostgreSQL server binaries, version {oldest} or newer, not found (looked in {looked_in}); \
         install them with \"apt-get install postgresql\", or set DATABASE_URL"
    )]
    PostgresMissing { oldest: u32, looked_in: String },
    #[error(
        "{} was made by PostgreSQL {made_by}, but the servers found here are {found}; \
         install \"postgresql-{made_by}\", or choose another data directory",
        path.display()
    )]
    OtherVersion { path: PathBuf, made_by: u32, found: String },
    #[error(
        "{} was made by PostgreSQL {made_by}, and {oldest} or newer is needed; \
         upgrade it with pg_upgrade (to a cluster of the same --wal-segsize), or choose another data directory",
        path.display()
    )]
    TooOld { path: PathBuf, made_by: u32, oldest: u32 },
    #[error("cannot read a PostgreSQL version in {}; restore it from a backup", path.display())]
    VersionUnreadable { path: PathBuf },
    #[error(
        "the password of an existing database is missing: {}; restore it from a backup, \
         or choose another data directory",
        path.display()
    )]
    PasswordMissing { path: PathBuf },
    #[error("{} does not hold a password of ours; restore it from a backup", path.display())]
    PasswordUnreadable { path: PathBuf },
    #[error("PostgreSQL refuses the password in {}; restore it from a backup", path.display())]
    PasswordRefused { path: PathBuf },
    #[error("initdb could not make a database: {reason}")]
    Initdb { reason: String },
    #[error(
        "the {server} of an earlier run (process {pid}) still runs on this data and does not stop; end process {pid}"
    )]
    StillRunning { server: &'static str, pid: i32 },
    #[error("{server} ended while starting: {reason} (see {})", log.display())]
    EndedEarly { server: &'static str, reason: String, log: PathBuf },
    #[error("{server} did not get ready within {seconds} s (see {})", log.display())]
    TooSlow { server: &'static str, seconds: u64, log: PathBuf },
    #[error("cannot set up the database in the private PostgreSQL")]
    Database(#[source] sqlx::Error),
}

impl Error {
    /// For `map_err`: the action, as in "cannot {action} {path}".
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
