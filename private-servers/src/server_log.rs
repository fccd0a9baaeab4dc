//! The file that a server's output goes to, kept within bounds.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// With the one before it, twice as much lies on disk.
const BYTES_MAX: u64 = 4 << 20;
const EXCERPT_BYTES_MAX: u64 = 16 << 10;

#[derive(Debug)]
pub struct ServerLog {
    path: PathBuf,
}

impl ServerLog {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file to append to, and the position at which what is written from now on begins.
    pub fn open(&self) -> io::Result<(File, u64)> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        self.bound()?;
        let position = file.metadata()?.len();
        Ok((file, position))
    }

    /// Puts a log that has grown too large aside. The server keeps writing to the same file: it appends, so what
    /// follows lands at the new end.
    pub fn bound(&self) -> io::Result<()> {
        if fs::metadata(&self.path)?.len() > BYTES_MAX {
            fs::copy(&self.path, self.path.with_extension("log.1"))?;
            OpenOptions::new().write(true).open(&self.path)?.set_len(0)?;
        }
        Ok(())
    }

    /// What was written since `position`, or the end of it; nothing where it cannot be read.
    pub fn since(&self, position: u64) -> String {
        self.try_since(position).unwrap_or_default()
    }

    fn try_since(&self, position: u64) -> io::Result<String> {
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        let position = if position > length { 0 } else { position };
        file.seek(SeekFrom::Start(position.max(length.saturating_sub(EXCERPT_BYTES_MAX))))?;
        let mut bytes = Vec::new();
        file.take(EXCERPT_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The line of a server's output that says why it ended: the last fatal one, or just the last.
pub fn reason(output: &str) -> &str {
    let lines = || output.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let fatal = |line: &&str| ["FATAL:", "PANIC:", "[FTL]", "error:"].iter().any(|mark| line.contains(mark));
    lines().find(fatal).or_else(|| lines().next()).unwrap_or("it said nothing")
}

/// The last lines of a server's output, on one line.
pub fn last_lines(output: &str, count: usize) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_grown_too_large_is_put_aside_and_goes_on() {
        let root = tempfile::tempdir().unwrap();
        let log = ServerLog::new(root.path().join("postgres.log"));
        let (mut file, _) = log.open().unwrap();
        file.write_all(&vec![b'x'; BYTES_MAX as usize + 1]).unwrap();
        log.bound().unwrap();
        file.write_all(b"after").unwrap();
        assert_eq!(fs::read_to_string(log.path()).unwrap(), "after");
        assert_eq!(fs::metadata(root.path().join("postgres.log.1")).unwrap().len(), BYTES_MAX + 1);
        assert_eq!(log.since(BYTES_MAX), "after", "a position from before is past the end");
    }

    #[test]
    fn an_excerpt_begins_where_the_server_did() {
        let root = tempfile::tempdir().unwrap();
        let log = ServerLog::new(root.path().join("nats.log"));
        log.open().unwrap().0.write_all(b"an earlier run\n").unwrap();
        let (mut file, position) = log.open().unwrap();
        file.write_all(b"this run\n").unwrap();
        assert_eq!(log.since(position), "this run\n");
    }

    #[test]
    fn the_reason_is_the_fatal_line() {
        assert_eq!(reason("LOG:  one\nFATAL:  two\nLOG:  three\n\n"), "FATAL:  two");
        assert_eq!(reason("one\ntwo\n\n"), "two");
        assert_eq!(reason(""), "it said nothing");
        assert_eq!(last_lines("one\n\ntwo\nthree", 2), "two | three");
    }
}
