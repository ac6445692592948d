//! Faults of vendors, and the errors that they become. Only tests of deadlines wait in real time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use embeddery_core::{
    Embedder,
    ErrorKind::{
        self, BatchTooLarge, InputTooLong, InvalidRequest, InvalidUpstreamResponse, ModelNotFound,
        RateLimited, Timeout, Unavailable, UpstreamAuth,
    },
    Fault,
    Retry::{self, After, Backoff, Never},
};
use embeddery_test_support::vendors::{Behaviour, VendorApi, Vendors};

use crate::support::{APIS, KEY, adapter, assert_vectors, embed, request};

const ALL: [VendorApi; 6] = [
    VendorApi::OpenAi,
    VendorApi::Cohere,
    VendorApi::Google,
    VendorApi::Mistral,
    VendorApi::Voyage,
    VendorApi::Ollama,
];

fn model(api: VendorApi) -> &'static str {
    APIS.iter().find(|(other, _)| *other == api).unwrap().1
}

struct FaultyVendor {
    api: VendorApi,
    vendors: Vendors,
    embedder: Arc<dyn Embedder>,
}

impl FaultyVendor {
    async fn new(api: VendorApi) -> Self {
        let vendors = Vendors::start().await;
        Self { api, embedder: adapter(&vendors, api, model(api)).await, vendors }
    }

    /// The error that a fault becomes. The next request must succeed, and the error must not contain the key.
    async fn error_for(&self, behaviour: &Behaviour) -> (ErrorKind, Fault, Retry) {
        self.vendors.next(behaviour.clone());
        let texts = ["a", "b", "c"];
        let response = embed(&self.embedder, &texts).await;
        let error = response.err().unwrap_or_else(|| panic!("{:?} accepted {behaviour:?}", self.api));
        assert!(!format!("{error:?}").contains(KEY), "{behaviour:?} reveals the key: {error:?}");
        assert_vectors(&embed(&self.embedder, &texts).await.unwrap(), &texts);
        (error.kind, error.fault, error.retry)
    }
}

#[tokio::test]
async fn error_responses_are_classified() {
    let seconds = |n| After(Duration::from_secs(n));
    for api in ALL {
        let vendor = FaultyVendor::new(api).await;
        for (behaviour, expected) in [
            (Behaviour::RateLimited(7), (RateLimited, Fault::Upstream, seconds(7))),
            (Behaviour::RateLimitedInBody(27), (RateLimited, Fault::Upstream, seconds(27))),
            (Behaviour::RateLimitedInList(27), (RateLimited, Fault::Upstream, seconds(27))),
            (Behaviour::QuotaExhausted, (RateLimited, Fault::Upstream, Never)),
            (Behaviour::Status(500), (Unavailable, Fault::Upstream, Backoff)),
            (Behaviour::Status(503), (Unavailable, Fault::Upstream, Backoff)),
            (Behaviour::Status(529), (Unavailable, Fault::Upstream, Backoff)),
            (Behaviour::Status(408), (Unavailable, Fault::Upstream, Backoff)),
            (Behaviour::Status(400), (InvalidRequest, Fault::Caller, Never)),
            (Behaviour::Status(403), (UpstreamAuth, Fault::Us, Never)),
            (Behaviour::Unauthorized, (UpstreamAuth, Fault::Us, Never)),
            (Behaviour::TooManyTokensAbove(2), (BatchTooLarge, Fault::Caller, Never)),
            (Behaviour::InputTooLong, (InputTooLong, Fault::Caller, Never)),
            (Behaviour::NoSuchModel, (ModelNotFound, Fault::Caller, Never)),
        ] {
            assert_eq!(vendor.error_for(&behaviour).await, expected, "{api:?} {behaviour:?}");
        }
    }
}

#[tokio::test]
async fn broken_connections_and_responses_are_classified() {
    for api in ALL {
        let vendor = FaultyVendor::new(api).await;
        let mut all = vec![
            (Behaviour::Reset, Unavailable),
            (Behaviour::Truncated, Unavailable),
            (Behaviour::Html, InvalidUpstreamResponse),
            (Behaviour::Empty, InvalidUpstreamResponse),
            (Behaviour::FewerVectors, InvalidUpstreamResponse),
            (Behaviour::Nan, InvalidUpstreamResponse),
            (Behaviour::MixedLengths, InvalidUpstreamResponse),
            (Behaviour::WrongLength, InvalidUpstreamResponse),
        ];
        if matches!(api, VendorApi::OpenAi | VendorApi::Voyage) {
            all.extend([
                (Behaviour::BrokenBase64, InvalidUpstreamResponse),
                (Behaviour::DuplicateIndex, InvalidUpstreamResponse),
            ]);
        }
        // The first response sets the dimensions of unknown models.
        embed(&vendor.embedder, &["a"]).await.unwrap();
        for (behaviour, kind) in all {
            let expected = (kind, Fault::Upstream, Backoff);
            assert_eq!(vendor.error_for(&behaviour).await, expected, "{api:?} {behaviour:?}");
        }
    }
}

