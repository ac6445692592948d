//! From what a caller sent to who they are. Two modes: one key for one user, or tokens that name their user.

mod jwt_keys;
mod revocation_list;
mod token;
mod token_signer;

use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use crate::{Identity, Role, UserId};

pub use jwt_keys::{Algorithm, KeyConfig};
pub use token::{TokenConfig, Tokens};
pub use token_signer::{Signer, TokenInspection, TokenRequest, inspect};

/// How callers prove who they are.
pub enum Auth {
    /// One key, one user, who is also the admin.
    Single(SingleKey),
    /// Tokens.
    Multi(Box<Tokens>),
}

/// Why somebody was not let in. The caller learns only whether anything was sent at all; the audit log learns
/// the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// No key and no token was sent.
    Missing,
    /// What was sent is not good, for this reason.
    Bad(&'static str),
}

impl Auth {
    /// One key for one user.
    pub fn single(key: &SecretString) -> Self {
        Self::Single(SingleKey(blake3::hash(key.expose_secret().as_bytes())))
    }

    /// Tokens, checked as configured.
    pub fn tokens(tokens: Tokens) -> Self {
        Self::Multi(Box::new(tokens))
    }

    /// Who sent this key or token.
    ///
    /// # Errors
    /// When nothing was sent, or what was sent is not good.
    pub fn identify(&self, sent: Option<&[u8]>) -> Result<Identity, AuthError> {
        let sent = sent.ok_or(AuthError::Missing)?;
        match self {
            Self::Single(key) if key.is(sent) => Ok(Identity { user: UserId::single(), role: Role::Admin }),
            Self::Single(_) => Err(AuthError::Bad("wrong key")),
            Self::Multi(tokens) => tokens.verify(sent).map_err(AuthError::Bad),
        }
    }

    /// Whether tokens are expected rather than the one key.
    pub fn is_multi_user(&self) -> bool {
        matches!(self, Self::Multi(_))
    }
}

/// The one key. Only its hash is kept: hashes are of one length and compared in constant time, so that neither
/// the key's length nor a common beginning can be measured.
pub struct SingleKey(blake3::Hash);

impl SingleKey {
    fn is(&self, sent: &[u8]) -> bool {
        blake3::hash(sent).as_bytes().ct_eq(self.0.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_key_opens_and_nothing_else_does() {
        let auth = Auth::single(&SecretString::from("a-key-of-some-length"));
        assert_eq!(auth.identify(Some(b"a-key-of-some-length")).unwrap().role, Role::Admin);
        assert_eq!(auth.identify(None), Err(AuthError::Missing));
        for wrong in ["", "a-key-of-some-lengt", "a-key-of-some-length ", "A-KEY-OF-SOME-LENGTH", "x"] {
            assert_eq!(auth.identify(Some(wrong.as_bytes())), Err(AuthError::Bad("wrong key")), "{wrong}");
        }
    }
}
