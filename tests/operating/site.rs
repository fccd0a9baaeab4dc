//! Servers as an operator would run them, and the roles on them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rollcall_private_servers::{DataDir, Nats, Postgres};

use crate::rollcall::{Rollcall, Setup, data_directory};

/// A PostgreSQL, a NATS and a master key; nothing of Rollcall runs yet.
pub struct Site {
    postgres: Postgres,
    nats: Nats,
    directory: tempfile::TempDir,
}

impl Site {
    pub async fn new() -> Self {
        let directory = data_directory();
        let data = DataDir::open(Some(directory.path().join("data"))).unwrap();
        let postgres = Postgres::start(&data).await.unwrap();
        let nats = Nats::start(&data).await.unwrap();
        write_key(&directory.path().join("master.key"), "07");
        Self { postgres, nats, directory }
    }

    /// One that `rollcall migrate` has prepared.
    pub async fn migrated() -> Self {
        let site = Self::new().await;
        site.migrate();
        site
    }

    pub fn owner_url(&self) -> &str {
        self.postgres.owner_url()
    }

    pub fn nats_url(&self) -> &str {
        self.nats.url()
    }

    pub fn key(&self) -> PathBuf {
        self.directory.path().join("master.key")
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What every role is told, as the environment would.
    pub fn variables(&self) -> Vec<(String, String)> {
        [
            ("DATABASE_URL", self.owner_url().to_owned()),
            ("NATS_URL", self.nats_url().to_owned()),
            ("ROLLCALL_MASTER_KEY_FILE", self.key().display().to_string()),
            ("ROLLCALL_SHUTDOWN_NOTICE_S", "0".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// A subcommand that ends by itself, with the site's environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
        command.args(arguments).envs(self.variables()).stdin(Stdio::null());
        command
    }

    /// A subcommand on another database.
    pub fn command_on(&self, database_url: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.env("DATABASE_URL", database_url).stdout(Stdio::null());
        command
    }

    /// The URL for services that it prints.
    pub fn migrate(&self) -> String {
        let output = self.command(&["migrate"]).output().unwrap();
        let (said, errors) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{errors}");
        assert!(!said.contains(password(self.owner_url())) && !errors.contains(password(self.owner_url())));
        said.lines().find_map(|line| line.strip_prefix("services")).unwrap().trim().to_owned()
    }

    /// How to start a role, in a directory of its own.
    pub fn setup(&self, role: &[&str], more: &[(&str, &str)]) -> Setup {
        let mut variables = self.variables();
        variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let directory = tempfile::tempdir_in(self.directory.path()).unwrap().keep();
        let role = role.iter().map(|word| (*word).to_owned()).collect();
        Setup { role, directory: Some(directory), variables, ..Setup::default() }
    }

    /// A role at work.
    pub fn start(&self, role: &[&str], more: &[(&str, &str)]) -> Rollcall {
        Rollcall::start(self.setup(role, more))
    }

    pub async fn stop(self) {
        self.nats.stop().await;
        self.postgres.stop().await;
    }
}

/// A master key of one byte over and over, which only its owner may read.
pub fn write_key(path: &Path, byte: &str) {
    fs::write(path, byte.repeat(32)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn password(url: &str) -> &str {
    let user = url.split_once("://").unwrap().1.rsplit_once('@').unwrap().0;
    user.split_once(':').unwrap().1
}

pub fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}
