//! Measures the latency that accounts add to a request: token verification, rate limits in process and in Redis, quota
//! and usage. Prints the median and the 99th percentile of each in microseconds.
//!
//! `cargo run --release -p embeddery-accounts --example latency`; it starts its own `redis-server`.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for a person at a terminal")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use embeddery_accounts::{
    Auth, Ledger, Limiter, UserId,
    auth::{KeyConfig, TokenConfig, TokenRequest, TokenSigner, TokenVerifier},
    ledger::{LedgerConfig, Quotas, UsageRecord},
    limit::{Rate, RateLimitKey, RateLimitKind, Rates},
};
use embeddery_core::ProviderKind;
use embeddery_database::redis::RedisAddress;
use embeddery_test_support::redis::Redis;

const ROUNDS: usize = 20_000;

#[tokio::main]
async fn main() {
    let secret = "a secret of thirty-two characters";
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let token = TokenSigner::secret(&secret.to_owned().into())
        .sign(&TokenRequest {
            user: "ann".into(),
            role: "user".into(),
            issuer: Some("https://id.example".into()),
            audience: Some("embeddery".into()),
            id: "018f7c52-0000-7000-8000-000000000000".into(),
            now: now.as_secs(),
            lifetime: Duration::from_secs(3600),
        })
        .unwrap();
    let auth = Auth::tokens(
        TokenVerifier::load(TokenConfig {
            keys: KeyConfig::Secrets(vec![secret.to_owned().into()]),
            issuers: vec!["https://id.example".into()],
            audiences: vec!["embeddery".into()],
            leeway: 30,
            admin_role: "admin".into(),
            revoked: None,
        })
        .unwrap(),
    );
    let rate = Rate::per_second(1e6, 1_000_000);
    let rates = Rates { requests: rate, tokens: rate, failures: None };
    let local = Limiter::in_memory(rates);
    let redis = Redis::start().unwrap();
    let shared = Limiter::in_redis(rates, &RedisAddress::new(redis.url())).unwrap();
    let ann = UserId::new("ann");

    measure("HS256 token", async || drop(auth.identify(Some(token.as_bytes())).unwrap())).await;
    measure("HS256 token + requests + tokens, in process", async || {
        let identity = auth.identify(Some(token.as_bytes())).unwrap();
        let payer = RateLimitKey::user(&identity.user);
        let _ = local.take(RateLimitKind::Requests, &payer, 1).await;
        let _ = local.take(RateLimitKind::Tokens, &payer, 1).await;
    })
    .await;
    measure("HS256 token + requests, in Redis", async || {
        let identity = auth.identify(Some(token.as_bytes())).unwrap();
        let _ = shared.take(RateLimitKind::Requests, &RateLimitKey::user(&identity.user), 1).await;
    })
    .await;
    measure("HS256 token + requests + tokens, in Redis", async || {
        let identity = auth.identify(Some(token.as_bytes())).unwrap();
        let payer = RateLimitKey::user(&identity.user);
        let _ = shared.take(RateLimitKind::Requests, &payer, 1).await;
        let _ = shared.take(RateLimitKind::Tokens, &payer, 1).await;
    })
    .await;
    for (name, tokens_per_day) in
        [("usage, on disk", None), ("quota and usage, on disk", Some(u64::MAX >> 2))]
    {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(LedgerConfig {
            path: dir.path().join("usage.sqlite3"),
            quotas: Quotas { tokens_per_day, ..Quotas::default() },
            retention_days: 400,
            prices: Arc::new(|_, _: &str| None),
        })
        .unwrap();
        measure(name, async || {
            let reservation = ledger.reserve(&ann, 10, Duration::from_secs(60)).await.unwrap();
            reservation
                .settle(UsageRecord {
                    provider: ProviderKind::HuggingFace,
                    model: "m".into(),
                    texts: 1,
                    cached_texts: 0,
                    tokens: 10,
                    billed_tokens: 0,
                })
                .await;
        })
        .await;
    }
}

async fn measure(name: &str, work: impl AsyncFn()) {
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS + 1000 {
        let started = Instant::now();
        work().await;
        if round >= 1000 {
            times.push(started.elapsed());
        }
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!("{name:<46} p50 {:>7.1} µs   p99 {:>7.1} µs", at(0.5), at(0.99));
}
