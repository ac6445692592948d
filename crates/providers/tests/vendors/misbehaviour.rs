//! Every misbehaviour, and the decision it leads to. Waits are on real time only where a deadline is the
//! subject.

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

use crate::support::{FORMS, KEY, adapter, assert_right, embed, request};

const ALL: [VendorApi; 6] = [
    VendorApi::OpenAi,
    VendorApi::Cohere,
    VendorApi::Google,
    VendorApi::Mistral,
    VendorApi::Voyage,
    VendorApi::Ollama,
];

fn model(form: VendorApi) -> &'static str {
    FORMS.iter().find(|(known, _)| *known == form).unwrap().1
}

struct Suspect {
    form: VendorApi,
    vendors: Vendors,
    embedder: Arc<dyn Embedder>,
}

impl Suspect {
    async fn new(form: VendorApi) -> Self {
        let vendors = Vendors::start().await;
        Self { form, embedder: adapter(&vendors, form, model(form)).await, vendors }
    }

    /// What a misbehaviour is taken for. It must not outlive its request, nor show the key.
    async fn meaning(&self, behaviour: &Behaviour) -> (ErrorKind, Fault, Retry) {
        self.vendors.next(behaviour.clone());
        let texts = ["a", "b", "c"];
        let answer = embed(&self.embedder, &texts).await;
        let error = answer.err().unwrap_or_else(|| panic!("{:?} took {behaviour:?}", self.form));
        assert!(!format!("{error:?}").contains(KEY), "{behaviour:?} shows the key: {error:?}");
        assert_right(&embed(&self.embedder, &texts).await.unwrap(), &texts);
        (error.kind, error.fault, error.retry)
    }
}

#[tokio::test]
async fn refusals() {
    let seconds = |n| After(Duration::from_secs(n));
    for form in ALL {
        let suspect = Suspect::new(form).await;
        for (behaviour, expected) in [
            (Behaviour::RateLimited(7), (RateLimited, Fault::Upstream, seconds(7))),
            (Behaviour::RateLimitedInBody(27), (RateLimited, Fault::Upstream, seconds(27))),
            (Behaviour::RateLimitedInList(27), (RateLimited, Fault::Upstream, seconds(27))),
            (Behaviour::QuotaGone, (RateLimited, Fault::Upstream, Never)),
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
            assert_eq!(suspect.meaning(&behaviour).await, expected, "{form:?} {behaviour:?}");
        }
    }
}

#[tokio::test]
async fn broken_connections_and_answers() {
    for form in ALL {
        let suspect = Suspect::new(form).await;
        let mut all = vec![
            (Behaviour::Reset, Unavailable),
            (Behaviour::Truncated, Unavailable),
            (Behaviour::Html, InvalidUpstreamResponse),
            (Behaviour::Empty, InvalidUpstreamResponse),
            (Behaviour::FewerVectors, InvalidUpstreamResponse),
            (Behaviour::NotANumber, InvalidUpstreamResponse),
            (Behaviour::MixedLengths, InvalidUpstreamResponse),
            (Behaviour::WrongLength, InvalidUpstreamResponse),
        ];
        if matches!(form, VendorApi::OpenAi | VendorApi::Voyage) {
            all.extend([
                (Behaviour::BrokenBase64, InvalidUpstreamResponse),
                (Behaviour::DuplicateIndex, InvalidUpstreamResponse),
            ]);
        }
        // Where the length is not known before, the first answer tells.
        embed(&suspect.embedder, &["a"]).await.unwrap();
        for (behaviour, kind) in all {
            let expected = (kind, Fault::Upstream, Backoff);
            assert_eq!(suspect.meaning(&behaviour).await, expected, "{form:?} {behaviour:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let expected = (InvalidUpstreamResponse, Fault::Upstream, Never);
    assert_eq!(Suspect::new(VendorApi::OpenAi).await.meaning(&Behaviour::Huge).await, expected);
}

#[tokio::test]
async fn another_order_is_put_right() {
    let vendors = Vendors::start().await;
    for form in [VendorApi::OpenAi, VendorApi::Mistral, VendorApi::Voyage, VendorApi::LocalOpenAi] {
        vendors.next(Behaviour::Shuffled);
        let texts = ["a", "b", "c", "d"];
        assert_right(&embed(&adapter(&vendors, form, "m").await, &texts).await.unwrap(), &texts);
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
async fn silence_and_dripping_end_at_the_deadline() {
    let vendors = Vendors::start().await;
    let embedder = adapter(&vendors, VendorApi::OpenAi, "m").await;
    for behaviour in [Behaviour::Hang, Behaviour::Drip] {
        vendors.next(behaviour);
        let mut asked = request(&["a"]);
        asked.context.deadline = Some(Instant::now() + Duration::from_millis(200));
        let error = embedder.embed(asked).await.unwrap_err();
        assert_eq!((error.kind, error.fault, error.retry), (Timeout, Fault::Upstream, Backoff));
    }
    assert!(embed(&embedder, &["a"]).await.is_ok());
}

#[tokio::test]
async fn nobody_there_is_the_upstreams_fault() {
    let vendors = Vendors::start().await;
    let embedder = adapter(&vendors, VendorApi::OpenAi, "m").await;
    drop(vendors);
    let error = embed(&embedder, &["a"]).await.unwrap_err();
    assert_eq!((error.kind, error.fault, error.retry), (Unavailable, Fault::Upstream, Backoff));
    assert!(!error.message.contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn the_vendors_own_limits_are_understood() {
    let vendors = Vendors::start().await;
    let many: Vec<String> = (0..2049).map(|i| i.to_string()).collect();
    for (form, count) in
        [(VendorApi::OpenAi, 2049), (VendorApi::Cohere, 97), (VendorApi::Google, 101), (VendorApi::Tei, 33)]
    {
        let texts: Vec<&str> = many[..count].iter().map(String::as_str).collect();
        let error = embed(&adapter(&vendors, form, "m").await, &texts).await.unwrap_err();
        assert_eq!(error.kind, BatchTooLarge, "{form:?}: {error}");
    }
    let long = "x".repeat(40_000);
    let error = embed(&adapter(&vendors, VendorApi::OpenAi, "m").await, &[&long]).await.unwrap_err();
    assert_eq!((error.kind, error.inputs[0].index), (InputTooLong, 0));
}

#[tokio::test]
async fn a_bad_input_fails_its_batch_as_the_callers_or_asks_for_smaller_ones() {
    let vendors = Vendors::start().await;
    vendors.poison("poison");
    let texts = ["a", "poison", "c"];
    let openai = embed(&adapter(&vendors, VendorApi::OpenAi, "m").await, &texts).await.unwrap_err();
    assert_eq!((openai.kind, openai.fault), (InvalidRequest, Fault::Caller));
    // Ollama's runner dies of it: only smaller batches save the others.
    let ollama = embed(&adapter(&vendors, VendorApi::Ollama, "m").await, &texts).await.unwrap_err();
    assert_eq!(ollama.kind, BatchTooLarge);
}
