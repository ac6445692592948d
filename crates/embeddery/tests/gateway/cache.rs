//! A text is billed once: within a request, for concurrent requests, until its cache entry expires, and across a restart.

use embeddery_test_support::{redis::Redis, vendors::Vendors};
use serde_json::json;

use crate::{
    gateway::{ApiResponse, Gateway, MODEL},
    support::KEY,
};

#[tokio::test]
async fn a_repeated_text_in_a_request_is_billed_once() {
    let gateway = Gateway::start().await;
    let texts = ["again", "other", "again", "again"];
    let response = gateway.embed(&json!({"input": texts, "model": MODEL})).await;
    response.assert_vectors_of(&texts);
    assert_eq!(gateway.billed(), ["again", "other"]);
    let usage = |response: &ApiResponse| response.json["usage"]["prompt_tokens"].as_u64().unwrap();
    let cached = gateway.embed(&json!({"input": texts, "model": MODEL})).await;
    cached.assert_vectors_of(&texts);
    assert!(gateway.billed().is_empty());
    assert_eq!(cached.header("x-embeddings-cache"), "hits=4,misses=0");
    assert_eq!(usage(&cached), usage(&response), "usage counts cached texts, too");
    let some = gateway.embed(&json!({"input": ["again", "new"], "model": MODEL})).await;
    some.assert_vectors_of(&["again", "new"]);
    assert_eq!(
        (some.header("x-embeddings-cache"), gateway.billed()),
        ("hits=1,misses=1", vec!["new".to_owned()])
    );
    let hits = r#"embedding_cache_hits_total{provider="openai",model="text-embedding-3-small"}"#;
    assert_eq!(
        (gateway.metric(hits).await, gateway.metric("embedding_cache_size").await),
        (Some(5.0), Some(3.0))
    );
}

#[tokio::test]
async fn concurrent_identical_requests_are_billed_once_also_if_the_first_caller_disconnects() {
    let gateway = Gateway::start().await;
    let held = gateway.vendors.hold();
    let body = json!({"input": "all at once", "model": MODEL});
    let send = || {
        let request = gateway.request(reqwest::Method::POST, "/v1/embeddings").json(&body);
        tokio::spawn(ApiResponse::of(request))
    };
    let leader = send();
    held.arrived(1).await;
    let followers: Vec<_> = (0..50).map(|_| send()).collect();
    // They share the computation when the gauge counts them.
    while gateway.metric("active_embedding_requests").await != Some(51.0) {
        tokio::task::yield_now().await;
    }
    leader.abort();
    while gateway.metric("active_embedding_requests").await != Some(50.0) {
        tokio::task::yield_now().await;
    }
    held.release();
    for follower in followers {
        follower.await.unwrap().assert_vectors_of(&["all at once"]);
    }
    assert_eq!(gateway.billed(), ["all at once"]);
}

#[tokio::test]
async fn each_parameter_that_changes_the_vector_has_its_own_cache_entry() {
    let gateway = Gateway::start().await;
    for body in [
        json!({"input": "x", "model": "embed-v4.0"}),
        json!({"input": "x", "model": "embed-v4.0", "input_type": "query"}),
        json!({"input": "x", "model": "embed-v4.0", "dimensions": 256}),
        json!({"input": "x", "model": "embed-v4.0", "normalize": false}),
        json!({"input": "x", "model": "text-embedding-3-large"}),
    ] {
        assert_eq!(gateway.embed(&body).await.status, 200);
        assert_eq!(gateway.billed(), ["x"], "{body}");
        let again = gateway.embed(&body).await;
        assert_eq!(
            (again.header("x-embeddings-cache"), gateway.billed().len()),
            ("hits=1,misses=0", 0),
            "{body}"
        );
        assert!(!again.header("x-embeddings-variant").is_empty());
    }
}

#[tokio::test]
async fn the_cache_can_be_cleared_and_switched_off() {
    let gateway = Gateway::start().await;
    let body = json!({"input": ["a", "b"], "model": MODEL});
    gateway.embed(&body).await;
    let cleared = ApiResponse::of(gateway.request(reqwest::Method::DELETE, "/api/v1/embeddings/cache")).await;
    assert_eq!(cleared.json["entries_removed"], 2);
    gateway.embed(&body).await;
    assert_eq!(gateway.billed().len(), 4);

    let off = Gateway::with("", &[("EMBEDDINGS_CACHE_MAX_SIZE", "0")]).await;
    for _ in 0..2 {
        assert_eq!(off.embed(&body).await.header("x-embeddings-cache"), "");
    }
    assert_eq!(off.billed().len(), 4);
}

#[tokio::test]
async fn a_persistent_cache_in_sqlite_outlives_the_process() {
    let state = tempfile::tempdir().unwrap();
    let variables = [("EMBEDDINGS_STATE_DIR", state.path().to_str().unwrap())];
    let file = "cache: {second_level: sqlite}\n";
    let gateway = Gateway::with(file, &variables).await;
    let body = json!({"input": ["kept", "kept too"], "model": MODEL});
    gateway.embed(&body).await;
    // Entries are written in the background, so the test waits for the rows.
    let written = || {
        let file = rusqlite::Connection::open(state.path().join("cache.sqlite")).unwrap();
        file.query_row("SELECT count(*) FROM vectors", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    while written() < 2 {
        tokio::task::yield_now().await;
    }
    drop(gateway.server);
    let gateway = Gateway::for_vendors(gateway.vendors, file, &variables);
    gateway.billed();
    let response = gateway.embed(&body).await;
    response.assert_vectors_of(&["kept", "kept too"]);
    assert_eq!((response.header("x-embeddings-cache"), gateway.billed().len()), ("hits=2,misses=0", 0));
    let cleared = ApiResponse::of(gateway.request(reqwest::Method::DELETE, "/api/v1/embeddings/cache")).await;
    assert_eq!((&cleared.json["entries_removed"], written()), (&json!(2), 0));
}

#[tokio::test]
async fn a_persistent_cache_in_redis_is_shared_and_may_be_unavailable() {
    let mut redis = Redis::start().unwrap();
    let url = redis.url();
    let variables = [("REDIS_URL", url.as_str())];
    let file = "cache: {second_level: redis}\n";
    let first = Gateway::with(file, &variables).await;
    let body = json!({"input": "shared", "model": MODEL});
    first.embed(&body).await.assert_vectors_of(&["shared"]);
    while redis.ask::<usize>(&["DBSIZE"]).await == 0 {
        tokio::task::yield_now().await;
    }
    let second = Gateway::for_vendors(Vendors::start().await, file, &variables);
    let response = second.embed(&body).await;
    response.assert_vectors_of(&["shared"]);
    assert_eq!((response.header("x-embeddings-cache"), second.billed().len()), ("hits=1,misses=0", 0));
    redis.kill().unwrap();
    let response = second.embed(&json!({"input": "without redis", "model": MODEL})).await;
    response.assert_vectors_of(&["without redis"]);
    let refused = ApiResponse::of(second.request(reqwest::Method::DELETE, "/api/v1/embeddings/cache")).await;
    assert_eq!(refused.status, 503, "{}", refused.json);
    // The server starts without Redis.
    let third = Gateway::for_vendors(Vendors::start().await, file, &variables);
    third.embed(&body).await.assert_vectors_of(&["shared"]);
    assert!(!third.server.log().contains(KEY));
}
