//! Log lines with the ids of their request.

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::REQUEST;

/// A format whose lines end with the ids of the request that the task works on, if it works on one.
pub(super) struct WithRequest<F> {
    format: F,
    /// What a line of the format ends with.
    end: &'static str,
    json: bool,
}

impl<F> WithRequest<F> {
    pub(super) fn json(format: F) -> Self {
        Self { format, end: "}\n", json: true }
    }

    pub(super) fn pretty(format: F) -> Self {
        Self { format, end: "\n", json: false }
    }
}

impl<S, N, F> FormatEvent<S, N> for WithRequest<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let in_request = REQUEST.try_with(Clone::clone);
        let Ok(ids) = in_request else { return self.format.format_event(context, writer, event) };
        let mut line = String::with_capacity(256);
        self.format.format_event(context, Writer::new(&mut line), event)?;
        let (text, end) = match line.strip_suffix(self.end) {
            Some(text) => (text, self.end),
            None => (&*line, ""),
        };
        // Ids are of characters that stand for themselves in both formats.
        let (request, correlation) = (ids.request(), ids.correlation());
        writer.write_str(text)?;
        if self.json {
            write!(writer, r#","request.id":"{request}","correlation.id":"{correlation}""#)?;
        } else {
            write!(writer, " request.id={request} correlation.id={correlation}")?;
        }
        writer.write_str(end)
    }
}
