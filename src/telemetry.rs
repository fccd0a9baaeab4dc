//! What the process tells of itself: log lines, and traces where a collector is named.
//!
//! Lines go to stderr, each with the ids of the request that it belongs to. Spans go to the collector alone: without one
//! they are disabled where they are made, and cost a load.

mod lines;
mod traces;

use std::io::IsTerminal;

use anyhow::Context;
use rollcall_edge::metadata::RequestIds;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, filter_fn},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use lines::WithRequest;
use traces::Traces;

tokio::task_local! {
    /// The request that the current task works on; its ids stand in every line that is logged meanwhile.
    pub static REQUEST: RequestIds;
}

/// How a process tells of itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `info`, `rollcall_projections=debug,info`, …
    pub filter: String,
    pub format: Format,
    /// An OTLP collector's address over HTTP, such as `http://collector:4318`.
    pub otlp_endpoint: Option<String>,
    pub service_name: String,
    /// The part of the traces that begin here that is taken, 0 to 1; a caller's decision is followed.
    pub sample_ratio: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Pretty,
    /// A JSON object on each line: `timestamp` (RFC 3339 in UTC), `level`, `message`, `target`, the fields, and the ids of
    /// the request.
    Json,
}

/// Ends what [`init`] began.
#[must_use]
pub struct Guard(Option<Traces>);

impl Guard {
    /// Sends what is left of the traces. Waits for a collector that does not answer for a second at most.
    pub fn flush(self) {
        if let Some(traces) = self.0 {
            traces.end();
        }
    }
}

/// Starts telling. To be called once, before the runtime is built.
///
/// # Errors
/// One line that names the key whose value is bad.
pub fn init(settings: &Settings) -> anyhow::Result<Guard> {
    // A word that is no level would be taken for a module, and everything else would be silent.
    if !settings.filter.split(',').any(|part| part.trim().parse::<LevelFilter>().is_ok()) {
        anyhow::bail!(
            "log must name a level for everything (error, warn, info, debug, trace or off), as in \
             \"info,rollcall_projections=debug\", not {:?}",
            settings.filter
        );
    }
    let filter = EnvFilter::try_new(&settings.filter)
        .with_context(|| format!("log cannot be read as a filter ({:?})", settings.filter))?;
    let traces =
        settings.otlp_endpoint.as_deref().map(|endpoint| Traces::start(endpoint, settings)).transpose()?;
    let spans = traces.as_ref().map(|traces| {
        // Events stay lines: what a span tells is chosen where it is made.
        let ours = filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with("rollcall"));
        tracing_opentelemetry::layer()
            .with_tracer(traces.tracer())
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_filter(ours.with_max_level_hint(LevelFilter::INFO))
    });
    let terminal = std::io::stderr().is_terminal();
    let json = match settings.format {
        Format::Auto => !terminal,
        Format::Pretty => false,
        Format::Json => true,
    };
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = if json {
        let format = fmt::format().json().flatten_event(true).with_current_span(false).with_span_list(false);
        lines.fmt_fields(fmt::format::JsonFields::new()).event_format(WithRequest::json(format)).boxed()
    } else {
        let format = fmt::format().with_ansi(terminal);
        lines.with_ansi(terminal).event_format(WithRequest::pretty(format)).boxed()
    };
    // No line shows a span, so for lines alone none is made.
    let events = filter_fn(|metadata| metadata.is_event()).with_max_level_hint(LevelFilter::TRACE);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter.and(events)))
        .with(spans)
        .try_init()
        .context("logging could not be started")?;
    Ok(Guard(traces))
}
