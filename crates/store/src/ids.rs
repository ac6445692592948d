//! Checks of collection names, and deterministic ids: the same document always gets the same vector ids.

use std::collections::HashMap;

use embeddery_core::SpaceId;
use uuid::Uuid;

use crate::{ChunkKey, CollectionRef, StoreError};

/// Hash of a chunk's text: the first 16 bytes of BLAKE3.
pub(crate) type Fingerprint = [u8; 16];

/// Namespace of the vector ids, which are UUIDs of version 5.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1c_6e0e_8f3b_5d0a_9a52_7a1d_0b5e_4c27);

/// Maximum length of a collection name. Names are ASCII, so a byte is a character.
const MAX_NAME_BYTES: usize = 128;

/// Checks the name of a collection: 1 to 128 ASCII letters, digits, `_`, `.` or `-`, without a leading dot.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_NAME_BYTES {
        "is longer than 128 characters"
    } else if name.starts_with('.') {
        "begins with a dot"
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        "contains a character that is not one of A-Z a-z 0-9 _ . -"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(40).collect();
    Err(StoreError::invalid(format!("name '{shown}' {problem}; write for example 'notes-2026'")))
}

/// Returns the keys of a document's chunks, in order. A key is the text's hash and the number of equal texts before it,
/// so inserting a chunk does not change the keys of the others.
pub(crate) fn fingerprints<'t>(texts: impl IntoIterator<Item = &'t str>) -> Vec<ChunkKey> {
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

/// Computes the id of a chunk's vector: a UUID of version 5 over tenant, collection, document, space and chunk key.
pub(crate) fn vector_id(
    collection_ref: CollectionRef<'_>,
    document: &str,
    key: ChunkKey,
    space: &SpaceId,
) -> Uuid {
    let mut name = Vec::with_capacity(160);
    for part in [collection_ref.tenant, collection_ref.collection, document, space.as_str()] {
        // Each part is prefixed with its length, so that different lists of parts never give the same bytes.
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
    fn names_are_checked() {
        for good in ["a", "notes-2026", "A.b_c", &"x".repeat(128)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "../etc", "a/b", ".hidden", "..", "🦊", "a b", "a\0", &"x".repeat(300)] {
            let message = check_name(bad).unwrap_err().message;
            assert!(message.contains("write for example") && message.len() < 200, "{message}");
        }
    }

    #[test]
    fn an_insertion_changes_no_other_key() {
        let before = fingerprints(["a", "b", "a"]);
        let after = fingerprints(["new", "a", "b", "a"]);
        assert_eq!(before, after[1..]);
        assert_eq!((before[0].occurrence, before[2].occurrence), (0, 1));
    }

    #[test]
    fn every_part_changes_the_id() {
        let collection_ref = CollectionRef { tenant: "1", collection: "c" };
        let (x, y) = (SpaceId::new("x"), SpaceId::new("y"));
        let key = fingerprints(["t"])[0];
        let id = vector_id(collection_ref, "d", key, &x);
        assert_eq!(id, vector_id(collection_ref, "d", key, &x));
        let others = [
            vector_id(CollectionRef { tenant: "1c", collection: "" }, "d", key, &x),
            vector_id(CollectionRef { tenant: "2", ..collection_ref }, "d", key, &x),
            vector_id(collection_ref, "e", key, &x),
            vector_id(collection_ref, "d", ChunkKey { occurrence: 1, ..key }, &x),
            vector_id(collection_ref, "d", key, &y),
        ];
        assert!(!others.contains(&id));
    }
}
