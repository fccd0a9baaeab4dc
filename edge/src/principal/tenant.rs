//! The tenant: the customer whose users these are.

use std::fmt;
use std::sync::{Arc, LazyLock};

use super::parse::Error;

static DEFAULT: LazyLock<Tenant> = LazyLock::new(|| Tenant("default".into()));

/// A slug `[a-z0-9-]{1,63}`; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// # Errors
    /// Where the text is not a slug.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let slug = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > 63 || !text.bytes().all(slug) {
            return Err(Error::Tenant);
        }
        Ok(if text == "default" { Self::default() } else { Self(text.into()) })
    }

    /// The text itself, shared and not copied.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The tenant of a site that has one only.
impl Default for Tenant {
    fn default() -> Self {
        DEFAULT.clone()
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tenant({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_tenant_is_a_slug() {
        for good in ["a", "acme-2", "default", &"x".repeat(63)] {
            assert_eq!(Tenant::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "Acme", "a.b", "a b", "ä", "a\n", &"x".repeat(64)] {
            assert_eq!(Tenant::parse(bad), Err(Error::Tenant), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".*") {
            prop_assert!(Tenant::parse(&text).is_ok_and(|tenant| tenant.as_str() == text) || Tenant::parse(&text).is_err());
        }
    }
}
