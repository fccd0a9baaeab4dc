//! Which names mean this machine.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether `host[:port]` is `localhost`, a name under it (RFC 6761 6.3), in 127.0.0.0/8, or `[::1]`.
pub fn is_loopback(authority: &str) -> bool {
    if let Some(rest) = authority.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let port_stands = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port_stands && address.parse() == Ok(Ipv6Addr::LOCALHOST);
    }
    let host = match authority.split_once(':') {
        None => authority,
        Some((host, port)) if is_port(port) => host,
        Some(_) => return false,
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback()) || is_localhost(name.as_bytes())
}

/// `port = *DIGIT` (RFC 3986 3.2.3): it may be empty.
fn is_port(port: &str) -> bool {
    port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit())
}

fn is_localhost(name: &[u8]) -> bool {
    const LOCALHOST: &[u8] = b"localhost";
    let Some(start) = name.len().checked_sub(LOCALHOST.len()) else { return false };
    let (labels, last) = name.split_at(start);
    if !last.eq_ignore_ascii_case(LOCALHOST) {
        return false;
    }
    let Some(labels) = labels.strip_suffix(b".") else { return labels.is_empty() };
    labels.split(|b| *b == b'.').all(|label| {
        !label.is_empty() && label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn loopback_names_with_any_port() {
        for good in [
            "localhost",
            "LocalHost:8080",
            "localhost.",
            "localhost:",
            "docs.localhost",
            "a.b-c.localhost:1",
            "127.0.0.1",
            "127.8.9.10:65535",
            "[::1]",
            "[::1]:8080",
            "[0:0:0:0:0:0:0:1]",
        ] {
            assert!(is_loopback(good), "{good}");
        }
    }

    #[test]
    fn everything_else_is_elsewhere() {
        for bad in [
            "",
            ":8080",
            "localhost.evil.example",
            "evillocalhost",
            ".localhost",
            "a..localhost",
            "evil.example/.localhost",
            "user@localhost",
            "localhost:80x",
            "localhost:80:80",
            "127.0.0.1.evil.example",
            "127.1",
            "128.0.0.1",
            "10.0.0.1",
            "0.0.0.0",
            "[::1",
            "::1",
            "[::1]x",
            "[::2]",
            "[::ffff:10.0.0.1]",
            "localhost localhost",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[\\[\\]:.0-9a-z]{0,24}|.*") {
            let _ = is_loopback(&text);
        }
    }
}
