//! Signs tokens for installations without an identity provider, and reads tokens without verification (`embeddery
//! token`).

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use super::jwt_keys::TokenAlgorithm;

/// Signs tokens.
pub struct TokenSigner {
    algorithm: TokenAlgorithm,
    key: EncodingKey,
}

/// The claims of a new token.
pub struct TokenRequest {
    /// The claim `sub`.
    pub user: String,
    /// The claim `role`.
    pub role: String,
    /// The claim `iss`.
    pub issuer: Option<String>,
    /// The claim `aud`.
    pub audience: Option<String>,
    /// The claim `jti`.
    pub id: String,
    /// The claim `iat`: the current time in seconds since 1970.
    pub now: u64,
    /// Time from `iat` to `exp`.
    pub lifetime: Duration,
}

impl TokenSigner {
    /// Signs by HS256 with the shared secret.
    pub fn secret(secret: &SecretString) -> Self {
        let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
        Self { algorithm: TokenAlgorithm::Hs256, key }
    }

    /// Signs by RS256 or ES256 with a private key in PEM.
    ///
    /// # Errors
    /// When the text is not such a key.
    pub fn pem(algorithm: TokenAlgorithm, text: &SecretString) -> Result<Self, String> {
        let bytes = text.expose_secret().as_bytes();
        let key = match algorithm {
            TokenAlgorithm::Rs256 => EncodingKey::from_rsa_pem(bytes),
            TokenAlgorithm::Es256 => EncodingKey::from_ec_pem(bytes),
            TokenAlgorithm::Hs256 => {
                return Err("HS256 is signed with JWT_SECRET_KEY, not with a private key".into());
            }
        };
        let key = key.map_err(|_| format!("is not a private key in PEM for {}", algorithm.as_str()))?;
        Ok(Self { algorithm, key })
    }

    /// Signs a token.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn sign(&self, request: &TokenRequest) -> Result<String, String> {
        let mut claims = json!({
            "sub": request.user,
            "role": request.role,
            "type": "access",
            "jti": request.id,
            "iat": request.now,
            "exp": request.now.saturating_add(request.lifetime.as_secs()),
        });
        for (name, value) in [("iss", &request.issuer), ("aud", &request.audience)] {
            if let Some(value) = value {
                claims[name] = json!(value);
            }
        }
        jsonwebtoken::encode(&Header::new(self.algorithm.to_jsonwebtoken()), &claims, &self.key)
            .map_err(|error| format!("the token cannot be signed: {error}"))
    }
}

/// The content of a token that was not verified.
#[derive(Debug)]
pub struct TokenInspection {
    /// The header.
    pub header: Value,
    /// The claims.
    pub claims: Map<String, Value>,
}

/// Decodes a token without verification. Never use it for authentication.
///
/// # Errors
/// When the text is not a token.
pub fn inspect(token: &str) -> Result<TokenInspection, String> {
    let header = jsonwebtoken::decode_header(token).map_err(|error| format!("not a token: {error}"))?;
    let header = serde_json::to_value(header).map_err(|error| format!("not a token: {error}"))?;
    let claims = jsonwebtoken::dangerous::insecure_decode(token)
        .map_err(|error| format!("not a token: {error}"))?
        .claims;
    Ok(TokenInspection { header, claims })
}
