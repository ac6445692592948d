//! Valid and invalid tokens.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::PathBuf, time::Duration};

use embeddery_accounts::{
    Auth, AuthError, Identity, Role,
    auth::{KeyConfig, TokenAlgorithm, TokenConfig, TokenRequest, TokenSigner, TokenVerifier, inspect},
};
use secrecy::SecretString;
use serde_json::{Value, json};

const SECRET: &str = "a secret of thirty-two characters";

fn config(keys: KeyConfig) -> TokenConfig {
    TokenConfig {
        keys,
        issuers: vec![],
        audiences: vec![],
        leeway: 30,
        admin_role: "admin".into(),
        revoked: None,
    }
}

fn secrets(secrets: &[&str]) -> KeyConfig {
    KeyConfig::Secrets(secrets.iter().map(|secret| SecretString::from(*secret)).collect())
}

fn auth(config: TokenConfig) -> Auth {
    Auth::tokens(TokenVerifier::load(config).unwrap())
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn hs256(claims: &Value) -> String {
    sign(jsonwebtoken::Algorithm::HS256, claims, SECRET)
}

fn sign(algorithm: jsonwebtoken::Algorithm, claims: &Value, secret: &str) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::new(algorithm), claims, &key).unwrap()
}

fn valid_claims() -> Value {
    json!({"sub": "ann", "role": "user", "exp": now() + 600, "jti": "one"})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = valid_claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = valid_claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn identify(auth: &Auth, token: &str) -> Result<Identity, AuthError> {
    auth.identify(Some(token.as_bytes()))
}

#[test]
fn a_valid_token_names_its_user_and_role() {
    let auth = auth(config(secrets(&[SECRET])));
    let role = |claims: Value| identify(&auth, &hs256(&claims)).unwrap().role;
    assert_eq!(identify(&auth, &hs256(&valid_claims())).unwrap().user.as_str(), "ann");
    assert_eq!(role(valid_claims()), Role::User);
    assert_eq!(role(with("role", json!("admin"))), Role::Admin);
    assert_eq!(role(without("role")), Role::User, "without a role it is a user");
    assert_eq!(role(with("role", json!("Admin"))), Role::User);
    assert!(identify(&auth, &hs256(&with("exp", json!(now() - 10)))).is_ok(), "inside the leeway");
}

#[test]
fn invalid_claims_are_rejected() {
    let auth = auth(config(secrets(&[SECRET])));
    let rejected = |claims: Value| match identify(&auth, &hs256(&claims)) {
        Err(AuthError::Bad(reason)) => reason,
        other => panic!("{claims}: {other:?}"),
    };
    assert_eq!(rejected(with("exp", json!(now() - 31))), "token expired");
    assert_eq!(rejected(with("nbf", json!(now() + 60))), "token not valid yet");
    assert_eq!(rejected(with("type", json!("refresh"))), "token is not for access");
    for claims in [
        without("exp"),
        without("sub"),
        with("exp", json!("never")),
        with("exp", Value::Null),
        with("exp", json!(-1)),
        with("exp", json!([now() + 600])),
        with("nbf", json!("tomorrow")),
        with("sub", json!("")),
        with("sub", json!("  ")),
        with("sub", json!(7)),
        with("sub", json!(["ann"])),
        with("sub", json!("x".repeat(2000))),
        with("role", json!(["admin"])),
        with("role", json!({"admin": true})),
        with("jti", json!(1)),
        json!([]),
        json!("ann"),
    ] {
        rejected(claims);
    }
}

#[test]
fn algorithms_cannot_be_confused() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let public = pair.public_key_pem();
    let keys = || KeyConfig::Pem { algorithm: TokenAlgorithm::Es256, text: public.clone() };
    let es256 = auth(config(keys()));
    let signer = TokenSigner::pem(TokenAlgorithm::Es256, &pair.serialize_pem().into()).unwrap();
    assert!(identify(&es256, &signer.sign(&token_request()).unwrap()).is_ok());
    // The public key, which is not secret, used as a shared secret.
    for algorithm in [jsonwebtoken::Algorithm::HS256, jsonwebtoken::Algorithm::HS512] {
        assert!(identify(&es256, &sign(algorithm, &valid_claims(), &public)).is_err());
    }
    let shared = auth(config(secrets(&[SECRET])));
    for algorithm in [jsonwebtoken::Algorithm::HS384, jsonwebtoken::Algorithm::HS512] {
        assert!(
            identify(&shared, &sign(algorithm, &valid_claims(), SECRET)).is_err(),
            "{algorithm:?} is not configured"
        );
    }
    assert!(identify(&shared, &signer.sign(&token_request()).unwrap()).is_err());
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"None","typ":"JWT"}"#, r#"{"alg":""}"#, "{}"] {
        for signature in ["", "AAAA"] {
            let token = format!("{}.{}.{signature}", base64(header), base64(&valid_claims().to_string()));
            assert!(identify(&shared, &token).is_err(), "{header}");
        }
    }
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(text)
}