#[tokio::test]
async fn a_response_without_end_is_not_read_to_its_end() {
    let expected = (InvalidUpstreamResponse, Fault::Upstream, Never);
    assert_eq!(FaultyVendor::new(VendorApi::OpenAi).await.error_for(&Behaviour::Huge).await, expected);
}

#[tokio::test]
async fn shuffled_vectors_are_reordered() {
    let vendors = Vendors::start().await;
    for api in [VendorApi::OpenAi, VendorApi::Mistral, VendorApi::Voyage, VendorApi::LocalOpenAi] {
        vendors.next(Behaviour::Shuffled);
        let texts = ["a", "b", "c", "d"];
        assert_vectors(&embed(&adapter(&vendors, api, "m").await, &texts).await.unwrap(), &texts);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_key() {
    let (vendors, elsewhere) = (Vendors::start().await, Vendors::start().await);
    vendors.next(Behaviour::Redirect(format!("{}/embeddings", elsewhere.base_url(VendorApi::OpenAi))));
    let error = embed(&adapter(&vendors, VendorApi::OpenAi, "m").await, &["a"]).await.unwrap_err();
    assert_eq!((error.kind, error.fault, error.retry), (InvalidUpstreamResponse, Fault::Upstream, Never));
    assert!(error.message.contains("redirect") && !error.message.contains("127.0.0.1"), "{error}");
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn a_silent_or_slow_response_ends_at_the_deadline() {
    let vendors = Vendors::start().await;
    let embedder = adapter(&vendors, VendorApi::OpenAi, "m").await;
    for behaviour in [Behaviour::Hang, Behaviour::Drip] {
        vendors.next(behaviour);
        let mut params = request(&["a"]);
        params.context.deadline = Some(Instant::now() + Duration::from_millis(200));
        let error = embedder.embed(params).await.unwrap_err();
        assert_eq!((error.kind, error.fault, error.retry), (Timeout, Fault::Upstream, Backoff));
    }
    assert!(embed(&embedder, &["a"]).await.is_ok());
}

#[tokio::test]
async fn a_refused_connection_is_the_upstreams_fault() {
    let vendors = Vendors::start().await;
    let embedder = adapter(&vendors, VendorApi::OpenAi, "m").await;
    drop(vendors);
    let error = embed(&embedder, &["a"]).await.unwrap_err();
    assert_eq!((error.kind, error.fault, error.retry), (Unavailable, Fault::Upstream, Backoff));
    assert!(!error.message.contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn the_vendors_limits_are_recognised() {
    let vendors = Vendors::start().await;
    let many: Vec<String> = (0..2049).map(|i| i.to_string()).collect();
    for (api, count) in
        [(VendorApi::OpenAi, 2049), (VendorApi::Cohere, 97), (VendorApi::Google, 101), (VendorApi::Tei, 33)]
    {
        let texts: Vec<&str> = many[..count].iter().map(String::as_str).collect();
        let error = embed(&adapter(&vendors, api, "m").await, &texts).await.unwrap_err();
        assert_eq!(error.kind, BatchTooLarge, "{api:?}: {error}");
    }
    let long = "x".repeat(40_000);
    let error = embed(&adapter(&vendors, VendorApi::OpenAi, "m").await, &[&long]).await.unwrap_err();
    assert_eq!((error.kind, error.inputs[0].index), (InputTooLong, 0));
}

#[tokio::test]
async fn a_bad_input_is_the_callers_fault_or_requires_smaller_batches() {
    let vendors = Vendors::start().await;
    vendors.poison("poison");
    let texts = ["a", "poison", "c"];
    let openai = embed(&adapter(&vendors, VendorApi::OpenAi, "m").await, &texts).await.unwrap_err();
    assert_eq!((openai.kind, openai.fault), (InvalidRequest, Fault::Caller));
    // The input crashes Ollama's runner. Smaller batches isolate it.
    let ollama = embed(&adapter(&vendors, VendorApi::Ollama, "m").await, &texts).await.unwrap_err();
    assert_eq!(ollama.kind, BatchTooLarge);
}
