//! Finding people by name without storing names: keyed digests of prefixes, cut to 24 bits.
//!
//! A row bears digests of the prefixes of each word of its names. A search looks for the digest of the longest indexed
//! prefix of each of its words and filters what it finds after decryption; the cut makes a digest common enough to say
//! little about whom it belongs to.

use std::collections::HashMap;

use rollcall_domain::User;
use rollcall_event_store::keys::Digester;

/// Lengths, in characters, of the prefixes that are indexed.
const PREFIXES: [usize; 3] = [1, 3, 6];

/// What the digests are made under, beside the tenant.
pub(super) const SCOPE: &str = "name_prefix";

/// Words of one name beyond this are not indexed.
const WORDS_MAX: usize = 8;

/// The words of a name as they are compared: in lower case.
fn words(name: &str) -> impl Iterator<Item = String> {
    name.split(|c: char| c.is_whitespace() || c == '-').filter(|word| !word.is_empty()).map(str::to_lowercase)
}

fn prefix(word: &str, characters: usize) -> &str {
    word.char_indices().nth(characters).map_or(word, |(end, _)| &word[..end])
}

fn cut(digester: &Digester, prefix: &str) -> i32 {
    let digest = digester.digest(&[prefix.as_bytes()]);
    i32::from_be_bytes([0, digest.0[0], digest.0[1], digest.0[2]])
}

/// The digests of one tenant's names in one batch. Many people share a prefix: each is digested once.
pub(super) struct Digests {
    digester: Digester,
    known: HashMap<String, i32>,
}

impl Digests {
    pub fn new(digester: Digester) -> Self {
        Self { digester, known: HashMap::new() }
    }

    /// The digests that a user's row bears, sorted.
    pub fn of_user(&mut self, user: &User) -> Vec<i32> {
        let names = [user.given_name(), user.family_name(), user.display_name()];
        let mut digests = Vec::new();
        for name in names.into_iter().flatten() {
            for word in words(name.as_str()).take(WORDS_MAX) {
                let length = word.chars().count();
                let lengths = PREFIXES.into_iter().filter(|&indexed| indexed <= length);
                digests.extend(lengths.map(|indexed| self.of_prefix(prefix(&word, indexed))));
            }
        }
        digests.sort_unstable();
        digests.dedup();
        digests
    }

    fn of_prefix(&mut self, prefix: &str) -> i32 {
        if let Some(known) = self.known.get(prefix) {
            return *known;
        }
        let digest = cut(&self.digester, prefix);
        self.known.insert(prefix.to_owned(), digest);
        digest
    }
}

/// A search for names: every word must begin a word of some name.
#[derive(Clone, Debug)]
pub(super) struct Search {
    words: Vec<String>,
}

impl Search {
    pub fn new(text: &str) -> Self {
        Self { words: words(text).take(WORDS_MAX).collect() }
    }

    /// The digests that a matching row must bear.
    pub fn digests(&self, digester: &Digester) -> Vec<i32> {
        let longest = |word: &String| {
            let length = word.chars().count();
            let indexed =
                PREFIXES.into_iter().rev().find(|&indexed| indexed <= length).unwrap_or(PREFIXES[0]);
            cut(digester, prefix(word, indexed))
        };
        self.words.iter().map(longest).collect()
    }

    /// Whether a user's names match.
    pub fn matches(&self, user: &User) -> bool {
        let names = [user.given_name(), user.family_name(), user.display_name()];
        let of_user: Vec<String> =
            names.into_iter().flatten().flat_map(|name| words(name.as_str())).collect();
        self.words.iter().all(|sought| of_user.iter().any(|word| word.starts_with(sought.as_str())))
    }
}
