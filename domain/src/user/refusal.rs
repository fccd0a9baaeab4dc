//! Why a command was refused.

/// A rule that the command would break. It repeats no value of the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("user exists already")]
    AlreadyExists,
    #[error("user does not exist")]
    NotFound,
    #[error("user is deactivated")]
    Deactivated,
    #[error("user must have a given, family or display name")]
    NameMissing,
    #[error("email to verify is not the user's current email")]
    EmailDiffers,
    #[error("user may have at most {max} {what}")]
    TooMany { what: &'static str, max: usize },
}
