//! The body: its media type, its coding and its length, before anything looks inside.

use std::{io::Read, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::Bytes;
use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::{
    budget::BodyBudget,
    problem::{FieldError, Problem, code},
};

/// How long the next part of a body may take to come.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Compressed bodies beyond this are expanded on a thread of their own.
const EXPAND_HERE_BYTES: usize = 16 * 1024;
/// 8 MiB, as RFC 9659 bounds it for `zstd` in HTTP.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A JSON body of at most `LIMIT` bytes, expanded where it came compressed, whole but not yet parsed. Takes
/// `application/json` and every `+json` type; no body and no Content-Type mean `{}`. Refuses with 413, 415, 408 where it
/// stops coming, 503 where there is no room for it now, or 400 where it breaks off.
#[derive(Clone, Debug)]
pub struct JsonBody<const LIMIT: usize>(pub Bytes);

impl<S: Sync, const LIMIT: usize> FromRequest<S> for JsonBody<LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let coding = Coding::read(&parts.headers)?;
        let typed = check_media_type(&parts.headers)?;
        let budget = parts.extensions.get::<BodyBudget>();
        let bytes = read_body(&parts.headers, body, LIMIT, budget, STALL_MAX).await?;
        let bytes = match coding {
            Coding::Identity => bytes,
            coding => coding.expand(bytes, LIMIT, budget).await?,
        };
        match (typed, bytes.is_empty()) {
            (true, _) => Ok(Self(bytes)),
            (false, true) => Ok(Self(Bytes::from_static(b"{}"))),
            (false, false) => Err(unsupported("Content-Type", "is missing")),
        }
    }
}

/// Reads a body of at most `limit` bytes; a Content-Length beyond it is refused before anything is read.
async fn read_body(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    budget: Option<&BodyBudget>,
    stall_max: Duration,
) -> Result<Bytes, Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    let mut body = Limited::new(body, limit);
    // Most bodies are one part, which is passed on as it came.
    let Some(first) = next_part(&mut body, limit, budget, stall_max).await? else { return Ok(Bytes::new()) };
    let Some(second) = next_part(&mut body, limit, budget, stall_max).await? else { return Ok(first) };
    let announced = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    let mut whole = Vec::with_capacity(announced.max(first.len() + second.len()));
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&second);
    while let Some(next) = next_part(&mut body, limit, budget, stall_max).await? {
        whole.extend_from_slice(&next);
    }
    Ok(whole.into())
}

/// The body's next bytes; none at its end.
async fn next_part(
    body: &mut Limited<Body>,
    limit: usize,
    budget: Option<&BodyBudget>,
    stall_max: Duration,
) -> Result<Option<Bytes>, Problem> {
    loop {
        // A part that is there already needs no timer.
        let frame = match futures_util::FutureExt::now_or_never(body.frame()) {
            Some(frame) => frame,
            None => tokio::time::timeout(stall_max, body.frame()).await.map_err(|_| {
                Problem::new(code::REQUEST_TIMEOUT, "the body stopped coming; nothing was done")
            })?,
        };
        let data = match frame {
            None => return Ok(None),
            Some(Ok(frame)) => frame.into_data(),
            Some(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large(limit)),
            Some(Err(_)) => {
                return Err(Problem::new(code::MALFORMED_REQUEST, "the body broke off before its end"));
            }
        };
        // Trailers say nothing that is of interest here.
        let Ok(data) = data else { continue };
        budget.map_or(Ok(()), |budget| budget.take(data.len()))?;
        return Ok(Some(data));
    }
}

/// How a body was compressed (RFC 9110 8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Zstd,
}

