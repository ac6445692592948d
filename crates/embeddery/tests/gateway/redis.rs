//! Rate limits and the persistent cache in the queue's Redis, for every topology and with several prefixes.

use std::time::Duration;

use embeddery_test_support::redis::{Cluster, Redis, Sentinel, TlsRedis};
use serde_json::json;

use crate::gateway::{Gateway, MODEL};

const FILE: &str = "cache: {second_level: redis}\nlimits: {requests_per_second: 0.001, burst: 40}\n";

async fn gateway(url: &str, file: &str) -> Gateway {
    let variables = [("REDIS_URL", url), ("EMBEDDINGS_RATE_LIMIT", "on")];
    Gateway::with(&format!("{FILE}{file}"), &variables).await
}

/// Sends texts to one gateway and then to another one, until the second finds one in the cache. An entry is written in
/// the background.
async fn shares_cache(first: &Gateway, second: &Gateway) -> bool {
    for number in 0..8 {
        let body = json!({"input": format!("text {number} of {}", first.server.url), "model": MODEL});
        assert_eq!(first.embed(&body).await.status, 200);
        tokio::time::sleep(Duration::from_millis(50) * number).await;
        let response = second.embed(&body).await;
        assert_eq!(response.status, 200);
        if response.header("x-embeddings-cache") == "hits=1,misses=0" {
            return true;
        }
    }
    false
}

/// Sends requests until one is refused. Everything passes until the limiter has connected.
async fn exhaust(gateway: &Gateway) {
    let body = json!({"input": "again and again", "model": MODEL});
    let refused = async { while gateway.embed(&body).await.status != 429 {} };
    tokio::time::timeout(Duration::from_secs(60), refused).await.unwrap();
}

/// Two processes with this Redis share the cache and the rate limits.
async fn check(url: &str, file: &str) {
    let (first, second) = (gateway(url, file).await, gateway(url, file).await);
    assert!(shares_cache(&first, &second).await);
    exhaust(&first).await;
    exhaust(&second).await;
    let remaining = second.embed(&json!({"input": "one more", "model": MODEL})).await;
    assert_eq!((remaining.status.as_u16(), remaining.header("x-ratelimit-remaining")), (429, "0"));
}

#[tokio::test]
async fn limits_and_cache_work_in_a_cluster() {
    let cluster = Cluster::start().await.unwrap();
    check(&cluster.url(), "").await;
    assert_eq!(cluster.sizes().await.iter().filter(|size| **size > 0).count(), 1, "one slot");
}

#[tokio::test]
async fn limits_and_cache_work_behind_sentinels() {
    let redis = Sentinel::start().await.unwrap();
    check(&redis.url(), "").await;
    let keys: Vec<String> = redis.master.ask(&["KEYS", "{embeddings}:limit:*"]).await;
    assert_eq!(keys, ["{embeddings}:limit:requests:user:1"]);
}

#[tokio::test]
async fn limits_and_cache_use_tls_with_the_queues_ca_file() {
    let redis = TlsRedis::start().unwrap();
    check(&redis.url(), &format!("queue: {{ca_file: '{}'}}\n", redis.ca_file().display())).await;
}

#[tokio::test]
async fn installations_with_different_prefixes_share_neither_bucket_nor_cache() {
    let redis = Redis::start().unwrap();
    let first = gateway(&redis.url(), "").await;
    let other = gateway(&redis.url(), "queue: {prefix: other}\n").await;
    assert!(!shares_cache(&first, &other).await);
    exhaust(&first).await;
    let body = json!({"input": "still allowed", "model": MODEL});
    let response = other.embed(&body).await;
    assert_eq!(response.status, 200);
    let mut buckets: Vec<String> = redis.ask(&["KEYS", "*:limit:requests:*"]).await;
    buckets.sort();
    assert_eq!(buckets, ["{embeddings}:limit:requests:user:1", "{other}:limit:requests:user:1"]);
}
