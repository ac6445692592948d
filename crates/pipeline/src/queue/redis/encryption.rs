//! Encryption of unreadable messages among the dead letters, which may hold anything: AES-256-GCM with the SHA-256 of a
//! passphrase as the key, as in the service that this one replaces.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest,
};
use secrecy::{ExposeSecret as _, SecretString};

/// The start of an encrypted payload.
const MARKER: &[u8] = b"AESGCM\0";

pub(super) struct PayloadCipher(Option<RandomizedNonceKey>);

impl PayloadCipher {
    pub(super) fn new(passphrase: Option<&SecretString>) -> Result<Self, String> {
        let key = passphrase.map(|passphrase| {
            let hash = digest::digest(&digest::SHA256, passphrase.expose_secret().as_bytes());
            RandomizedNonceKey::new(&AES_256_GCM, hash.as_ref())
        });
        key.transpose().map(Self).map_err(|_| "the key of dead letters cannot be used".into())
    }

    /// The payload to store. A payload that cannot be encrypted is replaced by an empty one.
    pub(super) fn encrypt(&self, raw: Vec<u8>) -> Vec<u8> {
        let Some(key) = &self.0 else { return raw };
        let mut text = raw;
        match key.seal_in_place_append_tag(Aad::empty(), &mut text) {
            Ok(nonce) => [MARKER, nonce.as_ref(), &text].concat(),
            Err(_) => Vec::new(),
        }
    }

    /// The original payload; with another key, the encrypted bytes.
    pub(super) fn decrypt(&self, stored: Vec<u8>) -> Vec<u8> {
        let Some((nonce, text)) =
            stored.strip_prefix(MARKER).and_then(|rest| rest.split_at_checked(NONCE_LEN))
        else {
            return stored;
        };
        let (Some(key), Ok(nonce)) = (&self.0, Nonce::try_assume_unique_for_key(nonce)) else {
            return stored;
        };
        let mut text = text.to_vec();
        match key.open_in_place(nonce, Aad::empty(), &mut text) {
            Ok(payload) => payload.to_vec(),
            Err(_) => stored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_decrypts() {
        let key = |text: &str| PayloadCipher::new(Some(&SecretString::from(text.to_owned()))).unwrap();
        let encrypted = key("one").encrypt(b"secret".to_vec());
        assert!(!encrypted.windows(6).any(|part| part == b"secret"));
        assert_ne!(encrypted, key("one").encrypt(b"secret".to_vec()), "each time another nonce");
        assert_eq!(key("one").decrypt(encrypted.clone()), b"secret");
        assert_eq!(key("two").decrypt(encrypted.clone()), encrypted);
        let plain = PayloadCipher::new(None).unwrap();
        assert_eq!(plain.decrypt(encrypted.clone()), encrypted);
        assert_eq!(key("one").decrypt(plain.encrypt(b"plain".to_vec())), b"plain");
    }
}
