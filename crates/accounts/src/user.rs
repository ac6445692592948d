//! A user, and the directory that is theirs. An identity provider may call a user anything: `../../etc`, `CON`,
//! `Ann` beside `ann`, ten kilobytes of emoji. Whatever it is, it becomes one plain name that no other id
//! becomes, also where a file system ignores case or normalises Unicode.

use std::{borrow::Borrow, fmt, sync::Arc};

/// What an identity provider calls a user; in single_user mode `1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything that is theirs.
    User,
    /// Also what concerns all.
    Admin,
}

/// Somebody whose key or token was good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose data and limits apply.
    pub user: UserId,
    /// What they may do.
    pub role: Role,
}

/// Bytes of the longest name that is kept as it is; most file systems end at 255.
const MAX_USER_ID_BYTES: usize = 200;

impl UserId {
    /// The only user of single_user mode.
    pub fn single() -> Self {
        Self("1".into())
    }

    /// Wraps an id that the caller has checked.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id as the identity provider wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The name of the user's directory below USER_DB_BASE_DIR.
    ///
    /// Lower-case ASCII letters, digits, `-`, `_` and inner dots stand for themselves, so that the guide's ids
    /// keep the directories they have; every other byte becomes `=` and two hexadecimal digits. That can be
    /// reversed, so no two ids collide. What would be too long for a file system becomes `=h` and its hash;
    /// `=h` begins no other name, because `h` is no hexadecimal digit.
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
            if name.len() > MAX_USER_ID_BYTES {
                return format!("=h{}", blake3::hash(bytes).to_hex());
            }
        }
        // An empty id is refused at the door; should one get here, it must not name the base directory itself.
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

    /// Undoes the escapes.
    fn read(name: &str) -> Vec<u8> {
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
    fn known_ids_keep_their_directories_and_tricks_get_none() {
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
        fn any_id_is_one_plain_name(id in any::<String>()) {
            let name = name(&id);
            prop_assert!(!name.is_empty() && name.len() <= 255);
            prop_assert!(!name.starts_with('.') && !name.ends_with('.'));
            prop_assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'=')));
        }

        #[test]
        fn short_ids_can_be_read_back_so_none_collide(id in "\\PC{1,40}|[A-Za-z.=/\\\\]{1,60}") {
            let name = name(&id);
            if !name.starts_with("=h") {
                prop_assert_eq!(read(&name), id.as_bytes());
            }
        }

        #[test]
        fn long_ids_do_not_collide(id in "[a-zA-Z]{190,400}", other in "[a-zA-Z]{190,400}") {
            prop_assume!(id != other);
            prop_assert_ne!(name(&id).to_lowercase(), name(&other).to_lowercase());
        }

        #[test]
        fn case_never_joins_two_users(id in "[a-zA-Z]{1,20}") {
            let swapped: String = id.chars().map(|c| if c.is_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect();
            prop_assert_ne!(name(&id).to_lowercase(), name(&swapped).to_lowercase());
        }
    }
}
