//! Rate limits in a real Redis: two limiters share buckets, waits are exact, everything passes while Redis is unavailable,
//! and every topology works.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use embeddery_accounts::{
    Limiter, UserId,
    limit::{Rate, RateLimitError, RateLimitKey, RateLimitKind, Rates},
};
use embeddery_database::redis::{KeyPrefix, RedisAddress};
use embeddery_test_support::redis::{Cluster, Redis, Sentinel, TlsRedis};

fn limiter(redis: &Redis, rate: Option<Rate>) -> Limiter {
    limiter_at(&RedisAddress::new(redis.url()), rate)
}

fn limiter_at(address: &RedisAddress, rate: Option<Rate>) -> Limiter {
    let rates = Rates { requests: rate, tokens: rate, failures: None };
    Limiter::in_redis(rates, address).unwrap()
}

fn ann() -> RateLimitKey {
    RateLimitKey::user(&UserId::new("ann"))
}

#[tokio::test]
async fn two_limiters_share_one_budget() {
    let redis = Redis::start().unwrap();
    let rate = Rate::per_second(0.001, 10);
    let (here, there) = (limiter(&redis, rate), limiter(&redis, rate));
    for n in 0..10 {
        let limiter = if n % 2 == 0 { &here } else { &there };
        let standing = limiter.take(RateLimitKind::Requests, &ann(), 1).await.unwrap().unwrap();
        assert_eq!((standing.limit, standing.remaining), (10, 9 - n));
    }
    for limiter in [&here, &there] {
        let Err(RateLimitError::Wait { wait, status }) =
            limiter.take(RateLimitKind::Requests, &ann(), 1).await
        else {
            panic!("an eleventh passed")
        };
        assert!(wait <= Duration::from_secs(1000) && wait > Duration::from_secs(900), "{wait:?}");
        assert_eq!((status.remaining, status.reset.as_secs().div_ceil(1000)), (0, 10));
        assert_eq!(limiter.peek(RateLimitKind::Requests, &ann()).await.unwrap().remaining, 0);
    }
    let bob = RateLimitKey::user(&UserId::new("bob"));
    assert!(here.take(RateLimitKind::Requests, &bob, 1).await.unwrap().is_some(), "bob has his own budget");
    assert_eq!(here.take(RateLimitKind::Tokens, &ann(), 10).await.unwrap().unwrap().remaining, 0);
    assert_eq!(
        here.take(RateLimitKind::Tokens, &ann(), 11).await,
        Err(RateLimitError::TooMuch { limit: 10 })
    );
}

#[tokio::test]
async fn it_passes_again_after_exactly_the_wait_that_was_told() {
    let redis = Redis::start().unwrap();
    let limiter = limiter(&redis, Rate::per_second(20.0, 1));
    limiter.take(RateLimitKind::Requests, &ann(), 1).await.unwrap();
    let Err(RateLimitError::Wait { wait, .. }) = limiter.take(RateLimitKind::Requests, &ann(), 1).await
    else {
        panic!("passed")
    };
    // Never later than told. That it is not earlier, the wait itself shows: it was refused.
    tokio::time::sleep(wait).await;
    assert!(limiter.take(RateLimitKind::Requests, &ann(), 1).await.unwrap().is_some());
}

