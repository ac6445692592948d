//! The persistent cache in a real Redis of every topology.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use embeddery_database::redis::{KeyPrefix, RedisAddress};
use embeddery_gateway::{Key, PersistentCache as _, RedisCache};
use embeddery_test_support::redis::{Cluster, Redis, Sentinel, TlsRedis};

const HOUR: Duration = Duration::from_secs(3600);

fn cache(address: &RedisAddress) -> RedisCache {
    RedisCache::new(address).unwrap()
}

/// More keys than one step of the clearing looks at.
fn entries() -> Vec<(Key, Vec<u8>)> {
    (0..2500_u16).map(|number| (key(number), number.to_le_bytes().to_vec())).collect()
}

/// Bytes of all kinds, among them braces.
fn key(number: u16) -> Key {
    let mut key = [b'}'; 32];
    key[..2].copy_from_slice(&number.to_le_bytes());
    key
}

/// Writes, reads and clears through this address.
async fn check(address: &RedisAddress) {
    let cache = cache(address);
    cache.put(entries(), HOUR).await.unwrap();
    let found = cache.get(&[key(7), [0; 32], key(8)]).await.unwrap();
    assert_eq!(found, [Some(vec![7, 0]), None, Some(vec![8, 0])]);
    assert_eq!(cache.clear().await.unwrap(), 2500);
    assert_eq!(cache.get(&[key(7)]).await.unwrap(), [None]);
}

#[tokio::test]
async fn it_works_in_a_cluster() {
    let cluster = Cluster::start().await.unwrap();
    check(&RedisAddress::new(cluster.url())).await;
    for node in &cluster.nodes {
        check(&RedisAddress::new(node.url())).await;
    }
    assert_eq!(cluster.sizes().await, [0, 0, 0]);
}

#[tokio::test]
async fn it_works_behind_sentinels_after_the_master_has_failed() {
    let mut redis = Sentinel::start().await.unwrap();
    let address = RedisAddress::new(redis.url());
    check(&address).await;
    let cache = cache(&address);
    cache.put(entries(), HOUR).await.unwrap();
    redis.kill_replicated_master().await.unwrap();
    let found = async {
        loop {
            match cache.get(&[key(9)]).await {
                Ok(found) => return found,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), found).await.unwrap(), [Some(vec![9, 0])]);
}

#[tokio::test]
async fn it_uses_tls_with_the_given_certificates() {
    let redis = TlsRedis::start().unwrap();
    let address = RedisAddress::new(redis.url());
    let ca = std::fs::read(redis.ca_file()).unwrap();
    check(&RedisAddress { ca: Some(ca), ..address.clone() }).await;
    let error = cache(&address).get(&[key(1)]).await.unwrap_err().to_string();
    assert!(error.contains("certificate") && !error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn installations_with_different_prefixes_share_no_entry() {
    let redis = Redis::start().unwrap();
    let default = RedisAddress::new(redis.url());
    // The first is a pattern that matches the second, too.
    let pattern = RedisAddress { prefix: KeyPrefix::new("a*"), ..default.clone() };
    let matched = RedisAddress { prefix: KeyPrefix::new("ab"), ..default.clone() };
    let caches = [cache(&default), cache(&pattern), cache(&matched)];
    for (number, cache) in (0_u8..).zip(&caches) {
        cache.put(vec![(key(1), vec![number])], HOUR).await.unwrap();
    }
    for (number, cache) in (0_u8..).zip(&caches) {
        assert_eq!(cache.get(&[key(1)]).await.unwrap(), [Some(vec![number])]);
    }
    assert_eq!(caches[1].clear().await.unwrap(), 1);
    assert_eq!(caches[2].get(&[key(1)]).await.unwrap(), [Some(vec![2])]);
    let names: Vec<Vec<u8>> = redis.ask(&["KEYS", "{embeddings}*"]).await;
    assert_eq!(names, [[b"{embeddings}:cache:v1:".as_slice(), &key(1)].concat()], "the name is a contract");
}
