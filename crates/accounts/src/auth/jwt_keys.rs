//! The keys that tokens are checked with. Each key is bound to one algorithm here, never by a token: a public
//! key can then not be used as an HMAC secret, whatever a token's header says.

use std::path::{Path, PathBuf};

use jsonwebtoken::{
    DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::reloading_file::ReloadingFile;

/// How tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// A secret that issuer and server share.
    Hs256,
    /// The issuer's RSA key.
    Rs256,
    /// The issuer's P-256 key.
    Es256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hs256, Self::Rs256, Self::Es256];

    /// The name in a token's header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }

    pub(super) const fn library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
        }
    }
}

/// Where the keys come from.
#[derive(Clone)]
pub enum KeyConfig {
    /// HS256: the secret, and the one before it while tokens of both are about.
    Secrets(Vec<SecretString>),
    /// RS256 or ES256: the text of a public key or certificate in PEM.
    Pem {
        /// Which of the two.
        algorithm: Algorithm,
        /// `-----BEGIN PUBLIC KEY-----`…
        text: String,
    },
    /// RS256 and ES256: a JWKS file, read again when it changes.
    Jwks(PathBuf),
}

/// One key, its algorithm, and its name where it has one.
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) id: Option<String>,
    pub(super) key: DecodingKey,
}

/// All keys.
pub(super) enum Keys {
    Fixed(Vec<Key>),
    File(ReloadingFile<Vec<Key>>),
}

impl Keys {
    pub(super) fn load(config: &KeyConfig) -> Result<Self, String> {
        let fixed = |algorithm, key| Key { algorithm, id: None, key };
        Ok(match config {
            KeyConfig::Secrets(secrets) => Self::Fixed(
                secrets
                    .iter()
                    .map(|secret| {
                        fixed(Algorithm::Hs256, DecodingKey::from_secret(secret.expose_secret().as_bytes()))
                    })
                    .collect(),
            ),
            KeyConfig::Pem { algorithm, text } => {
                let key = match algorithm {
                    Algorithm::Rs256 => DecodingKey::from_rsa_pem(text.as_bytes()),
                    Algorithm::Es256 => DecodingKey::from_ec_pem(text.as_bytes()),
                    Algorithm::Hs256 => return Err("HS256 has a secret, not a public key".into()),
                }
                .map_err(|_| format!("is not a public key in PEM for {}", algorithm.as_str()))?;
                Self::Fixed(vec![fixed(*algorithm, key)])
            }
            KeyConfig::Jwks(path) => Self::File(ReloadingFile::open(Path::to_path_buf(path), parse)?),
        })
    }
}

/// The signing keys of a JWKS that we can use. Symmetric keys are passed over: a file of public keys must not
/// bring a secret in.
fn parse(text: &str) -> Result<Vec<Key>, String> {
    let set: JwkSet = serde_json::from_str(text).map_err(|error| format!("is not a JWKS: {error}"))?;
    let keys: Vec<Key> = set.keys.iter().filter_map(usable).collect();
    if keys.is_empty() {
        return Err("holds no RSA or P-256 key for signatures".into());
    }
    Ok(keys)
}

fn usable(jwk: &Jwk) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::Rs256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (Algorithm::Es256, KeyAlgorithm::ES256)
        }
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|algorithm| algorithm != named) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key { algorithm, id: jwk.common.key_id.clone(), key })
}
