//! Valid and invalid tokens for servers in multi_user mode.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// The `JWT_SECRET_KEY` of the tests.
pub const SECRET: &str = "the-secret-of-tests-that-signs-tokens";

pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// The claims of a valid token.
pub fn claims(user: &str, role: &str) -> Value {
    json!({"sub": user, "role": role, "exp": now() + 3600, "jti": format!("{user}-{role}")})
}

pub fn signed(algorithm: Algorithm, claims: &Value, secret: &str) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// A valid token.
pub fn token(user: &str, role: &str) -> String {
    signed(Algorithm::HS256, &claims(user, role), SECRET)
}
