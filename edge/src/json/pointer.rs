//! JSON pointers (RFC 6901).

/// Longer names are cut in answers, so that a body of one huge name is not sent back.
const NAME_CHARACTERS_MAX: usize = 100;

/// The pointer to the member `name` of the object at `prefix`.
pub fn member(prefix: &str, name: &str) -> String {
    let mut pointer = String::with_capacity(prefix.len() + 1 + name.len().min(4 * NAME_CHARACTERS_MAX));
    pointer.push_str(prefix);
    pointer.push('/');
    for character in name.chars().take(NAME_CHARACTERS_MAX) {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
    if name.chars().nth(NAME_CHARACTERS_MAX).is_some() {
        pointer.push('…');
    }
    pointer
}

pub fn element(prefix: &str, index: usize) -> String {
    format!("{prefix}/{index}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tildes_and_slashes_are_escaped() {
        assert_eq!(member("/traits", "a/b~c"), "/traits/a~1b~0c");
        assert_eq!(member("", ""), "/");
        assert_eq!(element("/items", 3), "/items/3");
    }

    #[test]
    fn a_huge_name_is_cut() {
        assert_eq!(member("", &"ä".repeat(100)), format!("/{}", "ä".repeat(100)));
        assert_eq!(member("", &"ä".repeat(101)), format!("/{}…", "ä".repeat(100)));
    }
}
