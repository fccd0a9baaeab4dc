//! What a caller may do.

use std::fmt;

/// A right to a kind of route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    UsersRead,
    UsersWrite,
    UsersRectify,
    UsersErase,
    AuditRead,
}

impl Scope {
    pub const ALL: [Self; 5] =
        [Self::UsersRead, Self::UsersWrite, Self::UsersRectify, Self::UsersErase, Self::AuditRead];

    /// As it stands in a token's `scope` claim.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UsersRead => "users:read",
            Self::UsersWrite => "users:write",
            Self::UsersRectify => "users:rectify",
            Self::UsersErase => "users:erase",
            Self::AuditRead => "audit:read",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Reads a `scope` claim: names apart by spaces (RFC 8693 4.2). Names of other services are passed over.
    #[must_use]
    pub fn parse_claim(claim: &str) -> Self {
        claim
            .split_ascii_whitespace()
            .filter_map(|name| Scope::ALL.into_iter().find(|scope| scope.as_str() == name))
            .collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | 1 << scope as u8))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(Scope::ALL.iter().filter(|scope| self.contains(**scope))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        for scope in Scope::ALL {
            let one = Scopes::from_iter([scope]);
            for other in Scope::ALL {
                assert_eq!(one.contains(other), one.contains(scope) && scope == other);
            }
            assert!(Scopes::all().contains(scope));
            assert!(!Scopes::default().contains(scope));
        }
    }

    #[test]
    fn a_claim_is_read_and_foreign_names_are_passed_over() {
        let scopes = Scopes::parse_claim("openid users:read  audit:read users:reader");
        assert_eq!(scopes, Scopes::from_iter([Scope::UsersRead, Scope::AuditRead]));
    }
}
