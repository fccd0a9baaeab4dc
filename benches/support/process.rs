//! What a process has taken of the machine.

use std::fs;

/// Resident memory now.
pub fn resident_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    let kib: f64 = kib.unwrap_or_else(|| panic!("no VmRSS in {status}"));
    kib / 1024.0
}
