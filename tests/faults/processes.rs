//! Processes that have to do with a data directory, found in `/proc`: named on their command line, or living in it (the
//! backends of PostgreSQL change their names, but stay in their directory).

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub command_line: String,
}

impl Process {
    fn read(pid: i32, directory: &Path) -> Option<Self> {
        let place = PathBuf::from(format!("/proc/{pid}"));
        let command_line = fs::read(place.join("cmdline")).ok()?;
        let command_line = String::from_utf8_lossy(&command_line).replace('\0', " ");
        let lives_there = fs::read_link(place.join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
        if !lives_there && !command_line.contains(directory.to_str()?) {
            return None;
        }
        // Behind the name, which may hold anything: state, parent.
        let stat = fs::read_to_string(place.join("stat")).ok()?;
        let mut rest = stat.rsplit_once(") ")?.1.split(' ');
        let ended = rest.next()? == "Z";
        let parent = rest.next()?.parse().ok()?;
        (!ended).then_some(Self { pid, parent, command_line })
    }

    pub fn is_server(&self, program: &str) -> bool {
        let called = self.command_line.split(' ').next().unwrap_or_default();
        Path::new(called).file_name().is_some_and(|name| name == program) && !self.is_backend()
    }

    fn is_backend(&self) -> bool {
        self.command_line.starts_with("postgres: ")
    }
}

/// All of a data directory, without the process `except`.
pub fn of(directory: &Path, except: u32) -> Vec<Process> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| pid.cast_unsigned() != except).filter_map(|pid| Process::read(pid, directory)).collect()
}

/// The private server of that name; panics where there is not exactly one.
pub fn server(directory: &Path, program: &str) -> Pid {
    let found = running_servers(directory, program);
    assert_eq!(found.len(), 1, "{found:?}");
    Pid::from_raw(found[0].pid)
}

/// A backend that was forked a moment ago still bears its parent's name.
pub fn running_servers(directory: &Path, program: &str) -> Vec<Process> {
    let named: Vec<Process> =
        of(directory, 0).into_iter().filter(|process| process.is_server(program)).collect();
    let is_child = |process: &Process| named.iter().any(|other| other.pid == process.parent);
    named.iter().filter(|process| !is_child(process)).cloned().collect()
}

pub fn send(pid: Pid, signal: Signal) {
    signal::kill(pid, signal).unwrap();
}

/// Checks that the data directory is served by one PostgreSQL and one nats-server, children of `parent`, and that nothing
/// of an earlier run is left.
pub fn assert_no_strangers(directory: &Path, parent: u32) {
    let postgres = server(directory, "postgres").as_raw();
    let nats = server(directory, "nats-server").as_raw();
    let all = of(directory, parent);
    for process in &all {
        let expected = if [postgres, nats].contains(&process.pid) { parent.cast_signed() } else { postgres };
        assert_eq!(process.parent, expected, "{process:?} is a stranger: {all:?}");
    }
}

/// Waits until nothing of a data directory runs any more.
pub fn assert_all_end(directory: &Path, within: Duration) {
    let deadline = Instant::now() + within;
    loop {
        let left = of(directory, 0);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "orphans: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
