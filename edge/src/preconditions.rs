//! `If-Match` and `ETag`: a version as an entity tag (RFC 9110 8.8.3 and 13.1.1).

use axum::extract::FromRequestParts;
use http::header::IF_MATCH;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use crate::Problem;

/// The version that a command may be decided on. Refuses with 400 `malformed-header`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    Absent,
    /// `*`: whatever the version, but something must be there.
    Any,
    /// The versions that strong tags name. Weak tags never match and tags that are no versions match nothing, so the
    /// list may be empty.
    Versions(Vec<u64>),
}

impl IfMatch {
    /// # Errors
    /// 400 `malformed-header` where the header is neither `*` nor a list of entity tags.
    pub fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut values = headers.get_all(IF_MATCH).iter().peekable();
        let Some(first) = values.peek() else { return Ok(Self::Absent) };
        if first.as_bytes().trim_ascii() == b"*" {
            let _ = values.next();
            return if values.next().is_none() { Ok(Self::Any) } else { Err(malformed()) };
        }
        let mut versions = Vec::new();
        let mut tags = 0;
        for value in values {
            tags += read_tags(value.as_bytes(), &mut versions).ok_or_else(malformed)?;
        }
        if tags == 0 { Err(malformed()) } else { Ok(Self::Versions(versions)) }
    }

    /// Whether a command may go on at this version of what is there; a version of 0 means that nothing is.
    #[must_use]
    pub fn allows(&self, version: u64) -> bool {
        match self {
            Self::Absent => true,
            Self::Any => version > 0,
            Self::Versions(versions) => versions.contains(&version),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Self::read(&parts.headers)
    }
}

/// The entity tag of a version: `"17"`.
#[must_use]
pub fn etag(version: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).expect("digits within quotes are visible ASCII")
}

fn malformed() -> Problem {
    Problem::malformed_header("If-Match", "must be * or a list of entity tags such as \"17\"")
}

/// Reads one header line, which may have empty parts (RFC 9110 5.6.1), and counts its tags.
fn read_tags(line: &[u8], versions: &mut Vec<u64>) -> Option<usize> {
    let mut rest = line.trim_ascii();
    let mut tags = 0;
    while !rest.is_empty() {
        if let Some(more) = rest.strip_prefix(b",") {
            rest = more.trim_ascii_start();
            continue;
        }
        let (weak, quoted) = rest.strip_prefix(b"W/").map_or((false, rest), |quoted| (true, quoted));
        let opened = quoted.strip_prefix(b"\"")?;
        let end = opened.iter().position(|b| *b == b'"')?;
        let tag = &opened[..end];
        if !tag.iter().all(|b| matches!(b, 0x21 | 0x23..=0x7e | 0x80..)) {
            return None;
        }
        tags += 1;
        if !weak {
            versions.extend(version(tag));
        }
        rest = opened[end + 1..].trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
    Some(tags)
}

/// Exactly what [`etag`] writes: tags are compared by character, so `"017"` is another tag than `"17"`.
fn version(tag: &[u8]) -> Option<u64> {
    let canonical = tag.iter().all(u8::is_ascii_digit) && (tag.len() == 1 || tag.first() != Some(&b'0'));
    if canonical { std::str::from_utf8(tag).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{body_json, body_text, get_with, header_map, send};
    use axum::Router;
    use axum::routing::get;
    use proptest::prelude::*;

    fn read(values: &[&str]) -> Result<IfMatch, u16> {
        let pairs: Vec<_> = values.iter().map(|value| ("if-match", *value)).collect();
        IfMatch::read(&header_map(&pairs)).map_err(|problem| problem.status.as_u16())
    }

    #[tokio::test]
    async fn the_extractor_answers_a_malformed_header() {
        let router = Router::new().route("/", get(async |condition: IfMatch| format!("{condition:?}")));
        let response = send(router.clone(), get_with(&[("if-match", "\"17\"")])).await;
        assert_eq!(body_text(response).await, "Versions([17])");
        let response = send(router, get_with(&[("if-match", "17")])).await;
        assert_eq!(response.status(), 400);
        assert_eq!(body_json(response).await["errors"][0]["parameter"], "If-Match");
    }

    #[test]
    fn lists_of_tags_are_versions() {
        let versions = |versions: &[u64]| Ok(IfMatch::Versions(versions.to_vec()));
        assert_eq!(read(&[]), Ok(IfMatch::Absent));
        assert_eq!(read(&[" * "]), Ok(IfMatch::Any));
        assert_eq!(read(&["\"17\""]), versions(&[17]));
        assert_eq!(read(&["\"1\",\"2\" , ,\"3\"", "\"4\""]), versions(&[1, 2, 3, 4]));
        assert_eq!(read(&["W/\"17\", \"5\""]), versions(&[5]));
        for no_version in
            ["W/\"17\"", "\"abc\"", "\"017\"", "\"+17\"", "\"\"", "\"1,7\"", "\"99999999999999999999\""]
        {
            assert_eq!(read(&[no_version]), versions(&[]), "{no_version}");
        }
    }

    #[test]
    fn what_is_no_list_of_tags_is_a_400() {
        for bad in [
            "",
            ",",
            "17",
            "\"17",
            "\"1\" \"2\"",
            "\"1\"x",
            "w/\"1\"",
            "*, \"1\"",
            "\"1\", *",
            "\"a b\"",
            "W/",
        ] {
            assert_eq!(read(&[bad]), Err(400), "{bad}");
        }
        assert_eq!(read(&["*", "*"]), Err(400));
        assert_eq!(read(&["*", "\"1\""]), Err(400));
    }

    #[test]
    fn what_is_allowed_follows_rfc_9110() {
        assert!(IfMatch::Absent.allows(0) && IfMatch::Absent.allows(3));
        assert!(!IfMatch::Any.allows(0) && IfMatch::Any.allows(3));
        let listed = IfMatch::Versions(vec![3, 4]);
        assert!(listed.allows(4) && !listed.allows(5));
        assert!(!IfMatch::Versions(vec![]).allows(1));
    }

    proptest! {
        #[test]
        fn an_etag_matches_its_own_version_only(version: u64, other: u64) {
            let mut headers = HeaderMap::new();
            headers.insert(IF_MATCH, etag(version));
            let condition = IfMatch::read(&headers).unwrap();
            prop_assert!(condition.allows(version));
            prop_assert_eq!(condition.allows(other), version == other);
        }

        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..40), text in "[W/\",0-9 *]{0,20}") {
            let _ = read_tags(&bytes, &mut Vec::new());
            let _ = read_tags(text.as_bytes(), &mut Vec::new());
        }
    }
}
