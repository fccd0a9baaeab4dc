//! Laws over generated bodies.

use proptest::prelude::*;

use super::*;

/// Reads a body in every way there is, down to the third level.
fn exercise(bytes: &[u8]) {
    let _ = document(bytes);
    let _ = elements(bytes, 3);
    let Ok(mut members) = Members::read(bytes, "") else { return };
    let mut problems = Problems::default();
    let mut nested = members.object(&mut problems, "a");
    if let Some(inner) = &mut nested {
        let _ = inner.array(&mut problems, "b", 2);
        let _ = inner.objects(&mut problems, "b", 2);
        let _ = inner.rest().map(|(_, raw)| Kind::of(raw)).collect::<Vec<_>>();
    }
    let _ = members.text(&mut problems, "a", any_text);
    let _ = members.patch_text(&mut problems, "b", any_text);
    let _ = members.boolean(&mut problems, "b");
    let _ = members.unsigned(&mut problems, "b");
    members.finish(&mut problems);
    let _ = problems.into_result();
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".{0,6}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map("[ab]|.{0,3}", inner, 0..4)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        exercise(&bytes);
    }

    #[test]
    fn anything_near_json_is_answered(text in "[\\[\\]{}:,\"ab0-9\\\\utrelsnd8c -]{0,48}") {
        exercise(text.as_bytes());
        exercise(format!("{{\"a\":{text}}}").as_bytes());
        exercise(format!("{{\"a\":\"{text}\"}}").as_bytes());
    }

    /// The reader takes exactly what serde_json takes as a document with an object on top.
    #[test]
    fn what_serde_json_writes_is_read_back(value in value()) {
        let text = value.to_string();
        exercise(text.as_bytes());
        let read = Object::parse(text.as_bytes());
        match value {
            serde_json::Value::Object(members) => {
                let read = read.unwrap();
                prop_assert_eq!(read.members().len(), members.len());
                for (name, raw) in read.members() {
                    let again: serde_json::Value = serde_json::from_str(raw.get()).unwrap();
                    prop_assert_eq!(&again, &members[&**name]);
                }
            }
            _ => prop_assert_eq!(read.unwrap_err().status, 422),
        }
    }

    /// The check for surrogates agrees with serde_json, which meets them when it makes strings.
    #[test]
    fn half_pairs_are_found_where_serde_json_finds_them(
        parts in prop::collection::vec(
            prop::sample::select(vec!["\\ud83d", "\\ude00", "\\uDBFF", "\\udfFf", "\\u0061", "\\\\", "u", "\\n", "ä"]), 0..8),
    ) {
        let text = format!("\"{}\"", parts.concat());
        let ours = document(text.as_bytes()).is_ok();
        prop_assert_eq!(ours, serde_json::from_str::<String>(&text).is_ok(), "{}", text);
    }
}
