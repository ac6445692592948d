//! Which models share a breaker, and what lists and resets show of it.

use std::sync::Arc;

use embeddery_core::{Embedder, ErrorKind, Fault, InputError, Priority, ProviderKind, Retry, UpstreamServer};
use embeddery_gateway::{
    BreakerConfig, BreakerRegistry, BreakerReport, BreakerState, CircuitBreaker, Service, UnknownBreaker,
};

use crate::mock_embedder::{MockEmbedder, failure, request};

const ONE: &str = "http://one:80";
const TWO: &str = "https://two:443";

fn server(provider: ProviderKind, address: &str) -> UpstreamServer {
    UpstreamServer { provider, address: Some(address.into()), account: 0 }
}

fn service(name: &str, provider: ProviderKind, address: &str) -> Service {
    Service { name: name.into(), server: server(provider, address) }
}

/// OpenAI at two servers, which have models with several accounts.
fn registry() -> BreakerRegistry {
    let registry = BreakerRegistry::new(BreakerConfig::default());
    let openai = |address| service("openai", ProviderKind::OpenAi, address);
    registry.set_services(vec![openai(ONE), openai(TWO), openai(ONE)]);
    registry
}

fn model(registry: &BreakerRegistry, address: &str, account: u64, healthy: bool) -> CircuitBreaker {
    let down = failure(ErrorKind::Unavailable, Fault::Upstream, Retry::Backoff);
    let model =
        MockEmbedder::new(Default::default(), move |_| if healthy { Ok(()) } else { Err(down.clone()) });
    CircuitBreaker::new(Arc::new(model.at(address, account)), registry)
}

async fn send(model: &CircuitBreaker) -> Result<(), ErrorKind> {
    let result = model.embed(request(&["x".to_owned()], Priority::Interactive)).await;
    result.map(drop).map_err(|error| error.kind)
}

async fn open(registry: &BreakerRegistry, address: &str) {
    let down = model(registry, address, 1, false);
    for _ in 0..5 {
        assert_eq!(send(&down).await, Err(ErrorKind::Unavailable));
    }
    assert_eq!(send(&down).await, Err(ErrorKind::BreakerOpen));
}

