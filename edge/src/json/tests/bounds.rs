//! Large and deep bodies.

use super::*;

#[test]
fn a_hundred_thousand_brackets_overflow_no_stack() {
    let deep =
        |open: &str, close: &str| format!("{{\"a\":{}1{}}}", open.repeat(100_000), close.repeat(100_000));
    for body in [deep("[", "]"), deep("{\"a\":", "}")] {
        let mut problems = Problems::default();
        let mut members = Members::read(body.as_bytes(), "").unwrap();
        assert_eq!(members.text(&mut problems, "a", any_text), None);
        assert!(members.raw("a").is_some());
        assert_eq!(problems.into_result().unwrap_err().status, 422);
    }
    assert_eq!(refused("[".repeat(100_000).as_bytes()).code, "malformed-json");
    assert_eq!(refused(format!("{{\"a\":{}", "[".repeat(100_000)).as_bytes()).code, "malformed-json");
    assert!(document("[[".repeat(50_000).as_bytes()).is_err());
    assert_eq!(
        elements(format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)).as_bytes(), 5).unwrap().len(),
        1
    );
}

#[test]
fn a_huge_body_of_unknown_members_answers_a_small_problem() {
    let names: Vec<_> = (0..50_000).map(|i| format!("\"unknown{i}\":0")).collect();
    let body = format!("{{{}}}", names.join(","));
    let mut problems = Problems::default();
    Members::read(body.as_bytes(), "").unwrap().finish(&mut problems);
    let problem = problems.into_result().unwrap_err();
    assert_eq!(problem.errors.len(), 100);
    assert!(problem.detail.starts_with("50000 members"));
}
