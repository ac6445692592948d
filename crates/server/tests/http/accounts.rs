//! Rate limits, quotas and usage, as callers see them.

use embeddery_accounts::{
    Limiter,
    ledger::Quotas,
    limit::{Rate, Rates},
};
use reqwest::{Method, header::ACCEPT};
use serde_json::{Value, json};

use crate::support::{
    Answer, KEY, Server,
    accounts::{self, token},
};

/// A server with several users.
async fn multi_user_server(change: impl FnOnce(&mut embeddery_accounts::AccountsConfig)) -> Server {
    Server::with_accounts(|_, config| {
        config.auth = accounts::tokens();
        change(config);
    })
    .await
}

async fn get(server: &Server, user: &str, path: &str) -> Answer {
    let role = if user == "root" { "admin" } else { "user" };
    Answer::of(server.bare(Method::GET, path).bearer_auth(token(user, role))).await
}

async fn embed(server: &Server, user: &str, body: &Value) -> Answer {
    let request = server.bare(Method::POST, "/v1/embeddings").bearer_auth(token(user, "user"));
    Answer::of(request.json(body)).await
}

fn number(answer: &Answer, header: &str) -> u64 {
    answer.header(header).parse().unwrap_or_else(|_| panic!("{header}: '{}'", answer.header(header)))
}

const USAGE: &str = "/api/v1/embeddings/usage";
const QUOTAS: &str = "/api/v1/embeddings/tenant/quotas";

#[tokio::test]
async fn each_user_has_a_burst_and_then_gets_429_with_retry_after() {
    let rate = Rate::per_second(0.1, 2);
    let server = multi_user_server(|config| {
        config.limiter = Limiter::in_memory(Rates { requests: rate, ..Rates::default() });
    })
    .await;
    for remaining in [1, 0] {
        let answer = embed(&server, "ann", &json!({"input": "a"})).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            (number(&answer, "x-ratelimit-limit"), number(&answer, "x-ratelimit-remaining")),
            (2, remaining)
        );
        assert_eq!(number(&answer, "x-ratelimit-reset"), 10 * (2 - remaining));
    }
    let refused = embed(&server, "ann", &json!({"input": "a"})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (429, "rate_limit_exceeded"));
    assert_eq!(refused.json["error"]["type"], "rate_limit_error");
    assert_eq!((number(&refused, "retry-after"), number(&refused, "x-ratelimit-remaining")), (10, 0));
    assert!(refused.message().contains("0.1 per second, with bursts of 2"), "{}", refused.message());
    assert_eq!(embed(&server, "bob", &json!({"input": "a"})).await.status, 200);
    // Other requests are not limited, and show the current state.
    for _ in 0..5 {
        let quotas = get(&server, "ann", QUOTAS).await;
        assert_eq!(quotas.status, 200);
        assert_eq!((&quotas.json["limit_rps"], &quotas.json["remaining"]), (&json!(0.1), &json!(0)));
        assert_eq!(quotas.header("x-ratelimit-limit"), "");
    }
    assert_eq!(get(&server, "eve", QUOTAS).await.json["remaining"], 2);
}

#[tokio::test]
async fn a_request_that_fails_still_has_rate_limit_headers() {
    let rate = Rate::per_second(0.1, 5);
    let server = multi_user_server(|config| {
        config.limiter = Limiter::in_memory(Rates { requests: rate, ..Rates::default() });
    })
    .await;
    let answer = embed(&server, "ann", &json!({"input": ""})).await;
    assert_eq!((answer.status.as_u16(), number(&answer, "x-ratelimit-remaining")), (400, 4));
}

