//! The account that the servers run as: ours, or another one where we are root, which PostgreSQL refuses to be.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::{MetadataExt, lchown},
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Uid, User};

use crate::Error;

/// In order of preference.
const SUBSTITUTES_OF_ROOT: [&str; 2] = ["postgres", "nobody"];

#[derive(Clone, Debug)]
pub struct Account {
    pub uid: Uid,
    pub gid: Gid,
    pub name: String,
    /// Whether it is not the one that we run as ourselves.
    pub is_other: bool,
}

impl Account {
    /// The account for servers whose data lie in one of `data`. Where we are root and some exist, whoever owns
    /// them keeps them: a user `postgres` that was added since must not lock out a `nobody`.
    pub fn choose(data: &[PathBuf]) -> Result<Self, Error> {
        let uid = Uid::effective();
        if !uid.is_root() {
            return Ok(Self { uid, gid: Gid::effective(), name: uid.to_string(), is_other: false });
        }
        let owners =
            data.iter().filter_map(|path| fs::symlink_metadata(path).ok()).map(|metadata| metadata.uid());
        let owner =
            owners.filter(|owner| *owner != 0).find_map(|owner| lookup(User::from_uid(Uid::from_raw(owner))));
        owner
            .or_else(|| SUBSTITUTES_OF_ROOT.iter().find_map(|name| lookup(User::from_name(name))))
            .map(|user| Self { uid: user.uid, gid: user.gid, name: user.name, is_other: true })
            .ok_or(Error::NoAccount)
    }

    /// The topmost directory on the way to `path` (itself included) that this account cannot pass through.
    pub fn barrier(&self, path: &Path) -> Option<PathBuf> {
        let ancestors: Vec<&Path> = path.ancestors().collect();
        let closed = |path: &&&Path| !fs::metadata(path).is_ok_and(|metadata| self.may_execute(&metadata));
        ancestors.iter().rev().find(closed).map(|path| path.to_path_buf())
    }

    /// Whether this account can run the program at `path`, links followed.
    pub fn can_run(&self, path: &Path) -> bool {
        fs::canonicalize(path).is_ok_and(|path| path.is_file() && self.barrier(&path).is_none())
    }

    /// Enter, for a directory; run, for a file. Reads the mode bits: of access lists it knows nothing.
    fn may_execute(&self, metadata: &fs::Metadata) -> bool {
        let bit = match (metadata.uid() == self.uid.as_raw(), metadata.gid() == self.gid.as_raw()) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        metadata.mode() & bit != 0
    }

    /// Makes `path` and all below it this account's, where it is not: data that root copied here belong to root.
    pub fn take_over(&self, path: &Path) -> io::Result<()> {
        let metadata = fs::symlink_metadata(path)?;
        if !self.is_other || metadata.uid() == self.uid.as_raw() {
            return Ok(());
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(path)? {
                self.take_over(&entry?.path())?;
            }
        }
        // The top comes last, so that what was broken off is taken up again.
        lchown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
    }
}

/// The name of a user, or the number of one without a name.
pub fn name_of(uid: u32) -> String {
    lookup(User::from_uid(Uid::from_raw(uid)))
        .map_or_else(|| format!("user id {uid}"), |user| format!("user {}", user.name))
}

/// The directories in which the shell would look for `program`, and then `others`.
pub fn places(path_variable: Option<&OsStr>, others: &[&str]) -> Vec<PathBuf> {
    let from_path =
        path_variable.into_iter().flat_map(std::env::split_paths).filter(|path| path.is_absolute());
    from_path.chain(others.iter().map(PathBuf::from)).collect()
}

fn lookup(answer: nix::Result<Option<User>>) -> Option<User> {
    answer.ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn stranger() -> Account {
        Account {
            uid: Uid::from_raw(65533),
            gid: Gid::from_raw(65533),
            name: "stranger".into(),
            is_other: true,
        }
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_closed_ancestor_is_the_barrier() {
        let root = tempfile::tempdir().unwrap();
        let (home, data) = (root.path().join("home"), root.path().join("home/data"));
        fs::create_dir_all(&data).unwrap();
        for path in [root.path(), &home, &data] {
            set_mode(path, 0o711);
        }
        assert_eq!(stranger().barrier(&data), None);
        set_mode(&home, 0o700);
        assert_eq!(stranger().barrier(&data), Some(home.clone()));
        set_mode(&home, 0o710);
        assert_eq!(stranger().barrier(&data), Some(home), "the group's bit is for the group");
    }

    #[test]
    fn an_owner_without_its_bit_is_kept_out_even_where_others_may_pass() {
        let root = tempfile::tempdir().unwrap();
        set_mode(root.path(), 0o601);
        let metadata = fs::metadata(root.path()).unwrap();
        let owner =
            Account { uid: Uid::from_raw(metadata.uid()), gid: Gid::from_raw(metadata.gid()), ..stranger() };
        assert!(!owner.may_execute(&metadata));
        assert!(stranger().may_execute(&metadata));
    }

    #[test]
    fn a_program_without_the_executable_bit_cannot_be_run() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("postgres");
        fs::write(&program, "").unwrap();
        set_mode(root.path(), 0o711);
        set_mode(&program, 0o644);
        assert!(!stranger().can_run(&program));
        set_mode(&program, 0o755);
        assert!(stranger().can_run(&program));
        assert!(!stranger().can_run(root.path()), "a directory is not a program");
    }

    #[test]
    fn relative_places_in_path_are_left_out() {
        let places = places(Some(OsStr::new("/a:.:b:/c")), &["/d"]);
        assert_eq!(places, ["/a", "/c", "/d"].map(PathBuf::from));
    }
}
