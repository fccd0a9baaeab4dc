//! Where the master key is kept: a file of 64 hexadecimal digits with mode 0600.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use rand::Rng;
use rollcall_event_store::{
    keys::{MASTER_KEY_BYTES, MasterKey},
    migrate::MasterKeySource,
};

use crate::config::Settings;

/// Its name in a data directory.
pub const FILE: &str = "master.key";

/// The file that an operator named, or the one in the data directory, which is made at the first start.
pub struct KeyFile {
    pub path: PathBuf,
    /// The operator's own file is never made for them: a typing error would make a second key.
    pub named: bool,
}

impl KeyFile {
    /// The file that must be named, because others need it too.
    pub fn named(settings: &Settings) -> anyhow::Result<Self> {
        let path = settings.master_key_file.clone().context(
            "master_key.file must be set (--master-key-file): the key that the log was made with; for a new log make one with \
             \"openssl rand -hex 32\"",
        )?;
        Ok(Self { path, named: true })
    }

    /// The file that was named, or one in a data directory.
    pub fn named_or_in(settings: &Settings, directory: &Path) -> Self {
        let named = settings.master_key_file.clone();
        Self { named: named.is_some(), path: named.unwrap_or_else(|| directory.join(FILE)) }
    }
}

impl MasterKeySource for KeyFile {
    fn existing(&self) -> Result<Option<MasterKey>, String> {
        if !self.path.exists() {
            return Ok(None);
        }
        MasterKey::read(&self.path).map(Some).map_err(|error| chain(&error))
    }

    fn create(&self) -> Result<MasterKey, String> {
        let path = self.path.display();
        if self.named {
            return Err(format!(
                "there is no master key at {path} (master_key.file): a log that exists has one already, so see that the path \
                 is right; for a new log make one with \"openssl rand -hex 32 > {path}\" and keep it safe"
            ));
        }
        let mut bytes = [0; MASTER_KEY_BYTES];
        rand::rng().fill_bytes(&mut bytes);
        // Whole or not at all: a key that is cut short would lock everybody out.
        let unfinished = self.path.with_extension("key.new");
        let written = || -> std::io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            writeln!(file, "{}", hex::encode(bytes))?;
            file.sync_all()?;
            fs::rename(&unfinished, &self.path)?;
            match self.path.parent() {
                Some(directory) => fs::File::open(directory)?.sync_all(),
                None => Ok(()),
            }
        };
        written().map_err(|error| format!("the master key cannot be written to {path}: {error}"))?;
        Ok(MasterKey::new(&bytes))
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
