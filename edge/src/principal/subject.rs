//! The subject: who acts, as an opaque id.

use std::fmt;
use std::sync::{Arc, LazyLock};

use super::parse::Error;

static ANONYMOUS: LazyLock<Subject> = LazyLock::new(|| Subject("anonymous".into()));

/// An opaque id `[A-Za-z0-9._:|-]{1,128}`; cheap to clone. It goes in clear into the metadata of every event that the
/// subject causes and outlives an erasure, so it must not say who the person is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Arc<str>);

impl Subject {
    /// # Errors
    /// Where the text is not such an id; an `@` is told apart, because people send addresses.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.contains('@') {
            return Err(Error::SubjectIsAddress);
        }
        let taken = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'|' | b'-');
        if text.is_empty() || text.len() > 128 || !text.bytes().all(taken) {
            return Err(Error::Subject);
        }
        Ok(Self(text.into()))
    }

    /// Who calls without saying who.
    #[must_use]
    pub fn anonymous() -> Self {
        ANONYMOUS.clone()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Subject({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_subject_is_an_opaque_id() {
        for good in ["a", "auth0|5f7c:2-b_c.d", &"x".repeat(128)] {
            assert_eq!(Subject::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(129)] {
            assert_eq!(Subject::parse(bad), Err(Error::Subject), "{bad:?}");
        }
    }

    #[test]
    fn an_address_is_refused_with_the_reason() {
        let error = Subject::parse("ada@example.com").unwrap_err();
        assert_eq!(error, Error::SubjectIsAddress);
        assert!(error.to_string().contains("opaque id"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".*") {
            prop_assert!(Subject::parse(&text).map_or(true, |subject| subject.as_str() == text));
        }
    }
}
