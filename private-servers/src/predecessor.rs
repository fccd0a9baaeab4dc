//! The server of an earlier run, which may still be shutting down when we start.

use std::{ffi::OsString, fs, os::unix::ffi::OsStrExt, path::PathBuf, time::Duration};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::Error;

const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_AFTER_FORCE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(50);

/// Where a server notes its process id, and how to tell that a process is that server and not one that came by its id.
#[derive(Debug)]
pub struct PidFile {
    pub path: PathBuf,
    /// The file name of the program.
    pub program: &'static str,
    /// An argument that only the server on this data is started with.
    pub argument: OsString,
}

impl PidFile {
    /// Waits until no earlier server runs on this data.
    ///
    /// It has been told to stop when its parent ended; it is told once more, in case that was lost.
    pub async fn wait_until_free(
        &self,
        server: &'static str,
        polite: Signal,
        force: Signal,
    ) -> Result<(), Error> {
        let Some(pid) = self.running() else { return Ok(()) };
        info!(server, pid = pid.as_raw(), "waiting for the server of an earlier run to stop");
        for (signal, patience) in [(polite, PATIENCE), (force, PATIENCE_AFTER_FORCE)] {
            // It may be gone by now, which is what we want.
            let _ = signal::kill(pid, signal);
            let deadline = Instant::now() + patience;
            while Instant::now() < deadline {
                if self.running() != Some(pid) {
                    return Ok(());
                }
                sleep(POLL).await;
            }
        }
        Err(Error::StillRunning { server, pid: pid.as_raw() })
    }

    /// The process that the file names, if it is the server on this data.
    ///
    /// A file that names a process that is something else by now is removed: PostgreSQL would take a process of our
    /// account for a postmaster and refuse to start.
    fn running(&self) -> Option<Pid> {
        let noted = fs::read_to_string(&self.path).ok()?;
        let pid: i32 = noted.lines().next()?.trim().parse().ok().filter(|pid| *pid > 0)?;
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        if self.describes(&command_line) {
            return Some(Pid::from_raw(pid));
        }
        let _ = fs::remove_file(&self.path);
        None
    }

    fn describes(&self, command_line: &[u8]) -> bool {
        let mut words = command_line.split(|byte| *byte == 0);
        let program = words.next().and_then(|word| word.rsplit(|byte| *byte == b'/').next());
        program == Some(self.program.as_bytes()) && words.any(|word| word == self.argument.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid_file(path: PathBuf) -> PidFile {
        PidFile { path, program: "postgres", argument: "/data/postgres".into() }
    }

    #[test]
    fn only_the_server_on_this_data_is_a_predecessor() {
        let pid_file = pid_file("/nowhere".into());
        assert!(
            pid_file.describes(b"/usr/lib/postgresql/15/bin/postgres\0-D\0/data/postgres\0-c\0fsync=on\0")
        );
        assert!(!pid_file.describes(b"/usr/lib/postgresql/15/bin/postgres\0-D\0/data/postgres2\0"));
        assert!(!pid_file.describes(b"vi\0/data/postgres\0"));
        assert!(!pid_file.describes(b""), "a zombie has no command line");
    }

    #[tokio::test]
    async fn a_file_that_names_a_process_that_is_something_else_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let pid_file = pid_file(root.path().join("postmaster.pid"));
        fs::write(&pid_file.path, format!("{}\n/data/postgres\n", std::process::id())).unwrap();
        pid_file.wait_until_free("PostgreSQL", Signal::SIGINT, Signal::SIGQUIT).await.unwrap();
        assert!(!pid_file.path.exists());
    }

    #[tokio::test]
    async fn a_file_that_names_nobody_is_left_to_the_server() {
        let root = tempfile::tempdir().unwrap();
        let pid_file = pid_file(root.path().join("postmaster.pid"));
        // Above the kernel's greatest pid.
        fs::write(&pid_file.path, "2147483646\n").unwrap();
        pid_file.wait_until_free("PostgreSQL", Signal::SIGINT, Signal::SIGQUIT).await.unwrap();
        assert!(pid_file.path.exists());
    }
}
