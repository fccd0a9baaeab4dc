//! Traces that go on where no caller waits: an event's metadata names the span of the request that caused it, and
//! whoever stores, applies or publishes the event later makes a span under that one.
//!
//! Off unless [`install`] was called, which costs one load of an atomic. Spans say where an event is (partition and
//! position) and nothing of whom it is about.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use opentelemetry::{
    Context, KeyValue,
    global::BoxedTracer,
    trace::{Span as _, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer},
};
use sqlx::{PgConnection, Row};

use crate::{
    Log, Partition, Position, Recorded,
    tail::{Span, signed, unsigned},
};

/// Spans made of one piece of work at most: a batch of thousands shows in these as well as in all.
pub const SPANS_MAX: usize = 64;

static TRACER: OnceLock<BoxedTracer> = OnceLock::new();

/// Where spans go from now on. Only the first call counts.
pub fn install(tracer: BoxedTracer) {
    // A second tracer of one process is a mistake without harm.
    let _ = TRACER.set(tracer);
}

/// A piece of work on events, under way.
pub struct Work {
    tracer: &'static BoxedTracer,
    name: Cow<'static, str>,
    begun: SystemTime,
}

impl Work {
    /// None where no traces are taken. `name` is `crate.noun.verb`.
    pub fn begin(name: impl FnOnce() -> Cow<'static, str>) -> Option<Self> {
        let tracer = TRACER.get()?;
        Some(Self { tracer, name: name(), begun: SystemTime::now() })
    }

    /// Makes a span under each event whose trace is sampled, up to [`SPANS_MAX`], from the beginning of the work to
    /// `ended`. Events come as their metadata and what makes their span's attributes.
    pub fn end<'a, A: FnOnce() -> Vec<KeyValue>>(
        &self,
        ended: SystemTime,
        events: impl IntoIterator<Item = (&'a str, A)>,
    ) {
        let sampled = events.into_iter().filter_map(|(metadata, of)| Some((sampled_parent(metadata)?, of)));
        for (parent, attributes) in sampled.take(SPANS_MAX) {
            let parent = Context::new().with_remote_span_context(parent);
            let span = self.tracer.span_builder(self.name.clone());
            let span = span.with_start_time(self.begun).with_attributes(attributes());
            span.start_with_context(self.tracer, &parent).end_with_timestamp(ended);
        }
    }

    /// As [`end`](Self::end), for events that say where they are.
    pub fn end_events<'a>(&self, ended: SystemTime, events: impl IntoIterator<Item = &'a Traced>) {
        self.end(ended, events.into_iter().map(|event| (&*event.metadata, || event.attributes())));
    }
}

/// An event whose trace is sampled.
#[derive(Clone, Debug)]
pub struct Traced {
    pub partition: Partition,
    pub position: Position,
    pub event_type: Cow<'static, str>,
    /// A JSON object of strings.
    pub metadata: Arc<str>,
}

impl Traced {
    /// None where the event's trace is not sampled.
    pub fn of(event: &Recorded) -> Option<Self> {
        sampled_parent(&event.metadata)?;
        Some(Self {
            partition: event.partition,
            position: event.position,
            event_type: event.event_type.clone(),
            metadata: event.metadata.clone(),
        })
    }

    fn attributes(&self) -> Vec<KeyValue> {
        vec![
            KeyValue::new("event.partition", i64::from(self.partition)),
            KeyValue::new("event.position", signed(self.position)),
            KeyValue::new("event.type", self.event_type.clone()),
        ]
    }
}

