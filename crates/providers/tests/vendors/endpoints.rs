//! Keys, URLs, headers and proxies: which secrets are sent where, and that they are never shown.

use std::sync::Arc;

use embeddery_core::{ErrorKind, Fault, ModelRef, Provider as _, ProviderKind, RateWindow, Retry};
use embeddery_providers::{BaseUrl, Endpoint, HttpClient, ModelSettings, Outbound, Vendor};
use embeddery_test_support::vendors::{Behaviour, VendorApi, Vendors};

use crate::support::{KEY, RecordedLimits, adapter, config, embed, endpoint, open, with_settings};

#[tokio::test]
async fn without_a_key_the_variable_is_named() {
    let vendors = Vendors::start().await;
    for kind in [
        ProviderKind::OpenAi,
        ProviderKind::Cohere,
        ProviderKind::Google,
        ProviderKind::Mistral,
        ProviderKind::Voyage,
    ] {
        let endpoint = Endpoint {
            url: Some(BaseUrl::parse(&vendors.base_url(VendorApi::OpenAi)).unwrap()),
            key_setting: format!("{kind}_API_KEY").to_uppercase(),
            ..Endpoint::default()
        };
        let vendor = Vendor::new(config(kind, endpoint)).unwrap();
        assert!(!vendor.is_usable());
        let embedder = vendor.open(&ModelRef::new("m")).await.unwrap();
        let error = embed(&embedder, &["a"]).await.unwrap_err();
        assert_eq!((error.kind, error.fault, error.retry), (ErrorKind::Unavailable, Fault::Us, Retry::Never));
        assert!(error.message.contains(&format!("{kind}_API_KEY").to_uppercase()), "{error}");
        assert_eq!(embedder.warm_up().await.unwrap_err(), error);
    }
    assert!(vendors.requests().is_empty());
}

#[tokio::test]
async fn one_revoked_key_of_several_fails_no_request() {
    let vendors = Vendors::start().await;
    vendors.accept_only(&["good-1", "good-2"]);
    let keys = ["good-1", "revoked", "good-2"];
    let embedder = open(
        config(ProviderKind::OpenAi, endpoint(&vendors, VendorApi::OpenAi, &keys)),
        "text-embedding-3-small",
    )
    .await;
    for _ in 0..9 {
        embed(&embedder, &["a"]).await.unwrap();
    }
    let used = |key: &str| {
        let value = format!("Bearer {key}");
        vendors
            .requests()
            .iter()
            .filter(|request| request.headers.get("authorization") == Some(&value))
            .count()
    };
    assert_eq!(used("revoked"), 1, "a refused key is in cooldown");
    assert!(used("good-1") >= 3 && used("good-2") >= 3, "keys are used in turn");
    vendors.accept_only(&[]);
    let error = embed(&embedder, &["a"]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::UpstreamAuth);
    assert!(error.message.contains("TEST_API_KEY"));
}

#[tokio::test]
async fn a_models_own_url_does_not_get_the_vendors_key() {
    let (vendors, elsewhere) = (Vendors::start().await, Vendors::start().await);
    let mut shared_endpoint = endpoint(&vendors, VendorApi::OpenAi, &[KEY]);
    shared_endpoint.headers = vec![("X-Vendor".into(), KEY.into())];
    let own = Endpoint {
        url: Some(BaseUrl::parse(&elsewhere.base_url(VendorApi::OpenAi)).unwrap()),
        key_setting: "models.x.api_key".into(),
        ..Endpoint::default()
    };
    let shared = || config(ProviderKind::OpenAi, shared_endpoint.clone());
    let settings = ModelSettings { endpoint: own.clone(), ..ModelSettings::default() };
    let error = embed(&open(with_settings(shared(), "m", settings), "m").await, &["a"]).await.unwrap_err();
    assert!(error.message.contains("models.x.api_key"), "{error}");
    assert!(elsewhere.requests().is_empty());

    let with_key = Endpoint {
        keys: vec!["own-key".into()],
        headers: vec![("OpenAI-Project".into(), "p".into())],
        ..own
    };
    let settings = ModelSettings { endpoint: with_key, ..ModelSettings::default() };
    embed(&open(with_settings(shared(), "m", settings), "m").await, &["a"]).await.unwrap();
    let request = &elsewhere.requests()[0];
    assert_eq!(request.headers["authorization"], "Bearer own-key");
    assert_eq!(request.headers["openai-project"], "p");
    assert!(!request.headers.contains_key("x-vendor"));
    assert!(vendors.requests().is_empty());

    // At the vendor's URL the request has the vendor's key and the headers of both.
    let endpoint = Endpoint { headers: vec![("OpenAI-Project".into(), "p".into())], ..Endpoint::default() };
    let settings = ModelSettings { endpoint, ..ModelSettings::default() };
    embed(&open(with_settings(shared(), "m", settings), "m").await, &["a"]).await.unwrap();
    let request = &vendors.requests()[0].headers;
    assert_eq!((request["x-vendor"].as_str(), request["openai-project"].as_str()), (KEY, "p"));
    assert_eq!(request["authorization"], format!("Bearer {KEY}"));
}

