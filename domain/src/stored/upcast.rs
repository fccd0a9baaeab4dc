//! Upcasters: old stored forms, brought to the current one a version at a time.

use serde_json::{Map, Value};

use super::{Error, PersonalJson};

/// Takes a body and, where it was stored and not erased, the personal members; gives both in the next version.
pub(crate) type Upcaster = fn(Value, Option<Value>) -> (Value, Option<Value>);

/// One row of a table of upcasters: from `from_version` to the one after it.
pub(crate) struct Step {
    pub event_type: &'static str,
    pub from_version: u32,
    pub upcaster: Upcaster,
}

/// An event in the current form, ready to be read like one that was written today.
pub(crate) struct Upcast {
    pub payload: String,
    personal: Option<Vec<u8>>,
    erased: bool,
}

impl Upcast {
    /// Applies the table's steps from `event_version` to `current`.
    pub(crate) fn to_current(
        steps: &[Step],
        (event_type, event_version, current): (&str, &str, u32),
        payload: &str,
        personal: PersonalJson<'_>,
    ) -> Result<Self, Error> {
        let stored_version = parse_version(event_type, event_version)?;
        if stored_version > current {
            return Err(Error::NewerVersion {
                event_type: event_type.to_owned(),
                event_version: stored_version,
                known: current,
            });
        }
        let mut body = read_body(event_type, payload)?;
        let mut personal_members = match personal {
            PersonalJson::Json(json) => {
                Some(serde_json::from_slice(json).map_err(|error| Error::Personal {
                    event_type: event_type.to_owned(),
                    line: error.line(),
                    column: error.column(),
                })?)
            }
            PersonalJson::None | PersonalJson::Erased => None,
        };
        for version in stored_version..current {
            let step = steps
                .iter()
                .find(|step| step.event_type == event_type && step.from_version == version)
                .ok_or_else(|| Error::NoUpcaster {
                    event_type: event_type.to_owned(),
                    event_version: version,
                })?;
            (body, personal_members) = (step.upcaster)(body, personal_members);
        }
        let payload = Value::Object(Map::from_iter([(event_type.to_owned(), body)])).to_string();
        let personal_members = personal_members.map(|members| members.to_string().into_bytes());
        Ok(Self { payload, personal: personal_members, erased: matches!(personal, PersonalJson::Erased) })
    }

    pub(crate) fn personal(&self) -> PersonalJson<'_> {
        match (self.erased, &self.personal) {
            (true, _) => PersonalJson::Erased,
            (false, Some(json)) => PersonalJson::Json(json),
            (false, None) => PersonalJson::None,
        }
    }
}

fn parse_version(event_type: &str, event_version: &str) -> Result<u32, Error> {
    event_version.parse().ok().filter(|version| *version > 0).ok_or_else(|| Error::NotAVersion {
        event_type: event_type.to_owned(),
        event_version: event_version.to_owned(),
    })
}

fn read_body(event_type: &str, payload: &str) -> Result<Value, Error> {
    let mut tagged: Map<String, Value> = serde_json::from_str(payload)
        .map_err(|source| Error::Payload { event_type: event_type.to_owned(), source })?;
    tagged.remove(event_type).ok_or_else(|| Error::AnotherType { event_type: event_type.to_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Version 1 had a number, version 2 text, version 3 the text under another name and a default for the reason.
    const STEPS: [Step; 3] = [
        Step {
            event_type: "Moved",
            from_version: 2,
            upcaster: |body, personal| {
                let personal = personal.map(|personal| json!({ "reason": personal["why"] }));
                (json!({ "level": body["floor"] }), personal.or_else(|| Some(json!({}))))
            },
        },
        Step {
            event_type: "Moved",
            from_version: 1,
            upcaster: |body, personal| (json!({ "floor": body["floor"].to_string() }), personal),
        },
        Step { event_type: "Left", from_version: 1, upcaster: |body, personal| (body, personal) },
    ];

    fn upcast(event_version: &str, payload: &str, personal: PersonalJson<'_>) -> Result<Upcast, Error> {
        Upcast::to_current(&STEPS, ("Moved", event_version, 3), payload, personal)
    }

    #[test]
    fn an_old_form_passes_through_every_later_step() {
        let upcast = upcast("1", r#"{"Moved":{"floor":4}}"#, PersonalJson::Json(br#"{"why":"w"}"#)).unwrap();
        assert_eq!(upcast.payload, r#"{"Moved":{"level":"4"}}"#);
        assert!(matches!(upcast.personal(), PersonalJson::Json(br#"{"reason":"w"}"#)));
    }

    #[test]
    fn a_step_begins_at_the_stored_version() {
        let upcast = upcast("2", r#"{"Moved":{"floor":"4th"}}"#, PersonalJson::None).unwrap();
        assert_eq!(upcast.payload, r#"{"Moved":{"level":"4th"}}"#);
        assert!(matches!(upcast.personal(), PersonalJson::Json(b"{}")));
    }

    #[test]
    fn what_was_erased_stays_erased() {
        let upcast = upcast("1", r#"{"Moved":{"floor":4}}"#, PersonalJson::Erased).unwrap();
        assert!(matches!(upcast.personal(), PersonalJson::Erased));
    }

    #[test]
    fn a_form_without_a_way_to_the_current_one_is_an_error() {
        let refused = |version, payload| upcast(version, payload, PersonalJson::None).err().unwrap();
        assert!(matches!(refused("4", "{}"), Error::NewerVersion { event_version: 4, known: 3, .. }));
        assert!(matches!(refused("0", "{}"), Error::NotAVersion { .. }));
        assert!(matches!(refused("one", "{}"), Error::NotAVersion { .. }));
        assert!(matches!(refused("1", r#"{"Left":{}}"#), Error::AnotherType { .. }));
        assert!(matches!(refused("1", "["), Error::Payload { .. }));
        let without_step = Upcast::to_current(&STEPS, ("Left", "1", 3), r#"{"Left":{}}"#, PersonalJson::None);
        assert!(matches!(without_step.err(), Some(Error::NoUpcaster { event_version: 2, .. })));
    }
}
