//! `embeddery token`: tokens for who has no identity provider, and what a token says.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use super::jwt_keys::Algorithm;

/// Signs tokens.
pub struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
}

/// What a new token shall say.
pub struct TokenRequest {
    /// `sub`.
    pub user: String,
    /// `role`.
    pub role: String,
    /// `iss`, where one is configured.
    pub issuer: Option<String>,
    /// `aud`, where one is configured.
    pub audience: Option<String>,
    /// `jti`.
    pub id: String,
    /// Now, in seconds since 1970.
    pub now: u64,
    /// For how long it holds.
    pub lifetime: Duration,
}

impl Signer {
    /// HS256 by the shared secret.
    pub fn secret(secret: &SecretString) -> Self {
        let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
        Self { algorithm: Algorithm::Hs256, key }
    }

    /// RS256 or ES256 by a private key in PEM.
    ///
    /// # Errors
    /// When the text is no such key.
    pub fn pem(algorithm: Algorithm, text: &SecretString) -> Result<Self, String> {
        let bytes = text.expose_secret().as_bytes();
        let key = match algorithm {
            Algorithm::Rs256 => EncodingKey::from_rsa_pem(bytes),
            Algorithm::Es256 => EncodingKey::from_ec_pem(bytes),
            Algorithm::Hs256 => return Err("HS256 is signed by JWT_SECRET_KEY, not by a private key".into()),
        };
        let key = key.map_err(|_| format!("is not a private key in PEM for {}", algorithm.as_str()))?;
        Ok(Self { algorithm, key })
    }

    /// A signed token.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn sign(&self, wanted: &TokenRequest) -> Result<String, String> {
        let mut claims = json!({
            "sub": wanted.user,
            "role": wanted.role,
            "type": "access",
            "jti": wanted.id,
            "iat": wanted.now,
            "exp": wanted.now.saturating_add(wanted.lifetime.as_secs()),
        });
        for (name, value) in [("iss", &wanted.issuer), ("aud", &wanted.audience)] {
            if let Some(value) = value {
                claims[name] = json!(value);
            }
        }
        jsonwebtoken::encode(&Header::new(self.algorithm.library()), &claims, &self.key)
            .map_err(|error| format!("the token cannot be signed: {error}"))
    }
}

/// What a token says, believed or not.
#[derive(Debug)]
pub struct TokenInspection {
    /// Its header.
    pub header: Value,
    /// Its claims.
    pub claims: Map<String, Value>,
}

/// Reads a token without checking its signature; never use this to let somebody in.
///
/// # Errors
/// When it is no token.
pub fn inspect(token: &str) -> Result<TokenInspection, String> {
    let header = jsonwebtoken::decode_header(token).map_err(|error| format!("not a token: {error}"))?;
    let header = serde_json::to_value(header).map_err(|error| format!("not a token: {error}"))?;
    let claims = jsonwebtoken::dangerous::insecure_decode(token)
        .map_err(|error| format!("not a token: {error}"))?
        .claims;
    Ok(TokenInspection { header, claims })
}
