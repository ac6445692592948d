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
    Fault, ModelRef, Provider as _, ProviderKind,
    Retry::{self, After, Backoff, Never},
};
use embeddery_providers::Vendor;
use embeddery_test_support::vendors::{Behaviour, VendorApi, Vendors};

use crate::support::{APIS, KEY, adapter, assert_vectors, config, embed, endpoint, kind, request};

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
            (Behaviour::MixedLengths, InvalidUpstreamResponse),
            (Behaviour::WrongLength, InvalidUpstreamResponse),
        ];
        if matches!(api, VendorApi::OpenAi | VendorApi::Voyage) {
            all.extend([
                (Behaviour::BrokenBase64, InvalidUpstreamResponse),
                (Behaviour::DuplicateIndex, InvalidUpstreamResponse),
            ]);
        }
        // In base64 a NaN is a number, and the gateway names its input. In JSON it is a syntax error.
        if !matches!(api, VendorApi::OpenAi | VendorApi::Azure | VendorApi::Voyage) {
            all.push((Behaviour::Nan, InvalidUpstreamResponse));
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

/// JSON that is no number of tokens.
const NO_TOKENS: [&str; 12] = [
    "-1",
    "5.5",
    "\"many\"",
    "\"\"",
    "null",
    "true",
    "[]",
    "[5]",
    "{}",
    "{\"a\":[{\"b\":null}]}",
    "1e999",
    "99999999999999999999",
];

#[tokio::test]
async fn an_odd_usage_costs_no_vectors() {
    let vendors = Vendors::start().await;
    for (api, model) in APIS {
        let embedder = adapter(&vendors, api, &model.replace(' ', "-")).await;
        let texts: &[&str] =
            if api == VendorApi::OllamaLegacy { &["one text"] } else { &["one text", "two"] };
        let reported = async |behaviour: Behaviour| {
            vendors.next(behaviour.clone());
            let response = embed(&embedder, texts).await;
            let response = response.unwrap_or_else(|error| panic!("{api:?} {behaviour:?}: {error}"));
            assert_vectors(&response, texts);
            let is_local = kind(api) == ProviderKind::LocalApi;
            assert_eq!(response.billed_tokens, if is_local { 0 } else { response.total_tokens() });
            response.total_tokens()
        };
        let estimate = reported(Behaviour::Usage("null".into())).await;
        for json in NO_TOKENS.into_iter().chain(["5000000000000", "\"5\"", "5"]) {
            // The object itself is odd. Ollama has the number in its place.
            let is_number = api == VendorApi::Ollama && json.trim_matches('"') == "5";
            let expected = if is_number { 5 } else { estimate };
            assert_eq!(reported(Behaviour::Usage(json.into())).await, expected, "{api:?} {json}");
        }
        for json in NO_TOKENS.into_iter().chain(["5000000000000"]) {
            assert_eq!(reported(Behaviour::TokenCount(json.into())).await, estimate, "{api:?} {json}");
        }
        let has_count = !matches!(api, VendorApi::OllamaLegacy | VendorApi::Tei | VendorApi::Tldw);
        for json in ["5", "5.0", "\"5\"", "5e0"] {
            let expected = if has_count { 5 } else { estimate };
            assert_eq!(reported(Behaviour::TokenCount(json.into())).await, expected, "{api:?} {json}");
        }
    }
}

#[tokio::test]
async fn a_server_that_refuses_base64_is_asked_for_numbers_once_and_for_all() {
    for (api, model) in [
        (VendorApi::OpenAi, "text-embedding-3-small"),
        (VendorApi::Azure, "deployment"),
        (VendorApi::Voyage, "voyage-4"),
    ] {
        for status in [400, 422] {
            let vendors = Vendors::start().await;
            vendors.refuse_base64(status);
            let vendor = Vendor::new(config(kind(api), endpoint(&vendors, api, &[KEY]))).unwrap();
            let open = async |model| vendor.open(&ModelRef::new(model)).await.unwrap();
            let embedder = open(model).await;
            assert_vectors(&embed(&embedder, &["a", "b"]).await.unwrap(), &["a", "b"]);
            let asked = || {
                let asked = vendors.requests();
                vendors.clear_requests();
                asked.iter().map(|request| request.body["encoding_format"] == "base64").collect::<Vec<_>>()
            };
            assert_eq!(asked(), [true, false], "{api:?} {status}");
            embed(&embedder, &["c"]).await.unwrap();
            embed(&open("another-model").await, &["c"]).await.unwrap();
            assert_eq!(asked(), [false, false], "{api:?}: remembered for the address");
        }
    }
}

#[tokio::test]
async fn another_refusal_is_not_taken_for_one_of_base64() {
    let vendors = Vendors::start().await;
    let embedder = adapter(&vendors, VendorApi::OpenAi, "text-embedding-3-small").await;
    vendors.next(Behaviour::Status(400));
    assert_eq!(embed(&embedder, &["a"]).await.unwrap_err().kind, InvalidRequest);
    assert_eq!(vendors.requests().len(), 1);
    // A refusal of the numbers as well is the reason that the caller sees, and nothing is remembered.
    vendors.refuse_base64(400);
    vendors.next(Behaviour::Normal);
    vendors.next(Behaviour::Status(500));
    assert_eq!(embed(&embedder, &["a"]).await.unwrap_err().kind, Unavailable);
    vendors.clear_requests();
    assert_vectors(&embed(&embedder, &["a"]).await.unwrap(), &["a"]);
    assert_eq!(vendors.requests().len(), 2);
    // Numbers instead of base64 are accepted.
    let vendors = Vendors::start().await;
    vendors.next(Behaviour::Numbers);
    let embedder = adapter(&vendors, VendorApi::OpenAi, "text-embedding-3-small").await;
    assert_vectors(&embed(&embedder, &["a", "b"]).await.unwrap(), &["a", "b"]);
    assert_eq!(vendors.requests().len(), 1);
}

#[tokio::test]
async fn vectors_as_numbers_are_requested_in_calls_whose_responses_fit() {
    let vendors = Vendors::start().await;
    let embedder = adapter(&vendors, VendorApi::OpenAi, "text-embedding-3-large").await;
    let texts: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let too_large = (BatchTooLarge, Fault::Caller, Never);
    // A server that ignores the encoding: the response with numbers is too long.
    vendors.next(Behaviour::Huge);
    let error = embed(&embedder, &texts).await.unwrap_err();
    assert_eq!((error.kind, error.fault, error.retry), too_large);
    // A server that refuses the encoding: the request for numbers is not sent.
    vendors.refuse_base64(400);
    vendors.clear_requests();
    let error = embed(&embedder, &texts).await.unwrap_err();
    assert_eq!((error.kind, error.fault, error.retry), too_large);
    assert_eq!(vendors.requests().len(), 1);
    // The gateway halves the call.
    assert_vectors(&embed(&embedder, &texts[..2]).await.unwrap(), &texts[..2]);
    vendors.clear_requests();
    assert_eq!(embed(&embedder, &texts).await.unwrap_err().kind, BatchTooLarge);
    assert_eq!(vendors.requests().len(), 0);
}
