//! A message that could not be read may hold anything: with a key it is kept encrypted (AES-256-GCM, the key is the
//! SHA-256 of the passphrase, as in the replaced service).

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest,
};
use secrecy::{ExposeSecret as _, SecretString};

/// Before what is encrypted.
const MARK: &[u8] = b"AESGCM\0";

pub(super) struct Seal(Option<RandomizedNonceKey>);

impl Seal {
    pub(super) fn new(passphrase: Option<&SecretString>) -> Result<Self, String> {
        let key = passphrase.map(|passphrase| {
            let hash = digest::digest(&digest::SHA256, passphrase.expose_secret().as_bytes());
            RandomizedNonceKey::new(&AES_256_GCM, hash.as_ref())
        });
        key.transpose().map(Self).map_err(|_| "the key of dead letters cannot be used".into())
    }

    /// As it is to be kept. What cannot be encrypted is not kept at all.
    pub(super) fn close(&self, raw: Vec<u8>) -> Vec<u8> {
        let Some(key) = &self.0 else { return raw };
        let mut text = raw;
        match key.seal_in_place_append_tag(Aad::empty(), &mut text) {
            Ok(nonce) => [MARK, nonce.as_ref(), &text].concat(),
            Err(_) => Vec::new(),
        }
    }

    /// As it was found; encrypted bytes as they are when the key is another one.
    pub(super) fn open(&self, kept: Vec<u8>) -> Vec<u8> {
        let Some((nonce, text)) = kept.strip_prefix(MARK).and_then(|rest| rest.split_at_checked(NONCE_LEN))
        else {
            return kept;
        };
        let (Some(key), Ok(nonce)) = (&self.0, Nonce::try_assume_unique_for_key(nonce)) else { return kept };
        let mut text = text.to_vec();
        match key.open_in_place(nonce, Aad::empty(), &mut text) {
            Ok(open) => open.to_vec(),
            Err(_) => kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_opens() {
        let key = |text: &str| Seal::new(Some(&SecretString::from(text.to_owned()))).unwrap();
        let closed = key("one").close(b"secret".to_vec());
        assert!(!closed.windows(6).any(|part| part == b"secret"));
        assert_ne!(closed, key("one").close(b"secret".to_vec()), "each time another nonce");
        assert_eq!(key("one").open(closed.clone()), b"secret");
        assert_eq!(key("two").open(closed.clone()), closed);
        let plain = Seal::new(None).unwrap();
        assert_eq!(plain.open(closed.clone()), closed);
        assert_eq!(key("one").open(plain.close(b"plain".to_vec())), b"plain");
    }
}
