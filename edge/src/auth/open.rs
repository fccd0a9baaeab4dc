//! Open mode: whoever reaches the port is believed.
//!
//! It is for a laptop or a demo: whoever listens must listen on loopback only, and here the Host must be a loopback name
//! and the Origin, if any, a loopback one, so that a web page from elsewhere can neither rebind a name of its own to us
//! nor post blindly.

use http::header::{HOST, ORIGIN};
use http::request::Parts;

use super::{ACTOR, TENANT, host};
use crate::header;
use crate::principal::{Principal, Scopes, Subject, Tenant};
use crate::problem::{Problem, code};

/// Believes the headers `Tenant` and `Actor`.
pub fn authenticate(parts: &Parts) -> Result<Principal, Problem> {
    check_host(parts)?;
    check_origin(parts)?;
    let tenant = match header::single(&parts.headers, &TENANT, "Tenant")? {
        None => Tenant::default(),
        Some(text) => {
            Tenant::parse(text).map_err(|error| Problem::malformed_header("Tenant", &error.to_string()))?
        }
    };
    let subject = match header::single(&parts.headers, &ACTOR, "Actor")? {
        None => Subject::anonymous(),
        Some(text) => {
            Subject::parse(text).map_err(|error| Problem::malformed_header("Actor", &error.to_string()))?
        }
    };
    Ok(Principal { tenant, subject, scopes: Scopes::all() })
}

/// HTTP/2 names the host in `:authority`, HTTP/1.1 in Host or in an absolute target; where there are two, both count,
/// since others on the way may have believed either.
fn check_host(parts: &Parts) -> Result<(), Problem> {
    let named = header::single(&parts.headers, &HOST, "Host")?;
    let target = parts.uri.authority().map(http::uri::Authority::as_str);
    if named.is_none() && target.is_none() {
        return Err(Problem::malformed_header("Host", "must name the host that is asked"));
    }
    if named.is_none_or(host::is_loopback) && target.is_none_or(host::is_loopback) {
        return Ok(());
    }
    Err(Problem::new(
        code::MISDIRECTED_HOST,
        "without authentication only loopback names are answered to: use localhost, *.localhost, 127.0.0.1 or [::1]",
    ))
}

/// A page of another site may post without asking first where the request is simple (no body, no odd header); the
/// browser tells us by the Origin. Programs that are no browsers send none.
fn check_origin(parts: &Parts) -> Result<(), Problem> {
    let Some(origin) = header::single(&parts.headers, &ORIGIN, "Origin")? else { return Ok(()) };
    match origin.split_once("://") {
        Some((_, host)) if host::is_loopback(host) => Ok(()),
        _ => Err(Problem::new(
            code::FORBIDDEN,
            "without authentication only pages of a loopback origin may ask",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn status(uri: &str, headers: &[(&str, &str)]) -> u16 {
        let (mut parts, ()) = Request::get(uri).body(()).unwrap().into_parts();
        parts.headers = crate::testing::header_map(headers);
        authenticate(&parts).map_or_else(|problem| problem.status.as_u16(), |_| 200)
    }

    #[test]
    fn only_loopback_hosts_are_answered_to() {
        assert_eq!(status("/", &[("host", "localhost:8080")]), 200);
        assert_eq!(status("/", &[("host", "rollcall.example:8080")]), 421);
        assert_eq!(status("/", &[]), 400);
        assert_eq!(status("http://[::1]:8080/", &[]), 200);
        assert_eq!(status("http://rollcall.example/", &[]), 421);
    }

    #[test]
    fn of_host_and_authority_both_must_be_loopback() {
        assert_eq!(status("http://localhost/", &[("host", "evil.example")]), 421);
        assert_eq!(status("http://evil.example/", &[("host", "localhost")]), 421);
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let from = |origin| status("/", &[("host", "localhost"), ("origin", origin)]);
        assert_eq!(from("http://localhost:8080"), 200);
        assert_eq!(from("http://docs.localhost"), 200);
        assert_eq!(from("https://evil.example"), 403);
        assert_eq!(from("null"), 403);
        assert_eq!(from(""), 403);
    }
}
