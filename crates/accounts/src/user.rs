//! Users and their directories. The user id of an identity provider is an arbitrary string: `../../etc`, `CON`, `Ann` and
//! `ann`, ten kilobytes of emoji. Each id maps to a safe directory name, and no two ids map to the same name, also on a
//! file system that ignores case or normalises Unicode.

use std::{borrow::Borrow, fmt, sync::Arc};

/// The user id of the identity provider; `1` in single_user mode.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

/// The role of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May use their own data.
    User,
    /// May also administrate the installation.
    Admin,
}

/// An authenticated user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user, whose data and limits apply.
    pub user: UserId,
    /// The role of the user.
    pub role: Role,
}

/// Maximum length of an escaped directory name; longer names are replaced by a hash. Most file systems allow 255 bytes.
const MAX_ESCAPED_BYTES: usize = 200;

impl UserId {
    /// The user of single_user mode.
    pub fn single() -> Self {
        Self("1".into())
    }

    /// Wraps an id. The caller must have validated it.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id of the identity provider.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a shared string.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The name of the user's directory below USER_DB_BASE_DIR.
    ///
    /// Lower-case ASCII letters, digits, `-`, `_` and inner dots are kept, so that the ids of the deployment guide keep
    /// their directories. Every other byte becomes `=` and two hexadecimal digits. This is reversible, so no two ids
    /// collide. A name that is too long becomes `=h` and the hash of the id; no escaped name starts with `=h`, because
    /// `h` is not a hexadecimal digit.
    pub fn directory_name(&self) -> String {
        let bytes = self.0.as_bytes();
        let mut name = String::with_capacity(bytes.len());
        for (index, &byte) in bytes.iter().enumerate() {
            let inner = index > 0 && index + 1 < bytes.len();
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
                b'.' if inner => name.push('.'),
                _ => {
                    use fmt::Write as _;
                    // Writing to a string cannot fail.
                    let _ = write!(name, "={byte:02x}");
                }
            }
            if name.len() > MAX_ESCAPED_BYTES {
                return format!("=h{}", blake3::hash(bytes).to_hex());
            }
        }
        // Authentication rejects an empty id. Here it must not map to the base directory itself.
        if name.is_empty() { "=".into() } else { name }
    }
}

impl Borrow<str> for UserId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(id: &str) -> String {
        UserId::new(id).directory_name()
    }

    /// Decodes the escapes.
    fn unescape(name: &str) -> Vec<u8> {
        let (mut bytes, mut rest) = (Vec::new(), name.as_bytes());
        while let [first, tail @ ..] = rest {
            rest = tail;
            if *first == b'=' && tail.len() >= 2 {
                bytes.push(u8::from_str_radix(str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
                rest = &tail[2..];
            } else {
                bytes.push(*first);
            }
        }
        bytes
    }

    #[test]
    fn plain_ids_are_kept_and_unsafe_ids_are_escaped() {
        assert_eq!(["1", "ann", "a.b-c_d"].map(name), ["1", "ann", "a.b-c_d"]);
        assert_eq!(name(".embeddery"), "=2eembeddery");
        assert_eq!(name(".."), "=2e=2e");
        assert_eq!(name("../../etc"), "=2e.=2f..=2fetc");
        assert_eq!(name("Ann"), "=41nn");
        assert_eq!(name("a\0b"), "a=00b");
        assert_eq!(name("=41nn"), "=3d41nn");
        assert!(name(&"é".repeat(5000)).starts_with("=h"));
        assert_eq!(name(""), "=");
    }

    proptest! {
        #[test]
        fn any_id_maps_to_a_safe_name(id in any::<String>()) {
            let name = name(&id);
            prop_assert!(!name.is_empty() && name.len() <= 255);
            prop_assert!(!name.starts_with('.') && !name.ends_with('.'));
            prop_assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'=')));
        }

        #[test]
        fn short_ids_can_be_decoded_and_thus_do_not_collide(id in "\\PC{1,40}|[A-Za-z.=/\\\\]{1,60}") {
            let name = name(&id);
            if !name.starts_with("=h") {
                prop_assert_eq!(unescape(&name), id.as_bytes());
            }
        }

        #[test]
        fn long_ids_do_not_collide(id in "[a-zA-Z]{190,400}", other in "[a-zA-Z]{190,400}") {
            prop_assume!(id != other);
            prop_assert_ne!(name(&id).to_lowercase(), name(&other).to_lowercase());
        }

        #[test]
        fn ids_that_differ_in_case_do_not_collide(id in "[a-zA-Z]{1,20}") {
            let swapped: String = id.chars().map(|c| if c.is_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect();
            prop_assert_ne!(name(&id).to_lowercase(), name(&swapped).to_lowercase());
        }
    }
}
