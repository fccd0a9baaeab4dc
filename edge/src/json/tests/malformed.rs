//! What is refused before members count.

use serde_json::value::RawValue;

use super::*;

#[test]
fn what_is_not_json_is_a_400_that_quotes_nothing() {
    for (bad, place) in [
        (&b""[..], "line 1 column 0"),
        (b"{", "line 1 column 1"),
        (b"{\"secret\": tru}", "line 1 column 15"),
        (b"{}\n {", "line 2 column 2"),
        (b"{\"a\":1,}", "line 1 column 8"),
        (b"{\"a\":\"\n\"}", "column"),
        (b"{\"a\":\n\"secret\xff\"}", "line 2 column 8"),
        (b"\xef\xbb\xbf{}", "line 1 column 1"),
        (b"'secret'", "line 1 column 1"),
        (b"{\"a\": 01}", "line 1 column 8"),
        (b"{\"a\": NaN}", "line 1"),
        (b"{\"a\": \"\\x\"}", "line 1"),
        (b"{1: 2}", "line 1"),
    ] {
        let problem = refused(bad);
        assert_eq!(problem.code, "malformed-json", "{}", String::from_utf8_lossy(bad));
        assert!(problem.detail.contains(place), "{}: {}", String::from_utf8_lossy(bad), problem.detail);
        assert!(!problem.detail.contains("secret"), "{}", problem.detail);
    }
}

#[test]
fn json_that_is_no_object_is_a_422_at_the_root() {
    for body in [&b"[]"[..], b" \"x\"", b"1", b"null\n"] {
        assert_eq!(code_and_pointer(&refused(body)), ("invalid-members", Some("")));
    }
}

#[test]
fn half_a_surrogate_pair_is_a_400_wherever_it_stands() {
    for bad in [
        r#"{"a": "\ud800"}"#,
        r#"{"a": "\uDC00\ud800"}"#,
        r#"{"a": "\ud800\ud800\udc00"}"#,
        r#"{"a": "\ud800x"}"#,
        r#"{"a": "\ud800\n"}"#,
        r#"{"\udfff": 1}"#,
        r#"{"a": {"b": [{"c": "x\\\ud83d"}]}}"#,
        r#"{"unknown": [{"\ud800": 1}]}"#,
    ] {
        assert_eq!(refused(bad.as_bytes()).code, "malformed-json", "{bad}");
    }
    for good in [r#"{"a": "\\ud800"}"#, r#"{"a": "\ud83d\ude00 \u0000 \\\\ud800"}"#] {
        assert!(Members::read(good.as_bytes(), "").is_ok(), "{good}");
    }
    assert!(
        refused(
            br#"{"a":
      "\ud800"}"#
        )
        .detail
        .ends_with("line 2 column 8")
    );
}

#[test]
fn a_raw_value_from_elsewhere_with_half_a_pair_is_a_400_as_well() {
    let raw = serde_json::from_str::<&RawValue>(r#"{"a": "\ud800", "b": {"\ud800": 1}}"#).unwrap();
    let mut problems = Problems::default();
    let mut members = Members::of(raw, "/x").unwrap();
    assert_eq!(members.text(&mut problems, "a", any_text), None);
    let problem = problems.into_result().unwrap_err();
    assert_eq!(code_and_pointer(&problem), ("malformed-json", Some("/x/a")));
    let mut problems = Problems::default();
    assert!(members.object(&mut problems, "b").is_none());
    assert_eq!(problems.into_result().unwrap_err().code, "malformed-json");
}

#[test]
fn a_duplicate_member_is_a_400_with_its_place() {
    for (body, place) in [(r#"{"a": 1, "b": 2, "\u0061": 3}"#, "/a"), (r#"{"": 1, "": 1}"#, "/")] {
        assert_eq!(code_and_pointer(&refused(body.as_bytes())), ("duplicate-member", Some(place)));
    }
    let many: Vec<_> = (0..1000).map(|i| format!("\"m{}\":0", i % 999)).collect();
    let body = format!("{{{}}}", many.join(","));
    assert_eq!(code_and_pointer(&refused(body.as_bytes())), ("duplicate-member", Some("/m0")));

    let mut problems = Problems::default();
    let mut members =
        Members::read(br#"{"o": {"x": {"y": 1, "y": 2}}, "l": [{"k": 1, "k": 1}]}"#, "/0").unwrap();
    let mut inner = members.object(&mut problems, "o").unwrap();
    problems.push("/0/earlier", "is wrong");
    assert!(inner.object(&mut problems, "x").is_none());
    assert!(members.objects(&mut problems, "l", 9).unwrap().is_empty());
    assert_eq!(
        code_and_pointer(&problems.into_result().unwrap_err()),
        ("duplicate-member", Some("/0/o/x/y"))
    );
}
