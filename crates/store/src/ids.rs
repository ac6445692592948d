//! Names that are safe, and ids that come out the same however often a document is added.

use std::collections::HashMap;

use embeddery_core::SpaceId;
use uuid::Uuid;

use crate::{CollectionRef, StoreError, types::ChunkKey};

/// The hash of a chunk's text.
pub type Fingerprint = [u8; 16];

/// Every vector id is made below this one.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1c_6e0e_8f3b_5d0a_9a52_7a1d_0b5e_4c27);

/// The longest name of a collection, in characters.
const MAX_NAME_BYTES: usize = 128;

/// A collection's name: letters, digits, `_`, `.`, `-`; no leading dot.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let wrong = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_NAME_BYTES {
        "is longer than 128 characters"
    } else if name.starts_with('.') {
        "begins with a dot"
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        "holds a character that is not one of A-Z a-z 0-9 _ . -"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(40).collect();
    Err(StoreError::invalid(format!("name '{shown}' {wrong}; write for example 'notes-2026'")))
}

/// The keys of a document's chunks. Equal texts are numbered, so that an insertion renames no other chunk.
pub fn fingerprints<'t>(texts: impl IntoIterator<Item = &'t str>) -> Vec<ChunkKey> {
    let mut seen: HashMap<Fingerprint, u32> = HashMap::new();
    texts
        .into_iter()
        .map(|text| {
            let mut fingerprint = Fingerprint::default();
            fingerprint.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
            let next = seen.entry(fingerprint).or_default();
            *next += 1;
            ChunkKey { fingerprint, occurrence: *next - 1 }
        })
        .collect()
}

/// The id of a chunk's vector: of tenant, collection, document, text, its occurrence, and space.
pub fn vector_id(place: CollectionRef<'_>, document: &str, key: ChunkKey, space: &SpaceId) -> Uuid {
    let mut name = Vec::with_capacity(160);
    for part in [place.tenant, place.collection, document, space.as_str()] {
        // Lengths in front, so that no two lists of parts read the same.
        name.extend_from_slice(&(part.len() as u64).to_le_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    name.extend_from_slice(&key.fingerprint);
    name.extend_from_slice(&key.occurrence.to_le_bytes());
    Uuid::new_v5(&NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "notes-2026", "A.b_c", &"x".repeat(128)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "../etc", "a/b", ".hidden", "..", "🦊", "a b", "a\0", &"x".repeat(300)] {
            let message = check_name(bad).unwrap_err().message;
            assert!(message.contains("write for example") && message.len() < 200, "{message}");
        }
    }

    #[test]
    fn an_insertion_renames_nothing() {
        let before = fingerprints(["a", "b", "a"]);
        let after = fingerprints(["new", "a", "b", "a"]);
        assert_eq!(before, after[1..]);
        assert_eq!((before[0].occurrence, before[2].occurrence), (0, 1));
    }

    #[test]
    fn ids_depend_on_everything_and_on_nothing_else() {
        let place = CollectionRef { tenant: "1", collection: "c" };
        let (x, y) = (SpaceId::new("x"), SpaceId::new("y"));
        let key = fingerprints(["t"])[0];
        let id = vector_id(place, "d", key, &x);
        assert_eq!(id, vector_id(place, "d", key, &x));
        let others = [
            vector_id(CollectionRef { tenant: "1c", collection: "" }, "d", key, &x),
            vector_id(CollectionRef { tenant: "2", ..place }, "d", key, &x),
            vector_id(place, "e", key, &x),
            vector_id(place, "d", ChunkKey { occurrence: 1, ..key }, &x),
            vector_id(place, "d", key, &y),
        ];
        assert!(!others.contains(&id));
    }
}
