//! The keys that verify tokens. Each key is bound to one algorithm by configuration, never by the header of a token, so
//! that a public key cannot be used as an HMAC secret.

use std::path::{Path, PathBuf};

use jsonwebtoken::{
    DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::reloading_file::ReloadingFile;

/// The signature algorithm of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAlgorithm {
    /// HMAC with a secret that issuer and server share.
    Hs256,
    /// RSA signature of the issuer.
    Rs256,
    /// ECDSA signature of the issuer on the curve P-256.
    Es256,
}

impl TokenAlgorithm {
    /// All algorithms.
    pub const ALL: [Self; 3] = [Self::Hs256, Self::Rs256, Self::Es256];

    /// The name in the header of a token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }

    pub(super) const fn to_jsonwebtoken(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
        }
    }
}

/// The source of the keys.
#[derive(Clone)]
pub enum KeyConfig {
    /// HS256: the secret, and the previous secret during a rotation.
    Secrets(Vec<SecretString>),
    /// RS256 or ES256: the text of a public key or certificate in PEM.
    Pem {
        /// RS256 or ES256.
        algorithm: TokenAlgorithm,
        /// The text that begins with `-----BEGIN PUBLIC KEY-----`.
        text: String,
    },
    /// RS256 and ES256: a JWKS file, reloaded when it changes.
    Jwks(PathBuf),
}

/// A key with its algorithm and its optional id (`kid`).
pub(super) struct Key {
    pub(super) algorithm: TokenAlgorithm,
    pub(super) id: Option<String>,
    pub(super) key: DecodingKey,
}

/// All keys, fixed or from a file.
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
                        fixed(
                            TokenAlgorithm::Hs256,
                            DecodingKey::from_secret(secret.expose_secret().as_bytes()),
                        )
                    })
                    .collect(),
            ),
            KeyConfig::Pem { algorithm, text } => {
                let key = match algorithm {
                    TokenAlgorithm::Rs256 => DecodingKey::from_rsa_pem(text.as_bytes()),
                    TokenAlgorithm::Es256 => DecodingKey::from_ec_pem(text.as_bytes()),
                    TokenAlgorithm::Hs256 => {
                        return Err("HS256 needs a secret, not a public key; write RS256 or ES256".into());
                    }
                }
                .map_err(|_| format!("is not a public key in PEM for {}", algorithm.as_str()))?;
                Self::Fixed(vec![fixed(*algorithm, key)])
            }
            KeyConfig::Jwks(path) => Self::File(ReloadingFile::open(Path::to_path_buf(path), parse)?),
        })
    }
}

/// Parses the RSA and P-256 signature keys of a JWKS. Symmetric keys are skipped: a file of public keys must not add a
/// secret.
fn parse(text: &str) -> Result<Vec<Key>, String> {
    let set: JwkSet = serde_json::from_str(text).map_err(|error| format!("is not a JWKS: {error}"))?;
    let keys: Vec<Key> = set.keys.iter().filter_map(signature_key).collect();
    if keys.is_empty() {
        return Err("holds no RSA or P-256 key for signatures".into());
    }
    Ok(keys)
}

fn signature_key(jwk: &Jwk) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let (algorithm, expected) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (TokenAlgorithm::Rs256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (TokenAlgorithm::Es256, KeyAlgorithm::ES256)
        }
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|algorithm| algorithm != expected) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key { algorithm, id: jwk.common.key_id.clone(), key })
}
