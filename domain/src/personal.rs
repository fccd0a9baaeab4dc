//! The mark on what says something about a person.
//!
//! *Invariant:* [`Personal`] implements neither `Serialize` nor a `Debug` that shows its value. An event carries it
//! under `#[serde(skip)]`; reading such an event yields [`Personal::Erased`] until the stored form fills it in.

use std::fmt;

/// A value about a person, or what is left of it once its key has been destroyed.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Personal<T> {
    Value(T),
    #[default]
    Erased,
}

impl<T> Personal<T> {
    /// The value, where it has not been erased. A review looks where this is called.
    pub fn expose(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Erased => None,
        }
    }
}

impl<T> fmt::Debug for Personal<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Value(_) => "<personal>",
            Self::Erased => "<erased>",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_personal_value_is_exposed_but_never_printed() {
        let personal = Personal::Value("Ada");
        assert_eq!(personal.expose(), Some(&"Ada"));
        assert_eq!(format!("{personal:?}"), "<personal>");
    }

    #[test]
    fn an_erased_value_is_the_default_and_exposes_nothing() {
        let personal = Personal::<String>::default();
        assert_eq!(personal.expose(), None);
        assert_eq!(format!("{personal:?}"), "<erased>");
    }
}
