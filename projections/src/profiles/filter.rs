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
