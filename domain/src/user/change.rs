//! Changes: from what to what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a value was and what it is now; `None` is "not there". The two differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change<T> {
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub from: Option<T>,
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub to: Option<T>,
}

impl<T: Clone + PartialEq> Change<T> {
    /// The change between two values, if they differ.
    pub fn between(from: Option<&T>, to: Option<&T>) -> Option<Self> {
        (from != to).then(|| Self { from: from.cloned(), to: to.cloned() })
    }
}

/// The changes by key between two maps.
pub(super) fn differences<K: Clone + Ord, V: Clone + PartialEq>(
    from: &BTreeMap<K, V>,
    to: &BTreeMap<K, V>,
) -> BTreeMap<K, Change<V>> {
    let gone = from.keys().filter(|key| !to.contains_key(*key));
    to.keys()
        .chain(gone)
        .filter_map(|key| Change::between(from.get(key), to.get(key)).map(|change| (key.clone(), change)))
        .collect()
}

/// Brings a map to where its changes lead.
pub(super) fn apply_all<K: Clone + Ord, V: Clone>(
    map: &mut BTreeMap<K, V>,
    changes: &BTreeMap<K, Change<V>>,
) {
    for (key, change) in changes {
        match &change.to {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}
