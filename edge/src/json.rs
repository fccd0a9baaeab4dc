//! Reading JSON bodies strictly, and telling a client all that is wrong with one.
//!
//! Shape: [`JsonBody`] (media type, length) -> [`Members`] over an [`Object`] (its top level, in place) -> typed values,
//! with [`Problems`](crate::Problems) beside. Nested objects are read when a handler asks for them.
//!
//! What is not JSON, or JSON that two readers may read differently (a duplicate member, half a surrogate pair), is a
//! 400 and comes before all else; what is wrong with members is a 422. Nothing recurses, so depth costs no stack.

mod body;
mod document;
mod kind;
mod members;
mod object;
mod pointer;
mod values;

pub use body::JsonBody;
pub use document::{document, elements};
pub use kind::Kind;
pub use members::Members;
pub use object::Object;
pub use values::{Patch, PatchText};

#[cfg(test)]
mod tests;
