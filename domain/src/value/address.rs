//! Postal addresses, in the members of OpenID Connect Core 1.0, section 5.1.1.

use serde::{Deserialize, Serialize};

use super::text::{Controls, text, text_value};

text_value! {
    /// The full address as it stands on a label: 1 to 1000 characters, may have line breaks.
    personal FormattedAddress, |raw| text(raw, 1..=1000, Controls::LineBreaks)
}

text_value! {
    /// House number, street, post office box: 1 to 200 characters, may have line breaks.
    personal StreetAddress, |raw| text(raw, 1..=200, Controls::LineBreaks)
}

text_value! {
    /// A locality, region, postal code or country: 1 to 200 characters.
    personal AddressPart, |raw| text(raw, 1..=200, Controls::None)
}

/// A postal address. One without any member is no address: see [`Address::into_option`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formatted: Option<FormattedAddress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub street_address: Option<StreetAddress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<AddressPart>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<AddressPart>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postal_code: Option<AddressPart>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<AddressPart>,
}

impl Address {
    pub fn is_empty(&self) -> bool {
        self.members().iter().all(|(_, value)| value.is_none())
    }

    /// The address, or `None` where it says nothing.
    pub fn into_option(self) -> Option<Self> {
        (!self.is_empty()).then_some(self)
    }

    /// All members by name, in the order of the specification.
    pub fn members(&self) -> [(&'static str, Option<&str>); 6] {
        [
            ("formatted", self.formatted.as_ref().map(FormattedAddress::as_str)),
            ("street_address", self.street_address.as_ref().map(StreetAddress::as_str)),
            ("locality", self.locality.as_ref().map(AddressPart::as_str)),
            ("region", self.region.as_ref().map(AddressPart::as_str)),
            ("postal_code", self.postal_code.as_ref().map(AddressPart::as_str)),
            ("country", self.country.as_ref().map(AddressPart::as_str)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_formatted_address_and_the_street_have_line_breaks() {
        assert_eq!(FormattedAddress::parse("a\r\nb").unwrap().as_str(), "a\r\nb");
        assert!(StreetAddress::parse("a\nb").is_ok());
        assert!(AddressPart::parse("a\nb").is_err());
        assert!(StreetAddress::parse("a\tb").is_err());
    }

    #[test]
    fn an_empty_address_is_none() {
        assert_eq!(Address::default().into_option(), None);
        let address = Address { country: Some(AddressPart::parse("UK").unwrap()), ..Address::default() };
        assert_eq!(address.clone().into_option(), Some(address));
    }
}
