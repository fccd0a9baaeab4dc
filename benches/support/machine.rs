//! What a run was measured on, for whoever compares its figures.

use std::{fs, process::Command};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gb: f64,
    pub kernel: String,
    pub postgresql: String,
    pub nats: String,
    pub rustc: String,
    pub commit: String,
    pub date: String,
}

impl Machine {
    pub fn here() -> Self {
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gb: memory_gb(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| unknown(), |text| text.trim().to_owned()),
            postgresql: postgresql(),
            nats: said("nats-server", &["--version"]).unwrap_or_else(unknown),
            rustc: said("rustc", &["--version"]).unwrap_or_else(unknown),
            commit: said("git", &["describe", "--always", "--dirty", "--exclude=*"]).unwrap_or_else(unknown),
            date: chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string(),
        }
    }

    /// A sentence for people.
    pub fn describe(&self) -> String {
        format!(
            "{}, {} cores, {:.0} GB of memory, Linux {}; {}, {}, {}.",
            self.cpu, self.cores, self.memory_gb, self.kernel, self.postgresql, self.nats, self.rustc
        )
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_gb() -> f64 {
    let kib =
        field("/proc/meminfo", "MemTotal").and_then(|text| text.trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0 / 1024.0
}

/// The first line of what a program says.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned())
}

/// Of the newest that is installed, which is the one that the private server runs.
fn postgresql() -> String {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = installed
        .filter_map(|version| {
            let number: u32 = version.file_name().to_str()?.parse().ok()?;
            Some((number, version.path().join("bin/postgres")))
        })
        .max();
    let program = newest.map_or_else(|| "postgres".to_owned(), |(_, path)| path.display().to_string());
    said(&program, &["--version"])
        .map_or_else(unknown, |text| text.replace("postgres (PostgreSQL)", "PostgreSQL"))
}
