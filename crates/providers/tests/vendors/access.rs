//! Keys, addresses, headers, proxies: who gets what, and what nobody gets to see.

use std::sync::Arc;

use embeddery_core::{ErrorKind, Fault, ModelRef, Provider as _, ProviderKind, RateWindow, Retry};
use embeddery_providers::{BaseUrl, Endpoint, HttpClient, ModelSettings, Outbound, Vendor};
use embeddery_test_support::vendors::{Behaviour, VendorApi, Vendors};

use crate::support::{Heard, KEY, access, adapter, config, embed, open, with_settings};

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
        let access = Endpoint {
            address: Some(BaseUrl::parse(&vendors.base_url(VendorApi::OpenAi)).unwrap()),
            key_setting: format!("{kind}_API_KEY").to_uppercase(),
            ..Endpoint::default()
        };
        let vendor = Vendor::new(config(kind, access)).unwrap();
        assert!(!vendor.usable());
        let embedder = vendor.open(&ModelRef::new("m")).await.unwrap();
        let error = embed(&embedder, &["a"]).await.unwrap_err();
        assert_eq!((error.kind, error.fault, error.retry), (ErrorKind::Unavailable, Fault::Us, Retry::Never));
        assert!(error.message.contains(&format!("{kind}_API_KEY").to_uppercase()), "{error}");
        assert_eq!(embedder.warm_up().await.unwrap_err(), error);
    }
    assert!(vendors.requests().is_empty());
}

#[tokio::test]
async fn one_revoked_key_of_several_harms_nobody() {
    let vendors = Vendors::start().await;
    vendors.accept_only(&["good-1", "good-2"]);
    let keys = ["good-1", "revoked", "good-2"];
    let embedder = open(
        config(ProviderKind::OpenAi, access(&vendors, VendorApi::OpenAi, &keys)),
        "text-embedding-3-small",
    )
    .await;
    for _ in 0..9 {
        embed(&embedder, &["a"]).await.unwrap();
    }
    let used = |key: &str| {
        let value = format!("Bearer {key}");
        vendors.requests().iter().filter(|seen| seen.headers.get("authorization") == Some(&value)).count()
    };
    assert_eq!(used("revoked"), 1, "a refused key rests");
    assert!(used("good-1") >= 3 && used("good-2") >= 3, "keys take turns");
    vendors.accept_only(&[]);
    let error = embed(&embedder, &["a"]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::UpstreamAuth);
    assert!(error.message.contains("TEST_API_KEY"));
}

#[tokio::test]
async fn a_models_own_address_does_not_get_the_vendors_key() {
    let (vendors, elsewhere) = (Vendors::start().await, Vendors::start().await);
    let mut vendors_headers = access(&vendors, VendorApi::OpenAi, &[KEY]);
    vendors_headers.headers = vec![("X-Vendor".into(), KEY.into())];
    let own = Endpoint {
        address: Some(BaseUrl::parse(&elsewhere.base_url(VendorApi::OpenAi)).unwrap()),
        key_setting: "models.x.api_key".into(),
        ..Endpoint::default()
    };
    let shared = || config(ProviderKind::OpenAi, vendors_headers.clone());
    let settings = ModelSettings { access: own.clone(), ..ModelSettings::default() };
    let error = embed(&open(with_settings(shared(), "m", settings), "m").await, &["a"]).await.unwrap_err();
    assert!(error.message.contains("models.x.api_key"), "{error}");
    assert!(elsewhere.requests().is_empty());

    let with_key = Endpoint {
        keys: vec!["own-key".into()],
        headers: vec![("OpenAI-Project".into(), "p".into())],
        ..own
    };
    let settings = ModelSettings { access: with_key, ..ModelSettings::default() };
    embed(&open(with_settings(shared(), "m", settings), "m").await, &["a"]).await.unwrap();
    let seen = &elsewhere.requests()[0];
    assert_eq!(seen.headers["authorization"], "Bearer own-key");
    assert_eq!(seen.headers["openai-project"], "p");
    assert!(!seen.headers.contains_key("x-vendor"));
    assert!(vendors.requests().is_empty());

    // At the vendor's address it gets both, and its own header beside the vendor's.
    let access = Endpoint { headers: vec![("OpenAI-Project".into(), "p".into())], ..Endpoint::default() };
    let settings = ModelSettings { access, ..ModelSettings::default() };
    embed(&open(with_settings(shared(), "m", settings), "m").await, &["a"]).await.unwrap();
    let seen = &vendors.requests()[0].headers;
    assert_eq!((seen["x-vendor"].as_str(), seen["openai-project"].as_str()), (KEY, "p"));
    assert_eq!(seen["authorization"], format!("Bearer {KEY}"));
}

#[tokio::test]
async fn a_configured_header_can_stand_in_for_the_key() {
    let vendors = Vendors::start().await;
    let mut access = access(&vendors, VendorApi::OpenAi, &[]);
    access.headers = vec![("authorization".into(), "Bearer of-a-company-gateway".into())];
    for keys in [vec![], vec![KEY.into()]] {
        let access = Endpoint { keys, ..access.clone() };
        embed(&open(config(ProviderKind::OpenAi, access), "m").await, &["a"]).await.unwrap();
    }
    for seen in vendors.requests() {
        assert_eq!(seen.headers["authorization"], "Bearer of-a-company-gateway");
    }
}