#[tokio::test]
async fn tokens_per_minute_are_limited_and_a_request_with_more_is_a_400() {
    let tokens = Rate::per_minute(60);
    let server =
        multi_user_server(|config| config.limiter = Limiter::in_memory(Rates { tokens, ..Rates::default() }))
            .await;
    let text = "w ".repeat(100); // about 52 tokens
    let answer = embed(&server, "ann", &json!({"input": text})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(number(&answer, "x-ratelimit-remaining-tokens"), 8);
    let refused = embed(&server, "ann", &json!({"input": text})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (429, "rate_limit_exceeded"));
    assert!((40..=44).contains(&number(&refused, "retry-after")), "44 tokens are missing, one a second");
    let never = embed(&server, "ann", &json!({"input": [text, text]})).await;
    assert_eq!((never.status.as_u16(), never.code()), (400, "too_many_tokens"));
    assert_eq!(never.header("retry-after"), "", "waiting does not help");
    assert_eq!(get(&server, "ann", QUOTAS).await.json["tokens_per_minute"]["limit"], 60);
}

#[tokio::test]
async fn tokens_per_day_are_reserved_settled_and_refunded() {
    let server = multi_user_server(|config| {
        config.ledger.quotas = Quotas { tokens_per_day: Some(20), ..Quotas::default() };
    })
    .await;
    // A text of twelve bytes is about five tokens. They are reserved while the model works.
    let body = json!({"input": "a b c d e f ", "model": "test/gated"});
    let request = server.bare(Method::POST, "/v1/embeddings").bearer_auth(token("ann", "user")).json(&body);
    let waiting = tokio::spawn(Answer::of(request));
    server.fake.has_begun(1).await;
    let day = get(&server, "ann", QUOTAS).await.json;
    assert_eq!(
        (&day["tokens_reserved"], &day["tokens_per_day"]),
        (&json!(5), &json!({"limit": 20, "used": 0, "remaining": 15}))
    );
    server.fake.gate.add_permits(1);
    assert_eq!(waiting.await.unwrap().status, 200);
    // The model has read eight tokens: six words and two special ones.
    let day = get(&server, "ann", QUOTAS).await.json;
    assert_eq!(
        (&day["tokens_reserved"], &day["tokens_per_day"]),
        (&json!(0), &json!({"limit": 20, "used": 8, "remaining": 12}))
    );
    // A failure costs nothing, and the reservation of a disconnected client is refunded.
    let failed = embed(&server, "ann", &json!({"input": "a b c d e f ", "model": "test/failing"})).await;
    assert_eq!(failed.status, 500);
    let request = server.bare(Method::POST, "/v1/embeddings").bearer_auth(token("ann", "user")).json(&body);
    let disconnected = tokio::spawn(Answer::of(request));
    server.fake.has_begun(2).await;
    disconnected.abort();
    server.fake.has_ended(2).await;
    let day = get(&server, "ann", QUOTAS).await.json;
    assert_eq!((&day["tokens_reserved"], &day["tokens_per_day"]["used"]), (&json!(0), &json!(8)));
    // A request beyond the quota is a 429 whose Retry-After is exact, however long.
    let refused = embed(&server, "ann", &json!({"input": "w ".repeat(30)})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (429, "quota_exceeded"));
    assert!(refused.message().contains("8 of 20 tokens per day are used"), "{}", refused.message());
    let seconds = 86_400 - jiff::Timestamp::now().as_second().rem_euclid(86_400);
    let wait = number(&refused, "retry-after") as i64;
    assert!(
        (seconds..=seconds + 60).contains(&wait) || wait < 60,
        "{wait} s, but midnight is in {seconds} s"
    );
    assert_eq!(embed(&server, "bob", &json!({"input": "w ".repeat(30)})).await.status, 200);
}

#[tokio::test]
async fn usage_shows_callers_their_own_and_admins_all_as_json_and_csv() {
    let server = multi_user_server(|_| ()).await;
    for _ in 0..2 {
        assert_eq!(embed(&server, "ann", &json!({"input": ["a b", "c"]})).await.status, 200);
    }
    assert_eq!(embed(&server, "=bob", &json!({"input": "d"})).await.status, 200);
    assert_eq!(embed(&server, "ann", &json!({"input": "d", "model": "test/failing"})).await.status, 500);

    let own = get(&server, "ann", USAGE).await.json;
    let [entry] = own["data"].as_array().unwrap().as_slice() else { panic!("{own}") };
    let mut expected = json!({
        "day": entry["day"], "user": "ann", "provider": "huggingface", "model": "test/plain",
        "requests": 2, "texts": 4, "cached_texts": 0, "tokens": 14, "billed_tokens": 14, "cost_usd": 0.000028,
    });
    assert_eq!(entry, &expected, "the failed request is not there");
    expected.as_object_mut().unwrap().retain(|name, _| own["total"].get(name).is_some());
    assert_eq!(own["total"], expected);

    let all = get(&server, "root", USAGE).await.json;
    let users: Vec<&str> =
        all["data"].as_array().unwrap().iter().map(|entry| entry["user"].as_str().unwrap()).collect();
    assert_eq!(users, ["=bob", "ann"]);
    assert_eq!(all["total"]["requests"], 3);
    let one = get(&server, "root", &format!("{USAGE}?user=ann")).await.json;
    assert_eq!(one["total"]["requests"], 2);
    assert_eq!(get(&server, "ann", &format!("{USAGE}?user=ann")).await.json["total"]["requests"], 2);
    let others = get(&server, "ann", &format!("{USAGE}?user=%3Dbob")).await;
    assert_eq!((others.status.as_u16(), others.code()), (403, "admin_required"));
    let none = get(&server, "root", &format!("{USAGE}?to=2020-01-01")).await.json;
    assert_eq!((&none["data"], &none["total"]["tokens"]), (&json!([]), &json!(0)));

    let csv = get(&server, "root", &format!("{USAGE}?format=csv")).await;
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    let lines: Vec<&str> = csv.text.lines().collect();
    assert_eq!(lines[0], "day,user,provider,model,requests,texts,cached_texts,tokens,billed_tokens,cost_usd");
    assert!(lines[1].contains(",\"'=bob\",huggingface,test/plain,1,1,0,3,3,0.000006"), "{}", lines[1]);
    let request =
        server.bare(Method::GET, USAGE).bearer_auth(token("ann", "user")).header(ACCEPT, "text/csv");
    assert_eq!(Answer::of(request).await.text.lines().count(), 2);
}

#[tokio::test]
async fn an_invalid_usage_query_is_named() {
    let server = Server::start().await;
    for (query, words) in [
        ("from=yesterday", "from: 'yesterday' is not a date"),
        ("to=2026-13-01", "to: '2026-13-01' is not a date"),
        ("format=xml", "write json or csv"),
        ("usr=1", "unknown field `usr`"),
        ("user=1&user=2", "duplicate field `user`"),
    ] {
        let answer = server.get(&format!("{USAGE}?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.message().contains(words), "{}", answer.message());
    }
}

#[tokio::test]
async fn a_single_user_sees_usage_without_limits() {
    let server = Server::start().await;
    server.post("/v1/embeddings", &json!({"input": "a"})).await;
    let quotas = server.get(QUOTAS).await.json;
    assert_eq!(
        (&quotas["user"], &quotas["limit_rps"], &quotas["remaining"]),
        (&json!("1"), &json!(0.0), &Value::Null)
    );
    assert_eq!(quotas["tokens_per_day"], json!({"limit": null, "used": 3, "remaining": null}));
    assert_eq!(quotas["concurrent_jobs"], json!({"limit": null, "used": 0, "remaining": null}));
    assert_eq!(server.get(USAGE).await.json["data"][0]["user"], "1");
    assert!(!server.get(USAGE).await.text.contains(KEY));
}

#[tokio::test]
async fn stored_vectors_are_counted_and_limited() {
    let server = multi_user_server(|config| {
        config.ledger.quotas = Quotas { stored_vectors: Some(3), ..Quotas::default() };
    })
    .await;
    let send = async |method: Method, path: &str, body: &Value| {
        let request = server.bare(method, &format!("/api/v1/embeddings/collections{path}"));
        Answer::of(request.bearer_auth(token("ann", "user")).json(body)).await
    };
    let stored = async || get(&server, "ann", QUOTAS).await.json["stored_vectors"]["used"].clone();
    let documents = |ids: &[&str]| {
        let documents: Vec<_> =
            ids.iter().map(|id| json!({"id": id, "text": format!("text {id}")})).collect();
        json!({ "documents": documents })
    };
    assert_eq!(send(Method::POST, "", &json!({"name": "notes"})).await.status, 201);
    assert_eq!(send(Method::POST, "/notes/documents", &documents(&["a", "b"])).await.status, 200);
    assert_eq!(stored().await, 2);
    // Unchanged documents need no quota. Two more exceed it, and neither is stored.
    assert_eq!(send(Method::POST, "/notes/documents", &documents(&["a", "b"])).await.status, 200);
    let refused = send(Method::POST, "/notes/documents", &documents(&["c", "d"])).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (429, "quota_exceeded"), "{}", refused.text);
    assert_eq!(stored().await, 2);
    assert_eq!(send(Method::DELETE, "/notes/documents/a", &json!({})).await.status.as_u16() / 100, 2);
    assert_eq!(stored().await, 1);
    assert_eq!(send(Method::POST, "/notes/documents", &documents(&["c", "d"])).await.status, 200);
    assert_eq!(send(Method::DELETE, "/notes", &json!({})).await.status.as_u16() / 100, 2);
    assert_eq!(stored().await, 0);
}