#[test]
fn a_modified_token_is_rejected() {
    let auth = auth(config(secrets(&[SECRET])));
    let token = hs256(&valid_claims());
    let parts: Vec<&str> = token.split('.').collect();
    let forged = base64(&with("role", json!("admin")).to_string());
    let header = jsonwebtoken::Header { crit: Some(vec!["exp".into()]), ..Default::default() };
    let critical = jsonwebtoken::encode(
        &header,
        &valid_claims(),
        &jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .unwrap();
    for token in [
        format!("{}.{forged}.{}", parts[0], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{token}A"),
        format!("{token}."),
        format!(" {token}"),
        format!("{token}\0"),
        parts[1].to_owned(),
        "..".to_owned(),
        String::new(),
        "A".repeat(100_000),
        hs256(&with("padding", json!("x".repeat(9000)))),
        sign(jsonwebtoken::Algorithm::HS256, &valid_claims(), "another secret of thirty-two chars"),
        critical,
    ] {
        assert!(identify(&auth, &token).is_err(), "{token:.200}");
    }
    // Any single character of the signature except the last one, whose low bits are unused.
    for index in 0..parts[2].len() - 1 {
        let mut signature = parts[2].as_bytes().to_vec();
        signature[index] = if signature[index] == b'A' { b'B' } else { b'A' };
        let token = format!("{}.{}.{}", parts[0], parts[1], String::from_utf8(signature).unwrap());
        assert!(identify(&auth, &token).is_err());
    }
    assert!(auth.identify(Some(&[0xff, 0xfe])).is_err());
}

#[test]
fn issuer_and_audience_must_match_if_they_are_configured() {
    let strict = auth(TokenConfig {
        issuers: vec!["https://id.example".into()],
        audiences: vec!["embeddery".into()],
        ..config(secrets(&[SECRET]))
    });
    let token = |issuer: Value, audience: Value| {
        let mut claims = with("iss", issuer);
        claims["aud"] = audience;
        identify(&strict, &hs256(&claims))
    };
    assert!(token(json!("https://id.example"), json!("embeddery")).is_ok());
    assert!(token(json!("https://id.example"), json!(["other", "embeddery"])).is_ok());
    assert_eq!(
        token(json!("https://id.example"), json!("other")),
        Err(AuthError::Bad("token for another audience"))
    );
    assert_eq!(
        token(json!("https://evil.example"), json!("embeddery")),
        Err(AuthError::Bad("token of another issuer"))
    );
    assert!(token(Value::Null, json!("embeddery")).is_err());
    assert!(token(json!("https://id.example"), Value::Null).is_err());
    assert!(identify(&strict, &hs256(&valid_claims())).is_err());
}

#[test]
fn both_secrets_are_accepted_during_a_rotation() {
    let auth = auth(config(secrets(&["the new secret, thirty-two characters", SECRET])));
    assert!(identify(&auth, &hs256(&valid_claims())).is_ok());
    let new = sign(jsonwebtoken::Algorithm::HS256, &valid_claims(), "the new secret, thirty-two characters");
    assert!(identify(&auth, &new).is_ok());
    assert_eq!(
        identify(&auth, &hs256(&with("exp", json!(1)))),
        Err(AuthError::Bad("token expired")),
        "the reason of the key with a valid signature"
    );
}

#[test]
fn a_revoked_token_is_rejected_from_the_next_request_on() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("revoked");
    fs::write(&list, "# left the company\nanother-token # last week\n").unwrap();
    let auth = auth(TokenConfig { revoked: Some(list.clone()), ..config(secrets(&[SECRET])) });
    let token = hs256(&valid_claims());
    assert!(identify(&auth, &token).is_ok());
    assert_eq!(identify(&auth, &hs256(&without("jti"))), Err(AuthError::Bad("token without jti")));
    fs::write(&list, "another-token\none\n").unwrap();
    assert_eq!(identify(&auth, &token), Err(AuthError::Bad("token revoked")));
    fs::remove_file(&list).unwrap();
    assert_eq!(
        identify(&auth, &token),
        Err(AuthError::Bad("token revoked")),
        "a deleted list does not restore revoked tokens"
    );
}

fn token_request() -> TokenRequest {
    TokenRequest {
        user: "ann".into(),
        role: "user".into(),
        issuer: None,
        audience: None,
        id: "one".into(),
        now: now(),
        lifetime: Duration::from_secs(60),
    }
}

/// The JWKS of one public key.
fn jwks(path: &PathBuf, signer_pem: &str, algorithm: jsonwebtoken::Algorithm, id: &str) {
    let key = match algorithm {
        jsonwebtoken::Algorithm::ES256 => jsonwebtoken::EncodingKey::from_ec_pem(signer_pem.as_bytes()),
        _ => jsonwebtoken::EncodingKey::from_rsa_pem(signer_pem.as_bytes()),
    };
    let mut jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key.unwrap(), algorithm).unwrap();
    jwk.common.key_id = Some(id.into());
    fs::write(path, json!({"keys": [jwk, {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"}]}).to_string())
        .unwrap();
}

#[test]
fn a_jwks_file_is_reloaded_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    let first = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    let second = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
        .unwrap()
        .serialize_pem();
    jwks(&path, &first, jsonwebtoken::Algorithm::ES256, "first");
    let auth = auth(config(KeyConfig::Jwks(path.clone())));
    let signed = |algorithm, pem: &str| {
        TokenSigner::pem(algorithm, &SecretString::from(pem)).unwrap().sign(&token_request()).unwrap()
    };
    let (es256, rs256) = (signed(TokenAlgorithm::Es256, &first), signed(TokenAlgorithm::Rs256, &second));
    assert!(identify(&auth, &es256).is_ok() && identify(&auth, &rs256).is_err());
    assert!(
        identify(&auth, &sign(jsonwebtoken::Algorithm::HS256, &valid_claims(), "secret")).is_err(),
        "no shared keys"
    );
    jwks(&path, &second, jsonwebtoken::Algorithm::RS256, "second");
    assert!(identify(&auth, &rs256).is_ok() && identify(&auth, &es256).is_err());
}

#[test]
fn invalid_keys_are_reported_when_they_are_loaded() {
    let bad = |keys| TokenVerifier::load(config(keys)).err().unwrap();
    assert!(
        bad(KeyConfig::Pem { algorithm: TokenAlgorithm::Rs256, text: "x".into() })
            .contains("public key in PEM")
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    assert!(bad(KeyConfig::Jwks(path.clone())).contains("cannot be read"));
    fs::write(&path, r#"{"keys":[]}"#).unwrap();
    assert!(bad(KeyConfig::Jwks(path)).contains("holds no RSA or P-256 key"));
}

#[test]
fn a_token_can_be_inspected_without_verification() {
    let token = TokenSigner::secret(&SECRET.to_owned().into()).sign(&token_request()).unwrap();
    let read = inspect(&token).unwrap();
    assert_eq!((&read.header["alg"], &read.claims["sub"]), (&json!("HS256"), &json!("ann")));
    assert!(inspect("no token").is_err());
}