#[tokio::test]
async fn a_models_name_injects_nothing() {
    let vendors = Vendors::start().await;
    let vendor =
        Vendor::new(config(ProviderKind::Google, access(&vendors, VendorApi::Google, &[KEY]))).unwrap();
    for name in ["m\r\nX-Evil: 1", "m\n", "a b", "..", ".", ""] {
        let error = vendor.open(&ModelRef::new(name)).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::ModelNotFound, "{name:?}");
        assert!(!error.message.contains(['\r', '\n']));
    }
    let sneaky = vendor.open(&ModelRef::new("../../x?key=1#")).await.unwrap();
    embed(&sneaky, &["a"]).await.unwrap();
    let seen = &vendors.requests()[0];
    assert_eq!(seen.path, "/google/v1beta/models/..%2F..%2Fx%3Fkey=1%23:batchEmbedContents");
    assert!(!seen.headers.contains_key("x-evil"));
}

#[tokio::test]
async fn keys_show_in_no_error_and_no_debug() {
    let vendors = Vendors::start().await;
    let access = access(&vendors, VendorApi::OpenAi, &[KEY]);
    assert!(!format!("{access:?}").contains(KEY));
    let settings = ModelSettings { access, ..ModelSettings::default() };
    assert!(!format!("{settings:?}").contains(KEY));
    let outbound = Outbound { proxy: Some(format!("http://u:{KEY}@x").into()), ..Outbound::default() };
    assert!(!format!("{outbound:?}").contains(KEY));
    vendors.next(Behaviour::Unauthorized);
    let error = embed(&adapter(&vendors, VendorApi::OpenAi, "m").await, &["a"]).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains(KEY));
}

#[tokio::test]
async fn rate_headers_are_handed_on() {
    let vendors = Vendors::start().await;
    vendors.answer_with_headers(&[
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "59"),
        ("x-ratelimit-reset-requests", "1s"),
        ("x-ratelimit-remaining-tokens", "149984"),
    ]);
    let heard = Arc::new(Heard::default());
    let mut config = config(ProviderKind::OpenAi, access(&vendors, VendorApi::OpenAi, &[KEY]));
    config.listener = Some(heard.clone());
    let embedder = open(config, "m").await;
    embed(&embedder, &["a"]).await.unwrap();
    vendors.next(Behaviour::RateLimited(1));
    embed(&embedder, &["a"]).await.unwrap_err();
    let heard = heard.0.lock().unwrap();
    assert_eq!(heard.len(), 2, "a refusal tells, too");
    assert_eq!(heard[0].0, ProviderKind::OpenAi);
    assert_eq!(heard[0].1.requests.remaining, Some(59));
    assert_eq!(heard[0].1.tokens, RateWindow { remaining: Some(149_984), ..RateWindow::default() });
}

#[tokio::test]
async fn a_proxy_gets_everything_but_what_is_named() {
    // A stand-in serves as the proxy: it sees the request, whatever host it is for.
    let (vendors, proxy) = (Vendors::start().await, Vendors::start().await);
    let through = |no_proxy: &str| {
        let outbound =
            Outbound { proxy: Some(proxy.url().into()), no_proxy: no_proxy.to_owned(), certificates: None };
        Arc::new(HttpClient::new(&outbound).unwrap())
    };
    let mut shared = access(&vendors, VendorApi::OpenAi, &[KEY]);
    shared.address = Some(BaseUrl::parse("http://vendor.invalid/openai/v1").unwrap());
    let mut proxied = config(ProviderKind::OpenAi, shared);
    proxied.sender = through("");
    embed(&open(proxied, "m").await, &["a"]).await.unwrap();
    assert_eq!(proxy.texts(), ["a"]);
    let mut direct = config(ProviderKind::OpenAi, access(&vendors, VendorApi::OpenAi, &[KEY]));
    direct.sender = through("127.0.0.1,localhost");
    embed(&open(direct, "m").await, &["b"]).await.unwrap();
    assert_eq!((proxy.texts(), vendors.texts()), (vec!["a".to_owned()], vec!["b".to_owned()]));
}

#[test]
fn what_cannot_be_sent_is_refused_at_the_start() {
    let refused = |access: Endpoint| Vendor::new(config(ProviderKind::Cohere, access)).err().unwrap();
    let access = Endpoint { key_setting: "COHERE_API_KEY".into(), ..Endpoint::default() };
    let broken_key = Endpoint { keys: vec![format!("{KEY}\nx").into()], ..access.clone() };
    assert!(refused(broken_key.clone()).starts_with("COHERE_API_KEY: "));
    assert!(!refused(broken_key).contains(KEY));
    assert!(
        refused(Endpoint { headers: vec![("a b".into(), "x".into())], ..access.clone() }).contains("'a b'")
    );
    assert!(
        refused(Endpoint { headers: vec![("a".into(), "x\ny".into())], ..access.clone() }).contains("'a'")
    );
    let length = Endpoint { headers: vec![("Content-Length".into(), "1".into())], ..access.clone() };
    assert!(refused(length).contains("cannot be set"));
    assert!(refused(Endpoint { dialect: Some("ollama".parse().unwrap()), ..access }).contains("ollama"));
    assert!(
        HttpClient::new(&Outbound { certificates: Some(b"no pem".to_vec()), ..Outbound::default() }).is_err()
    );
    assert!(
        HttpClient::new(&Outbound { proxy: Some("::".to_owned().into()), ..Outbound::default() }).is_err()
    );
}
