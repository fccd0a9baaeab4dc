//! "Did you mean": the known name that a mistyped one is close to.

/// Longer names get no hint: the distance costs the product of the lengths, and nobody mistypes a novel.
const NAME_BYTES_MAX: usize = 64;

/// The nearest of `known`, where a third of its letters or fewer would have to change.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return None;
    }
    known
        .into_iter()
        .filter(|candidate| !candidate.is_empty() && candidate.len() <= NAME_BYTES_MAX)
        .map(|candidate| (distance(name.as_bytes(), candidate.as_bytes()), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The end of a sentence: "; did you mean `given_name`?", or nothing.
pub fn suffix<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default()
}

/// The Levenshtein distance in bytes, with letters of either case alike.
fn distance(from: &[u8], to: &[u8]) -> usize {
    let mut row = [0_usize; NAME_BYTES_MAX + 1];
    for (i, cell) in row.iter_mut().enumerate() {
        *cell = i;
    }
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(!a.eq_ignore_ascii_case(b));
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: [&str; 3] = ["given_name", "family_name", "email"];

    #[test]
    fn a_slip_finds_its_name() {
        for slip in ["givenName", "given-name", "givn_name", "Given_Name"] {
            assert_eq!(nearest(slip, KNOWN), Some("given_name"), "{slip}");
        }
        assert_eq!(nearest("mail", KNOWN), Some("email"));
        assert_eq!(suffix("e_mail", KNOWN), "; did you mean `email`?");
    }

    #[test]
    fn what_is_far_from_all_gets_no_hint() {
        for far in ["", "shoe_size", &"x".repeat(65)] {
            assert_eq!(nearest(far, KNOWN), None);
        }
    }

    proptest! {
        #[test]
        fn the_distance_is_a_metric(a in "[a-c]{0,8}", b in "[a-c]{0,8}", c in "[a-c]{0,8}") {
            let [a, b, c] = [a.as_bytes(), b.as_bytes(), c.as_bytes()];
            prop_assert_eq!(distance(a, b) == 0, a == b);
            prop_assert_eq!(distance(a, b), distance(b, a));
            prop_assert!(distance(a, c) <= distance(a, b) + distance(b, c));
        }
    }
}
