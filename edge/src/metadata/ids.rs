//! The ids of one request, as they stand in its log lines, its answer and its trace.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::{Uuid, fmt::Hyphenated};

use super::{CORRELATION_ID, REQUEST_ID, TRACEPARENT, Traceparent, taken};

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Who a request is, and what it belongs to. Both are `[A-Za-z0-9._-]{1,128}`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestIds {
    request: HeaderValue,
    /// None where it is the request's own.
    correlation: Option<HeaderValue>,
}

impl RequestIds {
    /// Settles the ids of a request whose `traceparent` is settled: the caller's `Request-Id` or `X-Request-Id` where it
    /// is of the form, else a new UUIDv7. It goes into the headers, so that [`RequestMetadata`](super::RequestMetadata)
    /// comes to the same correlation id.
    pub fn settle(headers: &mut HeaderMap) -> Self {
        let request = match (single(headers, &REQUEST_ID), single(headers, &X_REQUEST_ID)) {
            (Some(id), _) => id,
            (None, other) => {
                let id = other.unwrap_or_else(new_id);
                headers.insert(REQUEST_ID.clone(), id.clone());
                id
            }
        };
        let correlation = single(headers, &CORRELATION_ID).or_else(|| {
            let trace = Traceparent::read(headers, &TRACEPARENT)?;
            HeaderValue::from_str(trace.trace_id()).ok()
        });
        Self { request, correlation }
    }

    /// For the answer's header `Request-Id`.
    #[must_use]
    pub fn request_value(&self) -> &HeaderValue {
        &self.request
    }

    /// For the answer's header `Correlation-Id`.
    #[must_use]
    pub fn correlation_value(&self) -> &HeaderValue {
        self.correlation.as_ref().unwrap_or(&self.request)
    }

    #[must_use]
    pub fn request(&self) -> &str {
        text(&self.request)
    }

    #[must_use]
    pub fn correlation(&self) -> &str {
        text(self.correlation_value())
    }
}

fn text(id: &HeaderValue) -> &str {
    id.to_str().expect("ids are letters, digits, '.', '_' and '-'")
}

/// The header's value where it is there once and of the form.
fn single(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if taken(value.as_bytes()) => Some(value.clone()),
        _ => None,
    }
}

fn new_id() -> HeaderValue {
    let mut text = [0; Hyphenated::LENGTH];
    Uuid::now_v7().hyphenated().encode_lower(&mut text);
    // Owned bytes are one allocation, however often they are cloned.
    HeaderValue::from_maybe_shared(Bytes::from_owner(text)).expect("a UUID is a header's value")
}

#[cfg(test)]
mod tests {
    use super::super::RequestMetadata;
    use super::*;
    use crate::testing::header_map;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn settle(headers: &[(&str, &str)]) -> (RequestIds, HeaderMap) {
        let mut headers = header_map(headers);
        (RequestIds::settle(&mut headers), headers)
    }

    #[test]
    fn a_callers_request_id_is_kept_where_it_is_of_the_form() {
        for name in ["Request-Id", "X-Request-Id"] {
            assert_eq!(settle(&[(name, "a.b_c-9")]).0.request(), "a.b_c-9");
            for bad in ["", "a b", "a\"b", "ä", &"x".repeat(129)] {
                let (ids, headers) = settle(&[(name, bad)]);
                assert_eq!(Uuid::parse_str(ids.request()).unwrap().get_version_num(), 7, "{name}: {bad}");
                assert_eq!(headers.get_all("request-id").iter().count(), 1);
            }
        }
        let twice = settle(&[("Request-Id", "a"), ("Request-Id", "b")]).0;
        assert!(Uuid::parse_str(twice.request()).is_ok());
    }

    #[test]
    fn log_lines_and_events_agree_on_the_correlation_id() {
        for (headers, expected) in [
            (vec![("Correlation-Id", "c-1"), ("Request-Id", "r-1"), ("traceparent", TRACE)], Some("c-1")),
            (vec![("Request-Id", "r-1"), ("traceparent", TRACE)], Some("0af7651916cd43dd8448eb211c80319c")),
            (vec![("Request-Id", "r-1")], Some("r-1")),
            (vec![("X-Request-Id", "x-1")], Some("x-1")),
            (vec![], None),
        ] {
            let (ids, headers) = settle(&headers);
            let metadata = RequestMetadata::read(&headers).unwrap();
            assert_eq!(ids.correlation(), metadata.correlation_id);
            if let Some(expected) = expected {
                assert_eq!(ids.correlation(), expected);
            }
        }
    }
}
