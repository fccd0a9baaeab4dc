//! What an audit history shows of an event.

use super::super::*;
use super::examples::*;
use super::scenario::*;
use crate::Personal;
use crate::stored::{PersonalJson, Stored};

fn lines(event: &UserEvent) -> Vec<String> {
    let shown = |json: Option<String>| json.unwrap_or_else(|| "null".into());
    event
        .changes()
        .into_iter()
        .map(|change| format!("{} {} {}", change.path, shown(change.from), shown(change.to)))
        .collect()
}

fn lines_of(example: &str) -> Vec<String> {
    lines(&examples().into_iter().find(|(name, _)| *name == example).unwrap().1)
}

#[test]
fn creation_comes_from_null() {
    assert_eq!(
        lines_of("UserCreated.1.full"),
        [
            r#"/kind null "customer""#,
            r#"/status null "active""#,
            r#"/email null "ada@example.com""#,
            r#"/given_name null "Ada""#,
            r#"/family_name null "Lovelace""#,
            r#"/display_name null "Ada Lovelace""#,
            r#"/phone null "+4930123456""#,
            r#"/address/street_address null "12 St James's Square\nBasement""#,
            r#"/address/locality null "London""#,
            r#"/locale null "en-GB""#,
            r#"/time_zone null "Europe/London""#,
            r#"/preferences/email/newsletter null true"#,
            r#"/traits/department null "R&D""#,
            r#"/traits/seats null 3.5"#,
            r#"/associations/membership/gold null {"kind":"membership","key":"gold"}"#,
            r#"/external_ids/hr null "E0001""#,
        ]
    );
}

#[test]
fn a_change_says_from_what_to_what() {
    assert_eq!(
        lines_of("ProfileChanged.1"),
        [
            r#"/given_name "Ada" null"#,
            r#"/family_name "Byron" "Lovelace""#,
            r#"/display_name null "Ada""#,
            r#"/phone null "+4930123456""#,
            r#"/address/locality "London" "Horsley""#,
            r#"/locale null "en-GB""#,
            r#"/time_zone "UTC" null"#,
            r#"/external_ids/crm "1" "2""#,
            r#"/external_ids/hr null "E0001""#,
            r#"/external_ids/old "x" null"#,
        ]
    );
    assert_eq!(
        lines_of("TraitsChanged.1"),
        [r#"/traits/born null "1815-12-10""#, r#"/traits/department "R&D" 3.5"#, r#"/traits/vip true null"#,]
    );
    assert_eq!(
        lines_of("PreferencesChanged.2"),
        [
            "/preferences/email/events true false",
            "/preferences/email/newsletter null true",
            "/preferences/email/offers false null",
        ]
    );
    assert_eq!(lines_of("EmailChanged.1"), [r#"/email "ada@example.com" "a@example.com""#]);
    assert_eq!(
        lines_of("EmailChanged.1.verified"),
        [r#"/email "ada@example.com" "a@example.com""#, "/email_verified true false",]
    );
    assert_eq!(lines_of("EmailVerified.1"), ["/email_verified false true"]);
    assert_eq!(lines_of("TermsAccepted.1"), [r#"/accepted_terms/privacy null "2026-01""#]);
    assert_eq!(lines_of("UserDeactivated.1"), [r#"/status "active" "deactivated""#]);
    assert_eq!(lines_of("UserReactivated.1"), [r#"/status "deactivated" "active""#]);
    assert_eq!(
        lines_of("AssociationRemoved.1"),
        [r#"/associations/membership/gold {"kind":"membership","key":"gold"} null"#,]
    );
}

#[test]
fn a_path_is_an_escaped_json_pointer() {
    let details = AssociationDetails { association: association("org", "a/b~c"), reason: None };
    let added = UserEvent::AssociationAdded { personal: Personal::Value(details) };
    assert_eq!(added.changes()[0].path, "/associations/org/a~1b~0c");
}

#[test]
fn an_erased_event_tells_only_which_members_changed() {
    let erased = |example: &str| {
        let (_, event) = examples().into_iter().find(|(name, _)| *name == example).unwrap();
        let restored =
            UserEvent::restore(event.event_type(), "1", &Stored::payload(&event), PersonalJson::Erased)
                .unwrap();
        lines(&restored)
    };
    assert_eq!(
        erased("UserCreated.1.least"),
        [
            r#"/kind null "customer""#,
            r#"/status null "active""#,
            "/email null null",
            "/display_name null null",
        ]
    );
    assert_eq!(erased("EmailChanged.1.verified"), ["/email null null", "/email_verified true false"]);
    assert_eq!(erased("TraitsChanged.1"), ["/traits null null"]);
    assert_eq!(erased("AssociationAdded.1"), ["/associations null null"]);
    assert_eq!(erased("UserDeactivated.1.reason"), [r#"/status "active" "deactivated""#]);
}

#[test]
fn changed_members_are_top_level_names() {
    assert_eq!(created(bare_ada()).changed(), ["kind", "status", "email", "display_name"]);
    let by_example =
        |example: &str| examples().into_iter().find(|(name, _)| *name == example).unwrap().1.changed();
    assert_eq!(by_example("AssociationAdded.1"), ["associations"]);
    assert_eq!(by_example("EmailVerified.1"), ["email_verified"]);
    assert_eq!(by_example("EmailChanged.1.verified"), ["email", "email_verified"]);
    assert_eq!(by_example("TermsAccepted.1"), ["accepted_terms"]);
}

#[test]
fn every_change_lies_under_a_changed_member() {
    for (name, event) in examples() {
        let tops =
            event.changes().into_iter().map(|change| change.path.split('/').nth(1).unwrap().to_owned());
        let mut tops: Vec<String> = tops.collect();
        tops.dedup();
        assert_eq!(tops, event.changed(), "{name}");
    }
}

#[test]
fn a_change_serialises_its_values_as_json_and_prints_none() {
    let [change] = &created(bare_ada()).changes()[3..] else { panic!("one name") };
    let json = serde_json::to_string(change).unwrap();
    assert_eq!(json, r#"{"path":"/display_name","from":null,"to":"Ada"}"#);
    assert_eq!(&serde_json::from_str::<FieldChange>(&json).unwrap(), change);
    assert!(!format!("{change:?}").contains("Ada"));
    let exact =
        FieldChange { path: "/traits/n".into(), from: None, to: Some("1234567890.12345678901234567".into()) };
    let json = serde_json::to_string(&exact).unwrap();
    assert_eq!(serde_json::from_str::<FieldChange>(&json).unwrap(), exact);
}
