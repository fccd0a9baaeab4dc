//! What a listing asks for, parsed from what a reader sends.

use rollcall_domain::{Email, ExternalId, Source, Status, TraitName, TraitValue};

/// Conditions on a profile; everything must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub(super) status: Option<&'static str>,
    /// As stored: in lower case.
    pub(super) email: Option<String>,
    pub(super) external_id: Option<(Source, ExternalId)>,
    /// Each word begins a word of one of the names.
    pub(super) name: Option<String>,
    /// A trait has one of these values, given as JSON.
    pub(super) traits: Vec<(TraitName, Vec<String>)>,
}

/// A trait's value as a reader gives it.
pub enum Sought<'a> {
    /// From a URL, where everything is text: the text, and the number or boolean that it spells.
    Spelled(&'a str),
    Text(&'a str),
    Number(&'a str),
    Boolean(bool),
}

impl Filter {
    /// # Errors
    /// A message that completes "`status` …"; so for all of these.
    pub fn status(&mut self, text: &str) -> Result<(), String> {
        let known = [Status::Active, Status::Deactivated].into_iter().find(|status| status.as_str() == text);
        self.status = Some(known.ok_or("must be active or deactivated")?.as_str());
        Ok(())
    }

    pub fn email(&mut self, text: &str) -> Result<(), String> {
        self.email = Some(Email::parse(text).map_err(|error| error.to_string())?.into_string());
        Ok(())
    }

    /// `source:id`, for example `hr:E0001`.
    pub fn external_id(&mut self, text: &str) -> Result<(), String> {
        let (source, id) = text.split_once(':').ok_or("must be source:id, for example hr:E0001")?;
        let source = Source::parse(source).map_err(|error| format!("{error} (before the colon)"))?;
        let id = ExternalId::parse(id).map_err(|error| format!("{error} (after the colon)"))?;
        self.external_id = Some((source, id));
        Ok(())
    }

    pub fn name(&mut self, text: &str) -> Result<(), String> {
        if !text.chars().any(char::is_alphanumeric) {
            return Err("must hold at least one letter or digit".to_owned());
        }
        if text.chars().count() > 200 {
            return Err("must be at most 200 characters".to_owned());
        }
        // Names are stored in form C; so must be what is compared with them.
        let name = rollcall_domain::Name::parse(text).map_err(|error| error.to_string())?;
        self.name = Some(name.into_string());
        Ok(())
    }

    pub fn has_trait(&mut self, name: &str, value: Sought<'_>) -> Result<(), String> {
        let name = TraitName::parse(name).map_err(|error| format!("is no name of a trait: it {error}"))?;
        let message = |error: rollcall_domain::Invalid| error.to_string();
        let values = match value {
            Sought::Text(text) => vec![TraitValue::parse_text(text).map_err(message)?],
            Sought::Number(text) => vec![TraitValue::parse_number(text).map_err(message)?],
            Sought::Boolean(boolean) => vec![TraitValue::Boolean(boolean)],
            Sought::Spelled(text) => {
                let boolean = match text {
                    "true" => Some(TraitValue::Boolean(true)),
                    "false" => Some(TraitValue::Boolean(false)),
                    _ => None,
                };
                let mut values = vec![TraitValue::parse_text(text).map_err(message)?];
                values.extend(TraitValue::parse_number(text).ok());
                values.extend(boolean);
                values
            }
        };
        let json = |value: &TraitValue| {
            let mut json = String::new();
            value.to_json(&mut json);
            json
        };
        self.traits.push((name, values.iter().map(json).collect()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Text near what filters take, and any other.
    fn some_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "(active|deactivated|Ada Lov|true|1e-3|2026-05-03|hr:E1|a@b\\.co){0,2}",
            "[a-z0-9:@. -]{0,20}",
            "\\PC{0,20}",
            ".{0,300}",
        ]
    }

    proptest! {
        #[test]
        fn any_filter_is_taken_or_refused_without_its_value(text in some_text(), name in some_text()) {
            let mut filter = Filter::default();
            let answers = [
                filter.status(&text),
                filter.email(&text),
                filter.external_id(&text),
                filter.name(&text),
                filter.has_trait(&name, Sought::Spelled(&text)),
                filter.has_trait(&name, Sought::Text(&text)),
                filter.has_trait(&name, Sought::Number(&text)),
            ];
            let known = "active deactivated hr:E0001 ada@example.com source:id";
            for refusal in answers.into_iter().filter_map(Result::err) {
                prop_assert!(!refusal.is_empty());
                let quoted = text.chars().count() > 8 && !known.contains(text.trim()) && refusal.contains(&text);
                prop_assert!(!quoted, "{refusal}");
            }
        }

        #[test]
        fn any_trait_that_is_sought_is_json(text in some_text()) {
            let mut filter = Filter::default();
            if filter.has_trait("seats", Sought::Spelled(&text)).is_ok() {
                for value in &filter.traits[0].1 {
                    prop_assert!(serde_json::from_str::<serde_json::Value>(value).is_ok(), "{value}");
                }
            }
        }

        #[test]
        fn any_number_is_sought_as_itself_and_as_text(number in -1_000_000i64..1_000_000) {
            let mut filter = Filter::default();
            filter.has_trait("seats", Sought::Spelled(&number.to_string())).unwrap();
            prop_assert_eq!(&filter.traits[0].1, &[format!("\"{number}\""), number.to_string()]);
        }
    }
}
