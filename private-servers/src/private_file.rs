//! Small files that nobody else may read: passwords, and configuration that holds one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{OpenOptionsExt, fchown},
    path::Path,
};

use crate::{Error, account::Account};

const PASSWORD_BYTES: usize = 24;

/// The password kept at `path`, made at random where there is none. Letters and digits only: it stands in URLs as it is.
pub fn password(path: &Path) -> Result<String, Error> {
    let kept = match fs::read_to_string(path) {
        Ok(kept) => kept,
        Err(missing) if missing.kind() == ErrorKind::NotFound => {
            let made = hex::encode(rand::random::<[u8; PASSWORD_BYTES]>());
            write(path, made.as_bytes(), None)?;
            made
        }
        Err(other) => return Err(Error::io("read", path)(other)),
    };
    let password = kept.trim();
    if password.is_empty() || !password.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Error::PasswordUnreadable { path: path.to_path_buf() });
    }
    Ok(password.to_owned())
}

/// Writes the whole of `path` or nothing, for `owner` alone (for us, where there is none).
pub fn write(path: &Path, content: &[u8], owner: Option<&Account>) -> Result<(), Error> {
    write_whole(path, content, owner).map_err(Error::io("write", path))
}

fn write_whole(path: &Path, content: &[u8], owner: Option<&Account>) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // `create_new` follows no link, which matters in a directory that belongs to the servers' account.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    if let Some(owner) = owner.filter(|owner| owner.is_other) {
        fchown(&file, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
    }
    file.sync_all()?;
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes the renames in a directory last through a power failure.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_password_is_made_once_and_kept_from_others() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("password");
        let made = password(&path).unwrap();
        assert_eq!(made.len(), 2 * PASSWORD_BYTES);
        assert_eq!(password(&path).unwrap(), made);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_ne!(password(&root.path().join("other")).unwrap(), made);
    }

    #[test]
    fn a_password_that_would_break_a_url_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("password");
        for content in ["", "\n", "a@b"] {
            fs::write(&path, content).unwrap();
            assert!(matches!(password(&path), Err(Error::PasswordUnreadable { .. })), "{content:?}");
        }
    }

    #[test]
    fn a_link_left_beside_the_file_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (path, victim) = (root.path().join("file"), root.path().join("victim"));
        fs::write(&victim, "untouched").unwrap();
        std::os::unix::fs::symlink(&victim, root.path().join("file.new")).unwrap();
        write(&path, b"content", None).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(fs::read_to_string(&path).unwrap(), "content");
    }
}
