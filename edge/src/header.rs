//! Headers that must stand once.

use http::{HeaderMap, HeaderName};

use crate::Problem;

/// The header's text, `None` where it is absent. `name` is how the header is written in documents; the empty text is
/// left to the caller's own check of the form.
///
/// # Errors
/// 400 `malformed-header` where it is given twice, or holds anything but visible ASCII and spaces.
pub fn single<'a>(
    headers: &'a HeaderMap,
    key: &HeaderName,
    name: &'static str,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(key).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::malformed_header(name, "must be given once"));
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(Problem::malformed_header(name, "must be ASCII text")),
    }
}
