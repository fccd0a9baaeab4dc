//! `traceparent` as the W3C Trace Context recommendation (level 1, 3.2) has it.

use std::fmt;

use http::{HeaderMap, HeaderName};

const LENGTH: usize = 55;

/// A valid `traceparent`, as version 00: `00-<trace id>-<parent id>-<flags>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Traceparent(Box<str>);

impl Traceparent {
    /// `None` where it is absent, malformed or given twice: a broken trace must never break the request.
    pub(super) fn read(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.to_str().ok()?),
            _ => None,
        }
    }

    /// Later versions may add fields behind the flags; those are dropped and only the sampled flag is kept, because we
    /// pass the trace on as version 00.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let head = bytes.get(..LENGTH)?;
        let hex = |range: std::ops::Range<usize>| {
            let digits = &head[range];
            digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).then_some(digits)
        };
        let (version, trace_id, parent_id, flags) = (hex(0..2)?, hex(3..35)?, hex(36..52)?, hex(53..55)?);
        let separated = head[2] == b'-' && head[35] == b'-' && head[52] == b'-';
        let zero = |id: &[u8]| id.iter().all(|b| *b == b'0');
        if !separated || version == b"ff" || zero(trace_id) || zero(parent_id) {
            return None;
        }
        match (version, bytes.get(LENGTH)) {
            (b"00", None) => Some(Self(text.into())),
            (b"00", Some(_)) => None,
            (_, None | Some(b'-')) => {
                let sampled =
                    u8::from(matches!(flags[1], b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f'));
                Some(Self(format!("00{}0{sampled}", &text[2..53]).into()))
            }
            _ => None,
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        &self.0[3..35]
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Traceparent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Traceparent({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REST: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

    #[test]
    fn version_00_is_kept_as_it_is() {
        for flags in ["00", "01", "ff"] {
            let text = format!("00-{REST}-{flags}");
            assert_eq!(Traceparent::parse(&text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_later_version_is_passed_on_as_00() {
        for (text, kept) in [
            (format!("cc-{REST}-01"), format!("00-{REST}-01")),
            (format!("cc-{REST}-fe-and-more"), format!("00-{REST}-00")),
            (format!("01-{REST}-ff-"), format!("00-{REST}-01")),
        ] {
            assert_eq!(Traceparent::parse(&text).unwrap().as_str(), kept);
        }
    }

    #[test]
    fn the_malformed_are_nothing() {
        for bad in [
            String::new(),
            format!("ff-{REST}-01"),
            format!("00-{REST}-01-"),
            format!("00-{REST}-0"),
            format!("00-{REST}-0G"),
            format!("cc-{REST}-01x"),
            format!("00-{}-01", REST.to_uppercase()),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16)),
            format!("00_{REST}-01"),
        ] {
            assert_eq!(Traceparent::parse(&bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[0-9a-f-]{50,60}|.*") {
            let _ = Traceparent::parse(&text);
        }

        /// A multi-byte character around the cut must not panic.
        #[test]
        fn a_spoilt_one_is_answered(at in 0..=LENGTH, character in any::<char>()) {
            let mut text = format!("cc-{REST}-01");
            text.insert(at, character);
            let _ = Traceparent::parse(&text);
        }
    }
}