#[tokio::test]
async fn a_configured_header_replaces_the_key() {
    let vendors = Vendors::start().await;
    let mut endpoint = endpoint(&vendors, VendorApi::OpenAi, &[]);
    endpoint.headers = vec![("authorization".into(), "Bearer of-a-company-gateway".into())];
    for keys in [vec![], vec![KEY.into()]] {
        let endpoint = Endpoint { keys, ..endpoint.clone() };
        embed(&open(config(ProviderKind::OpenAi, endpoint), "m").await, &["a"]).await.unwrap();
    }
    for request in vendors.requests() {
        assert_eq!(request.headers["authorization"], "Bearer of-a-company-gateway");
    }
}

#[tokio::test]
async fn a_model_name_cannot_inject_headers_or_paths() {
    let vendors = Vendors::start().await;
    let vendor =
        Vendor::new(config(ProviderKind::Google, endpoint(&vendors, VendorApi::Google, &[KEY]))).unwrap();
    for name in ["m\r\nX-Evil: 1", "m\n", "a b", "..", ".", ""] {
        let error = vendor.open(&ModelRef::new(name)).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::ModelNotFound, "{name:?}");
        assert!(!error.message.contains(['\r', '\n']));
    }
    let opened = vendor.open(&ModelRef::new("../../x?key=1#")).await.unwrap();
    embed(&opened, &["a"]).await.unwrap();
    let request = &vendors.requests()[0];
    assert_eq!(request.path, "/google/v1beta/models/..%2F..%2Fx%3Fkey=1%23:batchEmbedContents");
    assert!(!request.headers.contains_key("x-evil"));
}

#[tokio::test]
async fn errors_and_debug_output_have_no_keys() {
    let vendors = Vendors::start().await;
    let endpoint = endpoint(&vendors, VendorApi::OpenAi, &[KEY]);
    assert!(!format!("{endpoint:?}").contains(KEY));
    let settings = ModelSettings { endpoint, ..ModelSettings::default() };
    assert!(!format!("{settings:?}").contains(KEY));
    let outbound = Outbound { proxy: Some(format!("http://u:{KEY}@x").into()), ..Outbound::default() };
    assert!(!format!("{outbound:?}").contains(KEY));
    vendors.next(Behaviour::Unauthorized);
    let error = embed(&adapter(&vendors, VendorApi::OpenAi, "m").await, &["a"]).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains(KEY));
}

#[tokio::test]
async fn rate_limit_headers_reach_the_listener() {
    let vendors = Vendors::start().await;
    vendors.set_response_headers(&[
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "59"),
        ("x-ratelimit-reset-requests", "1s"),
        ("x-ratelimit-remaining-tokens", "149984"),
    ]);
    let recorded = Arc::new(RecordedLimits::default());
    let mut config = config(ProviderKind::OpenAi, endpoint(&vendors, VendorApi::OpenAi, &[KEY]));
    config.listener = Some(recorded.clone());
    let embedder = open(config, "m").await;
    embed(&embedder, &["a"]).await.unwrap();
    vendors.next(Behaviour::RateLimited(1));
    embed(&embedder, &["a"]).await.unwrap_err();
    let recorded = recorded.0.lock().unwrap();
    assert_eq!(recorded.len(), 2, "an error response is recorded, too");
    assert_eq!(recorded[0].0, embedder.server());
    assert_eq!(recorded[0].0.address.as_deref(), Some(&*vendors.url()));
    assert_eq!(recorded[0].1.requests.remaining, Some(59));
    assert_eq!(recorded[0].1.tokens, RateWindow { remaining: Some(149_984), ..RateWindow::default() });
}

#[tokio::test]
async fn a_rate_limited_key_does_not_delay_the_other_keys() {
    let vendors = Vendors::start().await;
    let recorded = Arc::new(RecordedLimits::default());
    let keys = ["key-1", "key-2"];
    let mut config = config(ProviderKind::OpenAi, endpoint(&vendors, VendorApi::OpenAi, &keys));
    config.listener = Some(recorded.clone());
    let embedder = open(config, "m").await;
    vendors.set_response_headers(&[
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "90s"),
    ]);
    vendors.next(Behaviour::RateLimited(100));
    embed(&embedder, &["a"]).await.unwrap();
    vendors.set_response_headers(&[]);
    let used: Vec<String> =
        vendors.requests().iter().map(|request| request.headers["authorization"].clone()).collect();
    assert_eq!(used, ["Bearer key-1", "Bearer key-2"]);
    assert!(recorded.0.lock().unwrap().is_empty(), "the limits of one key do not hold for all");
    // Both keys are over their limits now: a request tries one of them only, and the shorter delay counts.
    vendors.clear_requests();
    vendors.next(Behaviour::RateLimited(100));
    let error = embed(&embedder, &["a"]).await.unwrap_err();
    assert_eq!(vendors.requests().len(), 1);
    let Retry::After(wait) = error.retry else { panic!("{error:?}") };
    let remaining_of_the_first_key = wait < std::time::Duration::from_secs(100);
    assert_eq!((error.kind, remaining_of_the_first_key), (ErrorKind::RateLimited, true), "{wait:?}");
}