impl Coding {
    fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let Some(coding) = codings.next() else { return Ok(Self::Identity) };
        let known: [(&[u8], Self); 4] = [
            (b"identity", Self::Identity),
            (b"gzip", Self::Gzip),
            (b"x-gzip", Self::Gzip),
            (b"zstd", Self::Zstd),
        ];
        let known = known.iter().find(|(name, _)| coding.as_bytes().eq_ignore_ascii_case(name));
        match (known, codings.next()) {
            (Some((_, coding)), None) => Ok(*coding),
            _ => Err(unsupported("Content-Encoding", "must be gzip or zstd, once, or absent")),
        }
    }

    /// The expanded body; never makes more than `limit` bytes of it.
    async fn expand(self, bytes: Bytes, limit: usize, budget: Option<&BodyBudget>) -> Result<Bytes, Problem> {
        // Room for the most that it may become, since nothing says what it will.
        budget.map_or(Ok(()), |budget| budget.take(limit))?;
        let expanded = if bytes.len() <= EXPAND_HERE_BYTES {
            self.expand_now(&bytes, limit)
        } else {
            let expand = tokio::task::spawn_blocking(move || self.expand_now(&bytes, limit));
            expand.await.map_err(|error| Problem::internal(&error))?
        };
        let expanded = expanded.map_err(|_| {
            Problem::new(code::MALFORMED_REQUEST, "the body is not of its Content-Encoding, or was cut")
        })?;
        if expanded.len() > limit { Err(too_large(limit)) } else { Ok(expanded.into()) }
    }

    /// One byte more than `limit` at most, which tells that there is more.
    fn expand_now(self, bytes: &[u8], limit: usize) -> std::io::Result<Vec<u8>> {
        let mut expanded = Vec::with_capacity((bytes.len() * 4).min(limit + 1));
        let most = limit as u64 + 1;
        match self {
            Self::Identity => expanded.extend_from_slice(bytes),
            Self::Gzip => {
                flate2::bufread::MultiGzDecoder::new(bytes).take(most).read_to_end(&mut expanded)?;
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                decoder.take(most).read_to_end(&mut expanded)?;
            }
        }
        Ok(expanded)
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(code::BODY_TOO_LARGE, format!("the body must not be longer than {limit} bytes"))
}

/// Whether there is a media type, which then is one of JSON.
fn check_media_type(headers: &HeaderMap) -> Result<bool, Problem> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(value), None) if is_json(value.as_bytes()) => Ok(true),
        (Some(_), None) => Err(unsupported("Content-Type", "is not of JSON")),
        (Some(_), Some(_)) => Err(Problem::malformed_header("Content-Type", "must be given once")),
    }
}

fn is_json(value: &[u8]) -> bool {
    let essence = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let Some(slash) = essence.iter().position(|b| *b == b'/') else { return false };
    let (kind, subtype) = (&essence[..slash], &essence[slash + 1..]);
    let suffixed = subtype.len() > 5 && subtype[subtype.len() - 5..].eq_ignore_ascii_case(b"+json");
    !kind.is_empty() && (suffixed || essence.eq_ignore_ascii_case(b"application/json"))
}