#[tokio::test]
async fn without_redis_everything_passes_and_limits_hold_again_after_it() {
    let mut redis = Redis::start().unwrap();
    let limiter = limiter(&redis, Rate::per_second(0.001, 1));
    assert!(limiter.take(RateLimitKind::Requests, &ann(), 1).await.unwrap().is_some());
    assert!(limiter.take(RateLimitKind::Requests, &ann(), 1).await.is_err());
    redis.kill().unwrap();
    for _ in 0..20 {
        assert_eq!(limiter.take(RateLimitKind::Requests, &ann(), 1).await, Ok(None));
    }
    redis.restart().unwrap();
    // The limiter finds it by itself; how soon is its own affair.
    tokio::time::timeout(Duration::from_secs(60), async {
        while limiter.take(RateLimitKind::Requests, &ann(), 1).await == Ok(None) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_limiter_can_be_made_while_redis_is_away_and_a_bad_url_cannot() {
    let mut redis = Redis::start().unwrap();
    redis.kill().unwrap();
    let limiter = limiter(&redis, Rate::per_second(1.0, 1));
    assert_eq!(limiter.take(RateLimitKind::Requests, &ann(), 1).await, Ok(None));
    let refused =
        Limiter::in_redis(Rates::default(), &RedisAddress::new("nonsense:secret".to_owned())).err().unwrap();
    assert!(refused.contains("is not a Redis URL") && !refused.contains("secret"), "{refused}");
}

/// Takes a bucket of two units until it is empty. A limiter passes everything until it has connected.
async fn exhaust(limiter: &Limiter) {
    let exhausted = async {
        let mut passed = 0;
        loop {
            match limiter.take(RateLimitKind::Requests, &ann(), 1).await {
                Ok(Some(_)) => passed += 1,
                Ok(None) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(_) => return passed,
            }
        }
    };
    let passed = tokio::time::timeout(Duration::from_secs(60), exhausted).await.unwrap();
    assert_eq!(passed, 2);
}

async fn is_refused(limiter: &Limiter) -> bool {
    let refused = async {
        loop {
            match limiter.take(RateLimitKind::Requests, &ann(), 1).await {
                Ok(None) => tokio::time::sleep(Duration::from_millis(20)).await,
                result => return result.is_err(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), refused).await.unwrap()
}

#[tokio::test]
async fn limits_hold_in_a_cluster() {
    let cluster = Cluster::start().await.unwrap();
    let rate = Rate::per_second(0.001, 2);
    let list = RedisAddress::new(cluster.url());
    exhaust(&limiter_at(&list, rate)).await;
    for node in &cluster.nodes {
        assert!(is_refused(&limiter(node, rate)).await, "any node leads to the same bucket");
    }
    assert_eq!(cluster.sizes().await.iter().sum::<u64>(), 1);
}

#[tokio::test]
async fn limits_hold_behind_sentinels_after_the_master_has_failed() {
    let mut redis = Sentinel::start().await.unwrap();
    let rate = Rate::per_second(0.001, 2);
    let limiter = limiter_at(&RedisAddress::new(redis.url()), rate);
    exhaust(&limiter).await;
    redis.kill_replicated_master().await.unwrap();
    assert!(is_refused(&limiter).await);
    assert!(redis.replica.ask::<String>(&["INFO", "replication"]).await.contains("role:master"));
}

#[tokio::test]
async fn limits_use_tls_with_the_given_certificates() {
    let redis = TlsRedis::start().unwrap();
    let ca = std::fs::read(redis.ca_file()).unwrap();
    let rate = Rate::per_second(0.001, 2);
    let address = RedisAddress { ca: Some(ca), ..RedisAddress::new(redis.url()) };
    let limiter = limiter_at(&address, rate);
    exhaust(&limiter).await;
    let untrusting = limiter_at(&RedisAddress { ca: None, ..address }, rate);
    for _ in 0..3 {
        assert_eq!(untrusting.take(RateLimitKind::Requests, &ann(), 1).await, Ok(None));
    }
}

#[tokio::test]
async fn installations_with_different_prefixes_share_no_bucket() {
    let redis = Redis::start().unwrap();
    let rate = Rate::per_second(0.001, 2);
    let default = RedisAddress::new(redis.url());
    let other = RedisAddress { prefix: KeyPrefix::new("other"), ..default.clone() };
    exhaust(&limiter_at(&default, rate)).await;
    exhaust(&limiter_at(&other, rate)).await;
    assert!(is_refused(&limiter_at(&other, rate)).await);
    let mut keys: Vec<String> = redis.ask(&["KEYS", "*"]).await;
    keys.sort();
    assert_eq!(keys, ["{embeddings}:limit:requests:user:ann", "{other}:limit:requests:user:ann"]);
}