#[tokio::test]
async fn an_exhausted_quota_of_one_key_does_not_hide_the_delay_of_another() {
    let exhausted = Behaviour::QuotaExhausted;
    for script in [[Behaviour::RateLimited(5), exhausted.clone()], [exhausted, Behaviour::RateLimited(5)]] {
        let vendors = Vendors::start().await;
        let config = config(ProviderKind::OpenAi, endpoint(&vendors, VendorApi::OpenAi, &["key-1", "key-2"]));
        let embedder = open(config, "m").await;
        for behaviour in &script {
            vendors.next(behaviour.clone());
        }
        for sent in [2, 1] {
            // The second request tries the limited key only.
            let error = embed(&embedder, &["a"]).await.unwrap_err();
            let Retry::After(wait) = error.retry else { panic!("{script:?}: {error:?}") };
            assert!(wait <= std::time::Duration::from_secs(5), "{script:?} {wait:?}");
            assert!(error.message.contains("limits the rate"), "{error:?}");
            assert_eq!(vendors.requests().len(), sent, "{script:?}");
            vendors.clear_requests();
            vendors.next(Behaviour::RateLimited(4));
        }
    }
    // With no other key the quota is the reason.
    let vendors = Vendors::start().await;
    let config = config(ProviderKind::OpenAi, endpoint(&vendors, VendorApi::OpenAi, &["key-1", "key-2"]));
    vendors.next(Behaviour::QuotaExhausted);
    vendors.next(Behaviour::QuotaExhausted);
    assert_eq!(embed(&open(config, "m").await, &["a"]).await.unwrap_err().retry, Retry::Never);
}

#[tokio::test]
async fn a_proxy_gets_all_requests_except_to_no_proxy() {
    // A mock vendor serves as the proxy. It receives the requests for all hosts.
    let (vendors, proxy) = (Vendors::start().await, Vendors::start().await);
    let through = |no_proxy: &str| {
        let outbound =
            Outbound { proxy: Some(proxy.url().into()), no_proxy: no_proxy.to_owned(), certificates: None };
        Arc::new(HttpClient::new(&outbound).unwrap())
    };
    let mut shared = endpoint(&vendors, VendorApi::OpenAi, &[KEY]);
    shared.url = Some(BaseUrl::parse("http://vendor.invalid/openai/v1").unwrap());
    let mut proxied = config(ProviderKind::OpenAi, shared);
    proxied.client = through("");
    embed(&open(proxied, "m").await, &["a"]).await.unwrap();
    assert_eq!(proxy.texts(), ["a"]);
    let mut direct = config(ProviderKind::OpenAi, endpoint(&vendors, VendorApi::OpenAi, &[KEY]));
    direct.client = through("127.0.0.1,localhost");
    embed(&open(direct, "m").await, &["b"]).await.unwrap();
    assert_eq!((proxy.texts(), vendors.texts()), (vec!["a".to_owned()], vec!["b".to_owned()]));
}

#[test]
fn invalid_settings_are_refused_at_the_start() {
    let refused = |endpoint: Endpoint| Vendor::new(config(ProviderKind::Cohere, endpoint)).err().unwrap();
    let endpoint = Endpoint { key_setting: "COHERE_API_KEY".into(), ..Endpoint::default() };
    let broken_key = Endpoint { keys: vec![format!("{KEY}\nx").into()], ..endpoint.clone() };
    assert!(refused(broken_key.clone()).starts_with("COHERE_API_KEY: "));
    assert!(!refused(broken_key).contains(KEY));
    assert!(
        refused(Endpoint { headers: vec![("a b".into(), "x".into())], ..endpoint.clone() }).contains("'a b'")
    );
    assert!(
        refused(Endpoint { headers: vec![("a".into(), "x\ny".into())], ..endpoint.clone() }).contains("'a'")
    );
    let length = Endpoint { headers: vec![("Content-Length".into(), "1".into())], ..endpoint.clone() };
    assert!(refused(length).contains("cannot be set"));
    assert!(refused(Endpoint { dialect: Some("ollama".parse().unwrap()), ..endpoint }).contains("ollama"));
    assert!(
        HttpClient::new(&Outbound { certificates: Some(b"no pem".to_vec()), ..Outbound::default() }).is_err()
    );
    assert!(
        HttpClient::new(&Outbound { proxy: Some("::".to_owned().into()), ..Outbound::default() }).is_err()
    );
}
