//! A free TCP port on loopback that stays free while a server restarts.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
};

/// Below lie the ports that other programs are known by.
const FIRST: u16 = 15_000;
const ATTEMPTS: usize = 50;

/// A port that nobody listens on at the moment. Somebody may be faster than the server that it is for: be ready to ask again.
///
/// Not one of the kernel's ephemeral ports, as binding port 0 would give: clients that keep trying to reach a restarting
/// server on such a port can be given it as their own, connect to themselves, and keep the server out.
pub fn free() -> io::Result<u16> {
    let candidates = ephemeral_start().map(|start| FIRST..start).filter(|range| !range.is_empty());
    let found = candidates.and_then(free_within);
    found.map_or_else(|| bind(0), Ok)
}

fn free_within(range: Range<u16>) -> Option<u16> {
    (0..ATTEMPTS).find_map(|_| bind(rand::random_range(range.clone())).ok())
}

fn bind(port: u16) -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr()?.port())
}

fn ephemeral_start() -> Option<u16> {
    parse_range_start(&fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?)
}

fn parse_range_start(text: &str) -> Option<u16> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_bound() {
        let port = free().unwrap();
        assert!(bind(port).is_ok());
        if let Some(start) = ephemeral_start().filter(|start| *start > FIRST) {
            assert!((FIRST..start).contains(&port));
        }
    }

    #[test]
    fn a_taken_port_is_not_given_out() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = listener.local_addr().unwrap().port();
        assert_eq!(free_within(taken..taken + 1), None);
    }

    #[test]
    fn the_kernels_range_is_read() {
        assert_eq!(parse_range_start("32768\t60999\n"), Some(32768));
        assert_eq!(parse_range_start(""), None);
    }
}
