//! What ties a request to others: correlation, causation and trace.

mod ids;
mod traceparent;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use uuid::Uuid;

pub use ids::RequestIds;
pub use traceparent::Traceparent;

use crate::{Problem, header};

static CORRELATION_ID: HeaderName = HeaderName::from_static("correlation-id");
static REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
static CAUSATION_ID: HeaderName = HeaderName::from_static("causation-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Goes into the metadata of every event that the request causes. Ids are `[A-Za-z0-9._-]{1,128}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestMetadata {
    /// The header's, else the trace id, else the request's own id, else a new UUIDv7: there always is one.
    pub correlation_id: String,
    pub causation_id: Option<String>,
    pub traceparent: Option<Traceparent>,
}

impl RequestMetadata {
    /// # Errors
    /// 400 `malformed-header`. A malformed `traceparent` is passed over, as the W3C recommendation asks.
    pub fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let traceparent = Traceparent::read(headers, &TRACEPARENT);
        let correlation_id = match (id(headers, &CORRELATION_ID, "Correlation-Id")?, &traceparent) {
            (Some(id), _) => id,
            (None, Some(trace)) => trace.trace_id().to_owned(),
            (None, None) => own_id(headers),
        };
        Ok(Self { correlation_id, causation_id: id(headers, &CAUSATION_ID, "Causation-Id")?, traceparent })
    }
}

fn id(headers: &HeaderMap, key: &HeaderName, name: &'static str) -> Result<Option<String>, Problem> {
    let Some(text) = header::single(headers, key, name)? else { return Ok(None) };
    if !taken(text.as_bytes()) {
        let form = "must be 1 to 128 of the characters A-Z, a-z, 0-9, '.', '_' and '-'";
        return Err(Problem::malformed_header(name, form));
    }
    Ok(Some(text.to_owned()))
}

/// Whether an id is of the form.
fn taken(id: &[u8]) -> bool {
    let taken = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=128).contains(&id.len()) && id.iter().all(taken)
}

/// What [`RequestIds::settle`] put into the headers.
fn own_id(headers: &HeaderMap) -> String {
    match headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()) {
        Some(id) if taken(id.as_bytes()) => id.to_owned(),
        _ => Uuid::now_v7().to_string(),
    }
}

impl<S: Sync> FromRequestParts<S> for RequestMetadata {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Self::read(&parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{body_text, get_with, header_map, send};
    use axum::Router;
    use axum::routing::get;
    use proptest::prelude::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(headers: &[(&str, &str)]) -> Result<RequestMetadata, Problem> {
        RequestMetadata::read(&header_map(headers))
    }

    #[tokio::test]
    async fn the_extractor_reads_the_headers() {
        let router = Router::new()
            .route("/", get(async |metadata: RequestMetadata| format!("{metadata:?}")))
            .with_state(());
        let request =
            get_with(&[("correlation-id", "a.b_c-D"), ("causation-id", "x"), ("traceparent", TRACE)]);
        let text = body_text(send(router, request).await).await;
        assert!(text.contains("a.b_c-D") && text.contains("\"x\"") && text.contains(TRACE), "{text}");
    }

    #[test]
    fn a_missing_correlation_id_is_the_trace_id_or_a_new_one() {
        let traced = read(&[("traceparent", TRACE)]).unwrap();
        assert_eq!(traced.correlation_id, "0af7651916cd43dd8448eb211c80319c");
        let one = read(&[]).unwrap().correlation_id;
        assert_eq!(Uuid::parse_str(&one).unwrap().get_version_num(), 7);
        assert_ne!(one, read(&[]).unwrap().correlation_id);
    }

    #[test]
    fn malformed_ids_are_refused_and_malformed_traces_ignored() {
        for name in ["Correlation-Id", "Causation-Id"] {
            for bad in ["", "a b", "a/b", &"x".repeat(129)] {
                let problem = read(&[(name, bad)]).unwrap_err();
                assert_eq!(problem.code, "malformed-header");
                assert_eq!(problem.errors[0].parameter.as_deref(), Some(name));
            }
            assert!(read(&[(name, "a"), (name, "a")]).is_err());
        }
        assert_eq!(read(&[("traceparent", "nonsense")]).unwrap().traceparent, None);
    }

    proptest! {
        #[test]
        fn any_header_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
            if let Ok(value) = http::HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                for name in [&CORRELATION_ID, &CAUSATION_ID, &TRACEPARENT] {
                    headers.insert(name, value.clone());
                }
                let _ = RequestMetadata::read(&headers);
            }
        }
    }
}
