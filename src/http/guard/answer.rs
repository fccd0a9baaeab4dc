//! Large answers on their way: in parts, so that what the client does not take stays here and not in the connection's
//! buffer; and given up in the end, so that a client that takes nothing holds nothing.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::{task::AbortHandle, time::Instant};

const PART_BYTES: usize = 32 * 1024;

/// The body, which must be sent by the deadline; `held` is dropped with the last of it.
pub(super) fn within<H: Send + 'static>(body: Body, deadline: Instant, held: H) -> Body {
    let content = Arc::new(Mutex::new(Some(Content { body, rest: Bytes::new(), _held: held })));
    let late = {
        let content = Arc::clone(&content);
        tokio::spawn(async move {
            tokio::time::sleep_until(deadline).await;
            drop(lock(&content).take());
        })
    };
    Body::new(Answer { content, late: late.abort_handle() })
}

struct Content<H> {
    body: Body,
    /// What came of the body and has yet to be sent.
    rest: Bytes,
    _held: H,
}

struct Answer<H> {
    /// None once it was given up.
    content: Arc<Mutex<Option<Content<H>>>>,
    late: AbortHandle,
}

impl<H> Drop for Answer<H> {
    fn drop(&mut self) {
        self.late.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<H: Send + 'static> HttpBody for Answer<H> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut content = lock(&self.content);
        let Some(content) = content.as_mut() else {
            return Poll::Ready(Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut)))));
        };
        if content.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut content.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => content.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        // A copy: a slice in the connection's buffer would keep the whole answer in memory.
        let part = content.rest.split_to(content.rest.len().min(PART_BYTES));
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&part)))))
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.content)
            .as_ref()
            .is_some_and(|content| content.rest.is_empty() && content.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let content = lock(&self.content);
        let Some(content) = content.as_ref() else { return SizeHint::default() };
        let (mut hint, rest) = (content.body.size_hint(), content.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };

    use http_body_util::BodyExt;

    use super::*;

    struct Held(Arc<AtomicBool>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn answer(bytes: usize, within_ms: u64) -> (Body, Arc<AtomicBool>) {
        let freed = Arc::new(AtomicBool::new(false));
        let deadline = Instant::now() + Duration::from_millis(within_ms);
        (within(Body::from(vec![7; bytes]), deadline, Held(Arc::clone(&freed))), freed)
    }

    #[tokio::test]
    async fn an_answer_comes_whole_in_parts_and_frees_what_it_held() {
        let (mut body, freed) = answer(100_000, 60_000);
        assert_eq!(body.size_hint().exact(), Some(100_000));
        let (mut bytes, mut parts) = (0, 0);
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() <= PART_BYTES && !freed.load(Ordering::Relaxed));
            (bytes, parts) = (bytes + data.len(), parts + 1);
        }
        assert_eq!((bytes, parts), (100_000, 4));
        drop(body);
        // The task that watched the time ends in its own time.
        while !freed.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_not_taken_in_time_holds_nothing_and_ends_in_an_error() {
        let (mut body, freed) = answer(100_000, 20);
        body.frame().await.unwrap().unwrap();
        while !freed.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(body.frame().await.unwrap().is_err());
    }
}
