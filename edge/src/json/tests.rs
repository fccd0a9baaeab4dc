//! The rules of reading, over whole bodies.

mod bounds;
mod laws;
mod malformed;

use super::*;
use crate::{Problem, Problems};

fn code_and_pointer(problem: &Problem) -> (&str, Option<&str>) {
    (problem.code, problem.errors.first().and_then(|error| error.pointer.as_deref()))
}

fn refused(bytes: &[u8]) -> Problem {
    Members::read(bytes, "").unwrap_err()
}

fn any_text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn short_text(text: &str) -> Result<String, String> {
    if text.len() < 10 { Ok(text.to_owned()) } else { Err("is too long".to_owned()) }
}

/// Reads all problems of a body with these readers.
fn problems_of(body: &str, read: impl FnOnce(&mut Members<'_>, &mut Problems)) -> Vec<(String, String)> {
    let mut problems = Problems::default();
    let mut members = Members::read(body.as_bytes(), "").unwrap().named("Sample");
    read(&mut members, &mut problems);
    members.finish(&mut problems);
    let problem = problems.into_result().err();
    problem.map_or_else(Vec::new, |problem| {
        problem.errors.into_iter().map(|error| (error.pointer.unwrap(), error.detail)).collect()
    })
}

#[test]
fn members_are_read_by_name_in_any_order() {
    let body = r#" {"b": true, "name": "Ad\u0061 \ud83d\ude00", "n": 18446744073709551615, "none": null} "#;
    let mut problems = Problems::default();
    let mut members = Members::read(body.as_bytes(), "").unwrap();
    assert_eq!(members.text(&mut problems, "name", any_text).as_deref(), Some("Ada 😀"));
    assert_eq!(members.boolean(&mut problems, "b"), Some(true));
    assert_eq!(members.unsigned(&mut problems, "n"), Some(u64::MAX));
    assert_eq!(members.text(&mut problems, "none", any_text), None);
    assert_eq!(members.text(&mut problems, "missing", any_text), None);
    members.finish(&mut problems);
    assert_eq!(problems.into_result(), Ok(()));
}

#[test]
fn all_that_is_wrong_with_members_is_listed_at_once() {
    let body = r#"{"name": 5, "title": "far too long a title", "on": "yes", "count": -1, "part": {"x": 1.5},
                   "list": {}, "items": [{"k": 1}, 2], "givenName": "Ada", "a/b": 1}"#;
    let found = problems_of(body, |members, problems| {
        members.text(problems, "name", any_text);
        members.text(problems, "title", short_text);
        members.boolean(problems, "on");
        members.unsigned(problems, "count");
        let mut part = members.object(problems, "part").unwrap().named("Part");
        part.unsigned(problems, "x");
        part.required_text(problems, "y", any_text);
        part.finish(problems);
        members.array(problems, "list", 5);
        let mut items = members.objects(problems, "items", 5).unwrap();
        assert_eq!(items.len(), 1);
        items[0].text(problems, "k", any_text);
        members.text(problems, "given_name", any_text);
        members.required_unsigned(problems, "version");
    });
    let whole = "must be a whole number that is not negative";
    let expected = [
        ("/name", "must be a string, not a number"),
        ("/title", "is too long"),
        ("/on", "must be true or false"),
        ("/count", whole),
        ("/part/x", whole),
        ("/part/y", "is required"),
        ("/list", "must be an array"),
        ("/items/1", "must be an object"),
        ("/items/0/k", "must be a string, not a number"),
        ("/version", "is required"),
        ("/givenName", "is not a member of Sample; did you mean `given_name`?"),
        ("/a~1b", "is not a member of Sample"),
    ];
    assert_eq!(found, expected.map(|(pointer, detail)| (pointer.to_owned(), detail.to_owned())));
}

#[test]
fn null_is_absent_except_in_a_patch() {
    let body = br#"{"a": null, "b": "x", "c": 1, "o": null}"#;
    let mut problems = Problems::default();
    let mut members = Members::read(body, "").unwrap();
    assert_eq!(members.patch_text(&mut problems, "a", any_text), PatchText::Null);
    assert_eq!(members.patch_text(&mut problems, "b", any_text), PatchText::Value("x".to_owned()));
    assert_eq!(members.patch_text(&mut problems, "z", any_text), PatchText::Absent);
    assert!(matches!(members.patch_object(&mut problems, "o"), Patch::Null));
    assert!(problems.is_empty());
    assert_eq!(members.patch_text(&mut problems, "c", any_text), PatchText::Absent);
    assert_eq!(members.required_text(&mut problems, "a", any_text), None);
    let errors = problems.into_result().unwrap_err().errors;
    assert_eq!(errors.iter().map(|e| e.pointer.as_deref().unwrap()).collect::<Vec<_>>(), ["/c", "/a"]);
}

#[test]
fn a_map_gives_the_rest_and_its_kinds() {
    let body = br#"{"traits": {"t": "a\tb", "n": -1.50e2, "b": false, "z": null, "l": [], "o": {}}}"#;
    let mut problems = Problems::default();
    let mut members = Members::read(body, "").unwrap();
    let mut traits = members.object(&mut problems, "traits").unwrap();
    let kinds: Vec<_> =
        traits.rest().map(|(name, raw)| (name.into_owned(), Kind::of(raw).unwrap())).collect();
    assert_eq!(
        kinds,
        [
            ("t".to_owned(), Kind::Text("a\tb".into())),
            ("n".to_owned(), Kind::Number("-1.50e2")),
            ("b".to_owned(), Kind::Boolean(false)),
            ("z".to_owned(), Kind::Null),
            ("l".to_owned(), Kind::Array),
            ("o".to_owned(), Kind::Object),
        ]
    );
    assert_eq!(traits.pointer_to("x"), "/traits/x");
    traits.finish(&mut problems);
    assert!(problems.is_empty());
}

#[test]
fn arrays_have_a_bound() {
    assert_eq!(
        elements(b"[1, [2], {}]", 3).unwrap().iter().map(|raw| raw.get()).collect::<Vec<_>>(),
        ["1", "[2]", "{}"]
    );
    assert_eq!(elements(b"[]", 0).unwrap().len(), 0);
    let problem = elements(b"[1,2,3,4,5]", 3).unwrap_err();
    assert_eq!((problem.status.as_u16(), code_and_pointer(&problem)), (422, ("invalid-members", Some(""))));
    assert!(
        problem.detail.contains("more than 3") && problem.detail.contains("holds 5"),
        "{}",
        problem.detail
    );
    assert_eq!(elements(b"{}", 3).unwrap_err().status, 422);
    assert_eq!(elements(b"[1", 3).unwrap_err().status, 400);
}