fn states(registry: &BreakerRegistry) -> Vec<(String, Option<String>, BreakerState)> {
    let openai = |report: &BreakerReport| report.provider == ProviderKind::OpenAi;
    let row =
        |report: BreakerReport| (report.name, report.address.map(|text| text.to_string()), report.state);
    registry.report().into_iter().filter(openai).map(row).collect()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_does_not_affect_another_one() {
    let registry = registry();
    open(&registry, ONE).await;
    assert_eq!(send(&model(&registry, TWO, 1, true)).await, Ok(()));
    assert_eq!(
        send(&model(&registry, ONE, 2, true)).await,
        Err(ErrorKind::BreakerOpen),
        "the accounts at one server share its breaker"
    );
    let row = |name: &str, address: &str, state| (name.to_owned(), Some(address.to_owned()), state);
    assert_eq!(
        states(&registry),
        [
            row("embeddings_openai", ONE, BreakerState::Open),
            row("embeddings_openai@https://two:443", TWO, BreakerState::Closed),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_has_the_worst_state_and_the_sum_of_the_counts() {
    let registry = registry();
    open(&registry, TWO).await;
    send(&model(&registry, ONE, 1, true)).await.unwrap();
    let of_openai = || {
        let mut reports = registry.report_by_service();
        reports.retain(|report| report.name == "embeddings_openai");
        assert_eq!((reports.len(), reports[0].address.clone()), (1, None));
        let totals = reports[0].totals;
        (reports[0].state, totals.failures, totals.successes, totals.trips)
    };
    assert_eq!(of_openai(), (BreakerState::Open, 5, 1, 1));
    // The counters do not decrease when a server is gone, and the server that stays keeps its state.
    registry.set_services(vec![service("openai", ProviderKind::OpenAi, ONE)]);
    assert_eq!(of_openai(), (BreakerState::Closed, 5, 1, 1));
    open(&registry, ONE).await;
    registry.set_services(vec![
        service("openai", ProviderKind::OpenAi, ONE),
        service("openai", ProviderKind::OpenAi, TWO),
    ]);
    assert_eq!(of_openai(), (BreakerState::Open, 10, 1, 2));
    assert_eq!(send(&model(&registry, TWO, 1, true)).await, Ok(()), "a server that is back starts anew");
}

#[tokio::test(start_paused = true)]
async fn all_breakers_of_a_provider_or_one_are_reset() {
    let registry = registry();
    let is_open =
        || states(&registry).into_iter().map(|(_, _, state)| state == BreakerState::Open).collect::<Vec<_>>();
    for (name, address, expected) in [
        ("openai", None, [false, false]),
        ("OpenAI", None, [false, false]),
        ("embeddings_openai", None, [false, false]),
        ("openai", Some(ONE), [false, true]),
        ("embeddings_openai", Some("HTTPS://two/"), [true, false]),
        ("openai", Some("http://one"), [false, true]),
        ("embeddings_openai@https://two:443", None, [true, false]),
    ] {
        open(&registry, ONE).await;
        open(&registry, TWO).await;
        assert_eq!(is_open(), [true, true]);
        assert!(registry.reset(name, address).is_ok());
        assert_eq!(is_open(), expected, "{name} {address:?}");
        registry.reset("openai", None).unwrap();
    }
    assert_eq!(registry.reset("unknown", None), Err(UnknownBreaker::Name));
    let known = UnknownBreaker::Address(vec![ONE.into(), TWO.into()]);
    for address in ["http://three:80", "", "http://one:81", "https://one"] {
        assert_eq!(registry.reset("openai", Some(address)), Err(known.clone()), "{address}");
    }
    assert_eq!(registry.reset("huggingface", Some(ONE)), Err(UnknownBreaker::Address(Vec::new())));
    assert!(registry.reset("huggingface", None).is_ok());
}

#[test]
fn names_are_unique_and_every_provider_is_listed() {
    let registry = BreakerRegistry::new(BreakerConfig::default());
    assert_eq!(registry.report().len(), ProviderKind::ALL.len());
    registry.set_services(vec![
        service("openai", ProviderKind::OpenAi, TWO),
        service("nomic", ProviderKind::LocalApi, ONE),
        service("other", ProviderKind::LocalApi, ONE),
        // An id may be the name of a provider.
        service("openai", ProviderKind::LocalApi, ONE),
    ]);
    let mut names: Vec<String> = registry.report().into_iter().map(|report| report.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "embeddings_cohere",
            "embeddings_google",
            "embeddings_huggingface",
            "embeddings_local_api",
            "embeddings_mistral",
            "embeddings_nomic",
            "embeddings_onnx",
            "embeddings_openai",
            "embeddings_openai@http://one:80",
            "embeddings_other",
            "embeddings_voyage",
        ]
    );
    let mut services: Vec<String> =
        registry.report_by_service().into_iter().map(|report| report.name).collect();
    services.dedup();
    assert_eq!(services.len(), 10, "{services:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_to_a_service_is_counted_once() {
    let registry = BreakerRegistry::new(BreakerConfig::default());
    let at = |name, address| service(name, ProviderKind::OpenAi, address);
    let failures = |name: &str| {
        let reports = registry.report_by_service();
        reports.into_iter().find(|report| &*report.service == name).unwrap().totals.failures
    };
    registry.set_services(vec![at("a", ONE), at("b", ONE)]);
    open(&registry, ONE).await;
    assert_eq!((failures("a"), failures("b")), (5, 5));
    // `b` keeps the server, so that its breaker stays.
    registry.set_services(vec![at("a", TWO), at("b", ONE)]);
    registry.reset("b", None).unwrap();
    open(&registry, ONE).await;
    assert_eq!((failures("a"), failures("b")), (5, 10));
    for _ in 0..2 {
        registry.set_services(vec![at("a", ONE), at("b", ONE)]);
        assert_eq!(
            (failures("a"), failures("b")),
            (5, 10),
            "what happened meanwhile is not the count of `a`"
        );
        registry.set_services(vec![at("a", TWO), at("b", ONE)]);
        assert_eq!((failures("a"), failures("b")), (5, 10));
    }
    registry.set_services(vec![at("a", ONE), at("b", ONE)]);
    registry.reset("a", None).unwrap();
    open(&registry, ONE).await;
    assert_eq!((failures("a"), failures("b")), (10, 15));
}

#[tokio::test(start_paused = true)]
async fn reports_by_provider_have_no_configured_ids() {
    let registry = BreakerRegistry::new(BreakerConfig::default());
    registry.set_services(vec![
        service("openai", ProviderKind::OpenAi, ONE),
        service("secret", ProviderKind::LocalApi, ONE),
        service("other", ProviderKind::LocalApi, TWO),
        service("openai", ProviderKind::LocalApi, TWO),
    ]);
    open(&registry, ONE).await;
    let reports = registry.report_by_provider();
    assert_eq!(reports.len(), ProviderKind::ALL.len());
    for report in reports {
        assert_eq!(report.name, format!("embeddings_{}", report.provider));
        assert_eq!((&*report.service, report.address), (report.provider.as_str(), None));
        let state =
            if report.provider == ProviderKind::OpenAi { BreakerState::Open } else { BreakerState::Closed };
        assert_eq!(report.state, state, "{}", report.name);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_about_the_texts_does_not_open_the_breaker() {
    let registry = registry();
    let bad = failure(ErrorKind::InvalidUpstreamResponse, Fault::Upstream, Retry::Never)
        .with_inputs(vec![InputError { index: 0, tokens: None }]);
    let model = MockEmbedder::new(Default::default(), move |_| Err(bad.clone()));
    let model = CircuitBreaker::new(Arc::new(model.at(ONE, 1)), &registry);
    for _ in 0..6 {
        assert_eq!(send(&model).await, Err(ErrorKind::InvalidUpstreamResponse));
    }
}
