//! Accounts of a test server. Their files are in a directory of the test.

use std::{path::Path, sync::Arc};

use embeddery_accounts::{
    Accounts, AccountsConfig, AuditConfig, Auth, Limiter,
    auth::{KeyConfig, TokenConfig, TokenRequest, TokenSigner, TokenVerifier},
    ledger::{LedgerConfig, Quotas},
    limit::Rates,
};
use embeddery_core::ProviderKind;

use super::KEY;

/// The secret that signs the tokens of tests.
pub const SECRET: &str = "a secret of thirty-two characters";

/// One key, no limits.
pub fn plain(dir: &Path) -> AccountsConfig {
    AccountsConfig {
        auth: Auth::single(&KEY.to_owned().into()),
        limiter: Limiter::in_memory(Rates::default()),
        ledger: LedgerConfig {
            path: dir.join("usage.sqlite3"),
            quotas: Quotas::default(),
            retention_days: 400,
            prices: Arc::new(|provider, _: &str| (provider == ProviderKind::HuggingFace).then_some(2.0)),
        },
        audit: AuditConfig { path: dir.join("audit.jsonl"), max_bytes: 1 << 20, keep: 1 },
    }
}

/// Tokens signed with [`SECRET`].
pub fn tokens() -> Auth {
    let config = TokenConfig {
        keys: KeyConfig::Secrets(vec![SECRET.to_owned().into()]),
        issuers: vec![],
        audiences: vec![],
        leeway: 0,
        admin_role: "admin".into(),
        revoked: None,
    };
    Auth::tokens(TokenVerifier::load(config).unwrap())
}

/// A valid token.
pub fn token(user: &str, role: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let request = TokenRequest {
        user: user.into(),
        role: role.into(),
        issuer: None,
        audience: None,
        id: "id".into(),
        now: now.as_secs(),
        lifetime: std::time::Duration::from_secs(600),
    };
    TokenSigner::secret(&SECRET.to_owned().into()).sign(&request).unwrap()
}

pub fn open(config: AccountsConfig) -> Accounts {
    Accounts::open(config).unwrap()
}