impl Log {
    /// The first events of the spans whose traces are sampled, from memory where they are there. For who does not read
    /// the events of its work itself; to be asked only while traces are taken.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn traced(
        &self,
        connection: &mut PgConnection,
        spans: &[Span],
    ) -> Result<Vec<Traced>, sqlx::Error> {
        let mut traced = Vec::new();
        let mut elsewhere: Vec<&Span> = Vec::new();
        for span in spans {
            match self.recent(span) {
                Some(events) => traced.extend(events.iter().filter_map(|event| Traced::of(event))),
                None => elsewhere.push(span),
            }
        }
        traced.truncate(SPANS_MAX);
        if !elsewhere.is_empty() && traced.len() < SPANS_MAX {
            traced.extend(read(connection, &elsewhere, SPANS_MAX - traced.len()).await?);
        }
        Ok(traced)
    }
}

async fn read(
    connection: &mut PgConnection,
    spans: &[&Span],
    at_most: usize,
) -> Result<Vec<Traced>, sqlx::Error> {
    let rows = sqlx::query(
        // An odd last digit: the flags say sampled.
        "SELECT s.partition, e.position, e.event_type, e.metadata::text
         FROM unnest($1::int4[], $2::int8[], $3::int8[]) AS s(partition, after, until)
         CROSS JOIN LATERAL (
             SELECT l.position, l.event_type, l.metadata FROM log.events l
             WHERE l.partition = s.partition AND l.position > s.after AND l.position <= s.until
               AND l.metadata->>'traceparent' ~ '-.[13579bdf]$'
             ORDER BY l.position) e
         LIMIT $4",
    )
    .bind(spans.iter().map(|span| i32::from(span.partition)).collect::<Vec<_>>())
    .bind(spans.iter().map(|span| signed(span.after)).collect::<Vec<_>>())
    .bind(spans.iter().map(|span| signed(span.until)).collect::<Vec<_>>())
    .bind(i64::try_from(at_most).expect("a small number"))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let partition = Partition::try_from(row.try_get::<i32, _>(0)?)
                .map_err(|_| sqlx::Error::Decode("partition is out of range".into()))?;
            Ok(Traced {
                partition,
                position: unsigned(row.try_get(1)?, "position")?,
                event_type: row.try_get::<String, _>(2)?.into(),
                metadata: row.try_get::<&str, _>(3)?.into(),
            })
        })
        .collect()
}

/// The span that an event's metadata names, where its trace is sampled.
fn sampled_parent(metadata: &str) -> Option<SpanContext> {
    // Most events of most services have none: no need to parse them.
    if !metadata.contains("\"traceparent\"") {
        return None;
    }
    let metadata: BTreeMap<Cow<'_, str>, Cow<'_, str>> = serde_json::from_str(metadata).ok()?;
    parent(metadata.get("traceparent")?).filter(SpanContext::is_sampled)
}

/// The span that a `traceparent` of version 00 names
/// (<https://www.w3.org/TR/trace-context/#traceparent-header>).
pub fn parent(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let (Some("00"), Some(trace), Some(span), Some(flags), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let parent = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        flags,
        true,
        TraceState::NONE,
    );
    parent.is_valid().then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

    fn sampled(traceparent: &str) -> Option<SpanContext> {
        sampled_parent(&format!(r#"{{"actor":"a","traceparent":"{traceparent}"}}"#))
    }

    #[test]
    fn a_sampled_traceparent_is_the_parent() {
        for flags in ["01", "03", "ff"] {
            let parent = sampled(&format!("00-{IDS}-{flags}")).unwrap();
            assert_eq!(format!("{}-{}", parent.trace_id(), parent.span_id()), IDS);
        }
    }

    #[test]
    fn the_unsampled_and_the_malformed_are_nothing() {
        assert!(sampled_parent("{}").is_none());
        assert!(sampled_parent(r#"{"traceparent":"#).is_none());
        let zero = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        for bad in [&format!("00-{IDS}-00"), &format!("01-{IDS}-01"), "", "00-x-y-01", &zero] {
            assert!(sampled(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn without_a_tracer_there_is_no_work_to_tell_of() {
        assert!(Work::begin(|| unreachable!("a name is made for nobody")).is_none());
    }
}
