//! Spans on their way to an OTLP collector (HTTP, protobuf): a bounded queue, and a thread that sends what is in it. A
//! collector that is away costs the spans that do not fit, and a line now and then.

use std::{
    sync::Mutex,
    sync::PoisonError,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use opentelemetry::{KeyValue, global, trace::TracerProvider};
use opentelemetry_otlp::{Protocol, SpanExporter as OtlpExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter,
    },
};

use super::Settings;

const QUEUE_SPANS_MAX: usize = 8_192;
const BATCH_SPANS_MAX: usize = 1_024;
const SEND_EVERY: Duration = Duration::from_secs(1);
/// How long the collector may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const FLUSH_WITHIN: Duration = Duration::from_secs(1);
/// A collector that stays away is told of this often.
const WARN_EVERY: Duration = Duration::from_secs(60);

const SCOPE: &str = "rollcall";

pub(super) struct Traces(SdkTracerProvider);

impl Traces {
    pub(super) fn start(endpoint: &str, settings: &Settings) -> anyhow::Result<Self> {
        if !(0.0..=1.0).contains(&settings.sample_ratio) {
            bail!("telemetry.sample_ratio must be between 0 and 1");
        }
        let exporter = OtlpExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(traces_url(endpoint)?)
            .with_timeout(ANSWER_WITHIN)
            .build()
            .context("telemetry.otlp_endpoint cannot be used")?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_SPANS_MAX)
            .with_max_export_batch_size(BATCH_SPANS_MAX)
            .with_scheduled_delay(SEND_EVERY)
            .build();
        let exporter = Telling { exporter, warned: Mutex::new(None) };
        let resource = Resource::builder()
            .with_service_name(settings.service_name.to_owned())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample_ratio))))
            .with_resource(resource)
            .build();
        global::set_tracer_provider(provider.clone());
        rollcall_event_store::trace::install(global::tracer(SCOPE));
        Ok(Self(provider))
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.0.tracer(SCOPE)
    }

    pub(super) fn end(self) {
        // Who does not take them in time has been told of by then.
        let _ = self.0.shutdown_with_timeout(FLUSH_WITHIN);
    }
}

/// Where a collector takes traces (OTLP 1.0, section "OTLP/HTTP request").
fn traces_url(endpoint: &str) -> anyhow::Result<String> {
    let Some((_, rest)) = endpoint.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme))
    else {
        bail!("telemetry.otlp_endpoint must be a URL such as http://127.0.0.1:4318");
    };
    // What goes wrong on the way is logged with the URL.
    if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
        bail!("telemetry.otlp_endpoint must not hold a password: set OTEL_EXPORTER_OTLP_HEADERS instead");
    }
    let base = endpoint.trim_end_matches('/');
    Ok(if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") })
}

/// An exporter whose failures are logged and counted: the library says nothing of them.
#[derive(Debug)]
struct Telling<E> {
    exporter: E,
    warned: Mutex<Option<Instant>>,
}

impl<E: SpanExporter> SpanExporter for Telling<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let outcome = self.exporter.export(batch).await;
        if let Err(error) = &outcome {
            metrics::counter!("rollcall_trace_spans_lost_total").increment(spans as u64);
            let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                tracing::warn!(%error, spans, "the collector does not take traces; they are lost");
                *warned = Some(Instant::now());
            }
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_collectors_base_or_its_place_for_traces() {
        for endpoint in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(traces_url(endpoint).unwrap(), "http://c:4318/v1/traces");
        }
        for bad in ["", "c:4318", "ftp://c", "http://user:secret@c:4318"] {
            let refused = traces_url(bad).unwrap_err().to_string();
            assert!(refused.starts_with("telemetry.otlp_endpoint") && !refused.contains("secret"));
        }
    }
}
