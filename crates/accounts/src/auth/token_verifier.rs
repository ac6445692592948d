//! Verification of the JSON Web Tokens of multi_user mode. No claim is used before the whole token is verified. All
//! failures have the same response; the reason is for the audit log.

use std::path::PathBuf;

use jsonwebtoken::{Validation, errors::ErrorKind};
use serde::Deserialize;
use serde_json::Value;

use super::{
    jwt_keys::{Key, KeyConfig, Keys},
    revocation_list::RevocationList,
};
use crate::{Identity, Role, UserId};

/// The requirements of a valid token.
#[derive(Clone)]
pub struct TokenConfig {
    /// The keys that verify signatures.
    pub keys: KeyConfig,
    /// Accepted values of `iss`; empty accepts any.
    pub issuers: Vec<String>,
    /// Accepted values of `aud`; empty accepts any.
    pub audiences: Vec<String>,
    /// Tolerated difference of clocks in seconds.
    pub leeway: u64,
    /// The value of `role` for an admin.
    pub admin_role: String,
    /// The file of revoked `jti`s. If it is set, a token must have a `jti`.
    pub revoked: Option<PathBuf>,
}

/// Verifies tokens.
pub struct TokenVerifier {
    keys: Keys,
    validation: [Validation; 3],
    admin_role: String,
    revoked: Option<RevocationList>,
}

/// Maximum size of a token. Usual tokens have a few hundred bytes.
const MAX_TOKEN_BYTES: usize = 8 << 10;
/// Maximum size of a user id.
const MAX_USER_ID_BYTES: usize = 1 << 10;

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    role: Option<Value>,
    jti: Option<String>,
    /// `access` or `refresh`, as in the service that this one replaces.
    r#type: Option<Value>,
}

impl TokenVerifier {
    /// Loads the keys and the revocation list.
    ///
    /// # Errors
    /// When a file or key is invalid; the message is for the operator.
    pub fn load(config: TokenConfig) -> Result<Self, String> {
        let keys = Keys::load(&config.keys)?;
        let validation = super::TokenAlgorithm::ALL.map(|algorithm| {
            let mut rules = Validation::new(algorithm.to_jsonwebtoken());
            rules.leeway = config.leeway;
            rules.validate_nbf = true;
            let mut required = vec!["exp", "sub"];
            rules.validate_aud = !config.audiences.is_empty();
            if rules.validate_aud {
                rules.set_audience(&config.audiences);
                required.push("aud");
            }
            if !config.issuers.is_empty() {
                rules.set_issuer(&config.issuers);
                required.push("iss");
            }
            rules.set_required_spec_claims(&required);
            rules
        });
        let revoked = config.revoked.map(RevocationList::open).transpose()?;
        Ok(Self { keys, validation, admin_role: config.admin_role, revoked })
    }

    /// Verifies a token and returns its identity.
    ///
    /// # Errors
    /// The reason why the token is invalid; it is for the operator and must not be sent to the caller.
    pub fn verify(&self, token: &[u8]) -> Result<Identity, &'static str> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err("token too long");
        }
        let claims = match &self.keys {
            Keys::Fixed(keys) => self.claims(token, keys),
            Keys::File(keys) => self.claims(token, &keys.get()),
        }?;
        if !claims.exp.is_finite() {
            return Err("token without a finite expiry");
        }
        if claims.sub.trim().is_empty() || claims.sub.len() > MAX_USER_ID_BYTES {
            return Err("token names no user");
        }
        if claims.r#type.as_ref().is_some_and(|kind| kind != "access") {
            return Err("token is not for access");
        }
        if let Some(revoked) = &self.revoked {
            let jti = claims.jti.as_deref().filter(|jti| !jti.is_empty()).ok_or("token without jti")?;
            if revoked.contains(jti) {
                return Err("token revoked");
            }
        }
        let role = match &claims.role {
            None => Role::User,
            Some(Value::String(role)) if *role == self.admin_role => Role::Admin,
            Some(Value::String(_)) => Role::User,
            Some(_) => return Err("token with a role that is not a string"),
        };
        Ok(Identity { user: UserId::new(claims.sub), role })
    }

    fn claims(&self, token: &[u8], keys: &[Key]) -> Result<Claims, &'static str> {
        // The header is not trusted: it only selects which of the configured keys are tried.
        let header = jsonwebtoken::decode_header(token).map_err(|_| "not a token")?;
        if header.crit.is_some() {
            return Err("token with an unsupported critical extension");
        }
        let mut reason = "token signed by no key of ours";
        for key in keys.iter().filter(|key| key.algorithm.to_jsonwebtoken() == header.alg) {
            if let (Some(kid), Some(id)) = (&header.kid, &key.id)
                && kid != id
            {
                continue;
            }
            let rules = &self.validation[key.algorithm as usize];
            match jsonwebtoken::decode::<Claims>(token, &key.key, rules) {
                Ok(data) => return Ok(data.claims),
                Err(error) => match error.kind() {
                    ErrorKind::InvalidSignature => {}
                    kind => {
                        reason = error_message(kind);
                    }
                },
            }
        }
        Err(reason)
    }
}

fn error_message(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "token expired",
        ErrorKind::ImmatureSignature => "token not valid yet",
        ErrorKind::InvalidAudience => "token for another audience",
        ErrorKind::InvalidIssuer => "token of another issuer",
        ErrorKind::MissingRequiredClaim(_) => "token lacks a required claim",
        _ => "not a token",
    }
}
