//! Tokens of multi_user: JSON Web Tokens, checked whole before anything in them is believed. Every way to be
//! wrong ends in the same refusal; the reason is for the audit log.

use std::path::PathBuf;

use jsonwebtoken::{Validation, errors::ErrorKind};
use serde::Deserialize;
use serde_json::Value;

use super::{
    jwt_keys::{Key, KeyConfig, Keys},
    revocation_list::RevocationList,
};
use crate::{Identity, Role, UserId};

/// What a good token is.
#[derive(Clone)]
pub struct TokenConfig {
    /// What signatures are checked with.
    pub keys: KeyConfig,
    /// The `iss` that a token must have; empty: any.
    pub issuers: Vec<String>,
    /// One of these must be in `aud`; empty: any.
    pub audiences: Vec<String>,
    /// Seconds by which clocks may differ.
    pub leeway: u64,
    /// The `role` of an admin.
    pub admin_role: String,
    /// A file of `jti`s that hold no more; with it a token must have one.
    pub revoked: Option<PathBuf>,
}

/// Checks tokens.
pub struct Tokens {
    keys: Keys,
    validation: [Validation; 3],
    admin_role: String,
    revoked: Option<RevocationList>,
}

/// Bytes of the longest token; real ones have a few hundred.
const MAX_TOKEN_BYTES: usize = 8 << 10;
/// Bytes of the longest user id.
const MAX_USER_ID_BYTES: usize = 1 << 10;

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    role: Option<Value>,
    jti: Option<String>,
    /// The replaced service says `access` or `refresh` here.
    r#type: Option<Value>,
}

impl Tokens {
    /// Reads keys and lists.
    ///
    /// # Errors
    /// What is wrong with a file, for the operator.
    pub fn load(config: TokenConfig) -> Result<Self, String> {
        let keys = Keys::load(&config.keys)?;
        let validation = super::Algorithm::ALL.map(|algorithm| {
            let mut rules = Validation::new(algorithm.library());
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

    /// Who a token names.
    ///
    /// # Errors
    /// Why it is not good; for the operator, never for the caller.
    pub fn verify(&self, token: &[u8]) -> Result<Identity, &'static str> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err("token too long");
        }
        let claims = match &self.keys {
            Keys::Fixed(keys) => self.claims(token, keys),
            Keys::File(keys) => self.claims(token, &keys.get()),
        }?;
        if !claims.exp.is_finite() {
            return Err("token expires never");
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
            Some(_) => return Err("token with a role that is no text"),
        };
        Ok(Identity { user: UserId::new(claims.sub), role })
    }

    fn claims(&self, token: &[u8], keys: &[Key]) -> Result<Claims, &'static str> {
        // Nothing of the header is believed: it only narrows which of our keys are tried.
        let header = jsonwebtoken::decode_header(token).map_err(|_| "not a token")?;
        if header.crit.is_some() {
            return Err("token with an extension that must be understood");
        }
        let mut reason = "token signed by no key of ours";
        for key in keys.iter().filter(|key| key.algorithm.library() == header.alg) {
            if let (Some(wanted), Some(id)) = (&header.kid, &key.id)
                && wanted != id
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
        ErrorKind::MissingRequiredClaim(_) => "token lacks a claim that is due",
        _ => "not a token",
    }
}