fn unsupported(header: &'static str, detail: &str) -> Problem {
    Problem::new(
        code::UNSUPPORTED_MEDIA_TYPE,
        format!("{header} {detail}; send application/json (for PATCH also application/merge-patch+json)"),
    )
    .with_error(FieldError::parameter(header, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{body_json, body_text, send};
    use axum::Router;
    use axum::routing::post;
    use proptest::prelude::*;

    fn router() -> Router {
        Router::new().route(
            "/",
            post(async |JsonBody(bytes): JsonBody<16>| String::from_utf8(bytes.to_vec()).unwrap()),
        )
    }

    async fn posted(headers: &[(&str, &str)], body: impl Into<Body>) -> (u16, String) {
        let mut request = Request::post("/").body(body.into()).unwrap();
        request.headers_mut().extend(crate::testing::header_map(headers));
        let response = send(router(), request).await;
        match response.status().as_u16() {
            200 => (200, body_text(response).await),
            status => (status, body_json(response).await["code"].as_str().unwrap().to_owned()),
        }
    }

    #[tokio::test]
    async fn every_json_type_is_taken_and_no_other() {
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/merge-patch+json",
            "application/vnd.x+JSON ;a=b",
        ] {
            assert_eq!(posted(&[("content-type", good)], "[1]").await, (200, "[1]".to_owned()), "{good}");
        }
        for bad in
            ["text/plain", "application/jsonx", "+json", "application/+json", "json", "", ";", "text/json5"]
        {
            assert_eq!(posted(&[("content-type", bad)], "[1]").await.0, 415, "{bad}");
        }
        let twice = [("content-type", "application/json"), ("content-type", "text/plain")];
        assert_eq!(posted(&twice, "{}").await, (400, "malformed-header".to_owned()));
    }

    #[tokio::test]
    async fn no_body_and_no_type_is_the_empty_object() {
        assert_eq!(posted(&[], "").await, (200, "{}".to_owned()));
        assert_eq!(posted(&[("content-type", "application/json")], "").await, (200, String::new()));
        assert_eq!(posted(&[], "{}").await, (415, "unsupported-media-type".to_owned()));
    }

    #[tokio::test]
    async fn a_body_past_the_limit_is_refused_announced_or_not() {
        const JSON: (&str, &str) = ("content-type", "application/json");
        assert_eq!(posted(&[JSON], "x".repeat(16)).await.0, 200);
        assert_eq!(posted(&[JSON], "x".repeat(17)).await, (413, "body-too-large".to_owned()));
        assert_eq!(posted(&[JSON, ("content-length", "17")], "{}").await, (413, "body-too-large".to_owned()));
    }

    fn compressed(coding: &str, plain: &[u8]) -> Vec<u8> {
        use std::io::Write;
        match coding {
            "gzip" => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            "zstd" => zstd::encode_all(plain, 19).unwrap(),
            other => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn a_compressed_body_is_expanded_within_the_limit() {
        for coding in ["gzip", "zstd"] {
            let headers = [("content-type", "application/json"), ("content-encoding", coding)];
            let sixteen = compressed(coding, &[b' '; 16]);
            assert_eq!(expand(coding, &sixteen, 16).await, Ok(16), "{coding}");
            let mut request = Request::post("/").body(Body::from(sixteen.clone())).unwrap();
            request.headers_mut().extend(crate::testing::header_map(&headers));
            let JsonBody(bytes) = JsonBody::<64>::from_request(request, &()).await.unwrap();
            assert_eq!(bytes, vec![b' '; 16]);
            let more = compressed(coding, &[b' '; 17]);
            assert_eq!(expand(coding, &more, 16).await, Err(413));
            // A bomb: 64 MiB of spaces in a few kilobytes.
            let bomb = compressed(coding, &vec![b' '; 64 << 20]);
            assert_eq!(expand(coding, &bomb, 1 << 20).await, Err(413), "{coding}");
            let cut = &sixteen[..sixteen.len() - 3];
            assert_eq!(expand(coding, cut, 16).await, Err(400), "{coding}");
            assert_eq!(expand(coding, b"{}", 16).await, Err(400), "{coding}");
        }
        assert_eq!(posted(&[("content-type", "a/b+json"), ("content-encoding", "br")], "").await.0, 415);
        let twice =
            [("content-type", "a/b+json"), ("content-encoding", "gzip"), ("content-encoding", "gzip")];
        assert_eq!(posted(&twice, "").await.0, 415);
    }

    async fn expand(coding: &str, bytes: &[u8], limit: usize) -> Result<usize, u16> {
        let headers = crate::testing::header_map(&[("content-encoding", coding)]);
        let coding = Coding::read(&headers).unwrap();
        let expanded = coding.expand(Bytes::copy_from_slice(bytes), limit, None).await;
        expanded.map(|bytes| bytes.len()).map_err(|problem| problem.status.as_u16())
    }

    #[tokio::test]
    async fn a_zstd_frame_that_wants_a_huge_window_is_refused() {
        // Magic number, a frame header without content size and a window of 2^27 bytes, an empty last block (RFC 8878).
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3, 0x01, 0x00, 0x00];
        assert_eq!(expand("zstd", &frame, 16).await, Err(400));
    }

    #[tokio::test]
    async fn a_body_for_which_there_is_no_room_is_refused_at_once() {
        let budget = crate::budget::Budget::new(1 << 20);
        let post = async |length: usize| {
            let request = Request::post("/").body(Body::from(vec![b'1'; length])).unwrap();
            let (mut parts, body) = request.into_parts();
            parts.headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
            let taken = budget.of_request();
            parts.extensions.insert(taken.clone());
            let read = JsonBody::<{ 2 << 20 }>::from_request(Request::from_parts(parts, body), &()).await;
            (taken, read.map_err(|problem| problem.code))
        };
        let (held, first) = post(800 << 10).await;
        assert!(first.is_ok());
        assert_eq!(post(800 << 10).await.1.unwrap_err(), "overloaded");
        drop(held);
        assert!(post(800 << 10).await.1.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_stops_coming_is_given_up() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
        sender.send(Bytes::from_static(b"{")).await.unwrap();
        let body = Body::new(Trickle(receiver));
        let stalled = read_body(&HeaderMap::new(), body, 16, None, Duration::from_millis(20)).await;
        assert_eq!(stalled.unwrap_err().code, "request-timeout");
        drop(sender);
    }

    struct Trickle(tokio::sync::mpsc::Receiver<Bytes>);

    impl http_body::Body for Trickle {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            self.0.poll_recv(context).map(|part| part.map(|part| Ok(http_body::Frame::data(part))))
        }
    }

    proptest! {
        #[test]
        fn any_media_type_is_answered(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = is_json(&bytes);
        }
    }
}
