//! Who calls: tenant, subject and scopes.
//!
//! Shape: request -> [`Authenticator`](crate::auth::Authenticator) -> [`Principal`] -> [`Caller`], which a handler
//! takes as an argument and which cannot be had without the scope that its type names.

mod caller;
mod scope;
mod subject;
mod tenant;

pub use caller::{Caller, EraseUsers, ReadAudit, ReadUsers, RequiredScope, WriteUsers};
pub use scope::{Scope, Scopes};
pub use subject::Subject;
pub use tenant::Tenant;

use http::{HeaderValue, header::WWW_AUTHENTICATE};

use crate::{Problem, problem::code};

/// Why a text is not a tenant or a subject; the message completes a sentence about it ("must be …").
pub mod parse {
    #[derive(Debug, thiserror::Error, PartialEq, Eq)]
    pub enum Error {
        #[error("must be 1 to 63 of the characters a-z, 0-9 and -")]
        Tenant,
        #[error("must be 1 to 128 of the characters A-Z, a-z, 0-9, '.', '_', ':', '|' and '-'")]
        Subject,
        #[error(
            "must not hold an '@': it is stored in clear for ever with every event, so send an opaque id, not an address"
        )]
        SubjectIsAddress,
    }
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub tenant: Tenant,
    pub subject: Subject,
    pub scopes: Scopes,
}

impl Principal {
    /// For what a handler decides late, such as rectifying a deactivated user.
    ///
    /// # Errors
    /// 403 `forbidden`, naming the scope as RFC 6750 3.1 has it.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contains(scope) {
            Ok(())
        } else {
            let challenge =
                format!(r#"Bearer realm="rollcall", error="insufficient_scope", scope="{scope}""#);
            let challenge = HeaderValue::try_from(challenge).expect("scopes are visible ASCII");
            Err(Problem::new(code::FORBIDDEN, format!("the scope {scope} is needed"))
                .with_header(WWW_AUTHENTICATE, challenge))
        }
    }
}
