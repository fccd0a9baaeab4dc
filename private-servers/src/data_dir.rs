//! The directory that holds everything of the private servers, locked for as long as anything uses it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::unistd::Uid;

use crate::{Error, account, account::Account};

const LOCK: &str = "lock";
const OF_ROOT: &str = "/var/lib/rollcall";
/// The directories that belong to the servers' account.
pub(super) const POSTGRES: &str = "postgres";
pub(super) const NATS: &str = "nats";

/// Cloning is cheap; the lock is let go with the last clone.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    account: Account,
    _lock: Arc<File>,
}

impl DataDir {
    /// Opens `path`, or the user's own data directory, making it where it does not exist.
    ///
    /// # Errors
    /// [`Error::InUse`] where another process has it open; [`Error::Foreign`] and [`Error::Unreachable`] where we, or
    /// the account that the servers run as, cannot keep data there.
    pub fn open(path: Option<PathBuf>) -> Result<Self, Error> {
        let path = path.map_or_else(default_path, Ok)?;
        let path = std::path::absolute(&path).map_err(Error::io("find", &path))?;
        let account = Account::choose(&[path.join(POSTGRES), path.join(NATS)])?;
        require_a_way_to(nearest_existing(path.parent().unwrap_or(&path)), &path, &account)?;

        DirBuilder::new()
            .recursive(true)
            .mode(mode(&account))
            .create(&path)
            .map_err(Error::io("create", &path))?;
        let path = fs::canonicalize(&path).map_err(Error::io("find", &path))?;
        adopt(&path, &account)?;
        require_a_way_to(&path, &path, &account)?;
        let lock = Arc::new(lock(&path)?);
        Ok(Self { path, account, _lock: lock })
    }

    /// Absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// A directory below ours that belongs to the servers' account, and to nobody else.
    pub(super) fn subdirectory(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(Error::io("create", &path))?;
        self.account.take_over(&path).map_err(Error::io("change the owner of", &path))?;
        Ok(path)
    }
}

fn default_path() -> Result<PathBuf, Error> {
    if Uid::effective().is_root() {
        return Ok(PathBuf::from(OF_ROOT));
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("rollcall"))
        .ok_or(Error::NoHome)
}

/// Another account must pass through to its own directories, but need not see what else is there.
fn mode(account: &Account) -> u32 {
    if account.is_other { 0o711 } else { 0o700 }
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

fn require_a_way_to(existing: &Path, path: &Path, account: &Account) -> Result<(), Error> {
    let existing = fs::canonicalize(existing).map_err(Error::io("find", existing))?;
    match account.barrier(&existing) {
        Some(barrier) if account.is_other => {
            Err(Error::Unreachable { path: path.to_path_buf(), barrier, account: account.name.clone() })
        }
        _ => Ok(()),
    }
}

/// Sets owner and mode of a directory that is empty or already ours. One that holds something else (somebody may
/// point us at /tmp) stays as it is.
fn adopt(path: &Path, account: &Account) -> Result<(), Error> {
    let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
    let is_empty = fs::read_dir(path).map_err(Error::io("read", path))?.next().is_none();
    let uid = Uid::effective().as_raw();
    let is_root = uid == 0;
    if is_root && is_empty {
        chown(path, Some(0), None).map_err(Error::io("change the owner of", path))?;
    } else if is_root && metadata.uid() != 0 {
        // As root we write here by name: in a directory of another user, links of theirs could lead us astray.
        return Err(Error::Foreign { path: path.to_path_buf(), owner: account::name_of(metadata.uid()) });
    }
    let is_ours = is_empty || path.join(LOCK).exists();
    if is_ours && (is_root || metadata.uid() == uid) {
        fs::set_permissions(path, Permissions::from_mode(mode(account)))
            .map_err(Error::io("change the mode of", path))?;
    }
    Ok(())
}

impl DataDir {
    /// Whether anything uses a directory now.
    ///
    /// # Errors
    /// Where that cannot be seen: it belongs to another account, for example.
    pub fn in_use(directory: &Path) -> Result<bool, Error> {
        let path = directory.join(LOCK);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        // Shared: two who look do not take each other for a user.
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(source)) => Err(Error::io("lock", path)(source)),
        }
    }
}

/// Takes the lock. The kernel lets it go when the process ends, however it ends; Rust opens files close-on-exec, so no
/// child keeps it.
fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join(LOCK);
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = open.map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let holder = match file.read_to_string(&mut pid).ok().and_then(|_| pid.trim().parse::<u32>().ok())
            {
                Some(pid) => format!("process {pid}"),
                None => "another process".to_owned(),
            };
            return Err(Error::InUse { path: directory.to_path_buf(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(Error::io("lock", path)(source)),
    }
    file.set_len(0).map_err(Error::io("write", &path))?;
    writeln!(file, "{}", std::process::id()).map_err(Error::io("write", &path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_second_one_is_refused_with_the_pid_of_the_first() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDir::open(Some(root.path().into())).unwrap();
        let refusal = DataDir::open(Some(root.path().into())).unwrap_err().to_string();
        assert!(refusal.contains(&format!("in use by process {};", std::process::id())), "{refusal}");
        drop(first);
        DataDir::open(Some(root.path().into())).unwrap();
    }

    #[test]
    fn a_directory_with_other_things_in_it_keeps_its_mode() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("letter"), "").unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o1777)).unwrap();
        DataDir::open(Some(root.path().into())).unwrap();
        assert_eq!(mode_of(root.path()), 0o1777);
    }

    #[test]
    fn a_new_directory_is_closed_to_others() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o711)).unwrap();
        let opened = DataDir::open(Some(root.path().join("new"))).unwrap();
        let expected = if Uid::effective().is_root() { 0o711 } else { 0o700 };
        assert_eq!(mode_of(opened.path()), expected);
    }

    #[test]
    fn a_home_of_root_is_refused_before_anything_is_made_there() {
        if !Uid::effective().is_root() {
            return;
        }
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
        let refusal = DataDir::open(Some(home.path().join("data"))).unwrap_err();
        assert!(matches!(refusal, Error::Unreachable { .. }), "{refusal}");
        assert!(!home.path().join("data").exists());
    }
}
