//! How the private PostgreSQL runs.

use std::{ffi::OsString, path::Path};

/// Who may connect, as whom, from where: loopback with a password, and nothing else.
pub const HOST_BASED_AUTHENTICATION: &str = "host all all 127.0.0.1/32 scram-sha-256\n";

/// On the command line, so that they hold whatever `postgresql.conf` or ALTER SYSTEM say, and in every version.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("cluster_name", "rollcall"),
    ("max_connections", "200"),
    // Acknowledged means on disk.
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    // The first change of a page after a checkpoint writes the whole page to the WAL: three times as long between
    // checkpoints as by default means fewer of those. The size bounds what recovery has to replay.
    ("checkpoint_timeout", "15min"),
    ("max_wal_size", "4GB"),
    // By default these go by the size of a segment, which is small here (cluster.rs).
    ("min_wal_size", "256MB"),
    ("wal_buffers", "16MB"),
    ("timezone", "UTC"),
    // What goes to the log file must not hold personal values, and the texts of errors quote what they complain about.
    // `log` stands above ERROR: errors go to the client that caused them, LOG, FATAL and PANIC to the file.
    ("log_min_messages", "log"),
    ("log_min_error_statement", "panic"),
    ("log_error_verbosity", "terse"),
    ("log_statement", "none"),
    ("log_min_duration_statement", "-1"),
    ("log_parameter_max_length", "0"),
    ("log_parameter_max_length_on_error", "0"),
    ("log_destination", "stderr"),
    ("logging_collector", "off"),
    ("log_timezone", "UTC"),
];

pub fn arguments(data: &Path, port: u16) -> Vec<OsString> {
    let buffers = format!("shared_buffers={}MB", shared_buffers_mib(memory_mib()));
    let place = [
        OsString::from("-D"),
        data.into(),
        "-p".into(),
        port.to_string().into(),
        "-c".into(),
        buffers.into(),
    ];
    let settings = SETTINGS.iter().flat_map(|(name, value)| ["-c".into(), format!("{name}={value}").into()]);
    place.into_iter().chain(settings).collect()
}

/// Claims and records have random keys: where their indexes do not fit, each append waits for pages to be written. A
/// sixteenth of the machine is the server's, since others live there too; PostgreSQL takes it as it needs it.
fn shared_buffers_mib(memory_mib: u64) -> u64 {
    (memory_mib / 16).clamp(256, 1_024)
}

/// Of the machine; none where it does not say.
fn memory_mib() -> u64 {
    nix::sys::sysinfo::sysinfo().map_or(0, |machine| machine.ram_total() / (1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sixteenth_of_the_machine_within_bounds_is_the_servers() {
        for (memory, buffers) in [(0, 256), (2_048, 256), (8_192, 512), (24_000, 1_024), (1 << 20, 1_024)] {
            assert_eq!(shared_buffers_mib(memory), buffers);
        }
    }
}
