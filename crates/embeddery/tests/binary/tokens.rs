//! Tokens for servers in multi_user mode, good ones and others.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// JWT_SECRET_KEY of tests.
pub const SECRET: &str = "the-secret-of-tests-that-signs-tokens";

pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// What a good token says.
pub fn claims(user: &str, role: &str) -> Value {
    json!({"sub": user, "role": role, "exp": now() + 3600, "jti": format!("{user}-{role}")})
}

pub fn signed(algorithm: Algorithm, claims: &Value, secret: &str) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// A good token.
pub fn token(user: &str, role: &str) -> String {
    signed(Algorithm::HS256, &claims(user, role), SECRET)
}
