//! Authentication: maps the key or token of a request to an identity. Two modes: one key for one user, or tokens that
//! name their user.

mod jwt_keys;
mod revocation_list;
mod token_signer;
mod token_verifier;

use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use crate::{Identity, Role, UserId};

pub use jwt_keys::{KeyConfig, TokenAlgorithm};
pub use token_signer::{TokenInspection, TokenRequest, TokenSigner, inspect};
pub use token_verifier::{TokenConfig, TokenVerifier};

/// How callers authenticate.
pub enum Auth {
    /// One key for one user with the role admin.
    Single(SingleKey),
    /// Tokens that name their user.
    Multi(Box<TokenVerifier>),
}

/// A failed authentication. The response only distinguishes missing from invalid credentials; the audit log has the
/// reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// The request has no key or token.
    Missing,
    /// The key or token is invalid, for this reason.
    Bad(&'static str),
}

impl Auth {
    /// Authentication by one key.
    pub fn single(key: &SecretString) -> Self {
        Self::Single(SingleKey(blake3::hash(key.expose_secret().as_bytes())))
    }

    /// Authentication by tokens.
    pub fn tokens(tokens: TokenVerifier) -> Self {
        Self::Multi(Box::new(tokens))
    }

    /// The identity behind a key or token.
    ///
    /// # Errors
    /// When the credential is missing or invalid.
    pub fn identify(&self, credential: Option<&[u8]>) -> Result<Identity, AuthError> {
        let credential = credential.ok_or(AuthError::Missing)?;
        match self {
            Self::Single(key) if key.matches(credential) => {
                Ok(Identity { user: UserId::single(), role: Role::Admin })
            }
            Self::Single(_) => Err(AuthError::Bad("wrong key")),
            Self::Multi(tokens) => tokens.verify(credential).map_err(AuthError::Bad),
        }
    }

    /// Whether callers authenticate by tokens.
    pub fn is_multi_user(&self) -> bool {
        matches!(self, Self::Multi(_))
    }
}

/// The key of single_user mode. Only its hash is stored: hashes have one length and are compared in constant time, so
/// that timing reveals neither the key's length nor a common prefix.
pub struct SingleKey(blake3::Hash);

impl SingleKey {
    fn matches(&self, key: &[u8]) -> bool {
        blake3::hash(key).as_bytes().ct_eq(self.0.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_configured_key_is_accepted() {
        let auth = Auth::single(&SecretString::from("a-key-of-some-length"));
        assert_eq!(auth.identify(Some(b"a-key-of-some-length")).unwrap().role, Role::Admin);
        assert_eq!(auth.identify(None), Err(AuthError::Missing));
        for wrong in ["", "a-key-of-some-lengt", "a-key-of-some-length ", "A-KEY-OF-SOME-LENGTH", "x"] {
            assert_eq!(auth.identify(Some(wrong.as_bytes())), Err(AuthError::Bad("wrong key")), "{wrong}");
        }
    }
}
