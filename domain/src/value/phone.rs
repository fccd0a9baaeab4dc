//! Telephone numbers.

use super::Invalid;
use super::text::text_value;

text_value! {
    /// A number in E.164 form: `+[1-9][0-9]{1,14}`.
    personal Phone, parse
}

fn parse(raw: &str) -> Result<String, Invalid> {
    let number = raw.trim();
    match number.as_bytes() {
        [b'+', b'1'..=b'9', rest @ ..]
            if (1..=14).contains(&rest.len()) && rest.iter().all(u8::is_ascii_digit) =>
        {
            Ok(number.to_owned())
        }
        _ => Err(Invalid::new(
            "must be in E.164 form: + and 2 to 15 digits with the country code first, for example +4930123456",
        )),
    }
}
