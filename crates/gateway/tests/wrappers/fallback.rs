//! A fallback model answers before the deadline, however the server of the requested model fails.

use std::{collections::HashMap, sync::Arc, time::Duration};

use embeddery_core::{
    BoxFuture, EmbedError, Embedder, ErrorKind, Fault, ModelRef, ModelState, ModelStatus, Priority, Provider,
    ProviderKind, Retry,
};
use embeddery_gateway::{
    BreakerConfig, BreakerRegistry, CircuitBreaker, ConfiguredModel, Deadline, Fallback, FallbackModels,
    Metrics, ModelSelector, Policy, Retrier, RetryConfig, Router, RouterConfig, Stack, TokenDecoder,
    TokenEncoding,
};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::mock_embedder::{MockEmbedder, failure, request};

const SECOND: Duration = Duration::from_secs(1);

/// A provider with mock models.
struct Mocks(HashMap<&'static str, Arc<MockEmbedder>>);

impl Provider for Mocks {
    fn kind(&self) -> ProviderKind {
        ProviderKind::OpenAi
    }

    fn open<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<Arc<dyn Embedder>, EmbedError>> {
        let model = Arc::clone(&self.0[&*model.name]);
        Box::pin(async { Ok(model as Arc<dyn Embedder>) })
    }

    fn download<'a>(&'a self, _: &'a ModelRef) -> BoxFuture<'a, Result<(), EmbedError>> {
        Box::pin(async { Ok(()) })
    }

    fn state(&self, _: &ModelRef) -> Option<ModelState> {
        None
    }

    fn models(&self) -> Vec<ModelStatus> {
        Vec::new()
    }
}

/// The wrappers that decide when a fallback is used, in the order of the binary.
struct Wrappers {
    breakers: BreakerRegistry,
    metrics: Metrics,
}

impl Stack for Wrappers {
    fn wrap_model(&self, adapter: Arc<dyn Embedder>, _: &str) -> Arc<dyn Embedder> {
        let retry = RetryConfig { jitter: Arc::new(|max| max), ..RetryConfig::default() };
        Arc::new(Retrier::new(Arc::new(CircuitBreaker::new(adapter, &self.breakers)), retry))
    }

    fn wrap_request(
        &self,
        model: Arc<dyn Embedder>,
        fallbacks: Option<FallbackModels>,
        _: &str,
    ) -> Arc<dyn Embedder> {
        match fallbacks {
            Some(fallbacks) => Arc::new(Deadline(Arc::new(Fallback::new(model, fallbacks, &self.metrics)))),
            None => Arc::new(Deadline(model)),
        }
    }
}

struct Fixture {
    router: Router,
    models: HashMap<&'static str, Arc<MockEmbedder>>,
}

impl Fixture {
    /// A router of these models, of which each is at a server of its own. The first has the others as its fallbacks.
    fn new<const N: usize>(models: [(&'static str, MockEmbedder); N]) -> Self {
        let fallback = models[1..].iter().map(|(name, _)| (*name).to_owned()).collect();
        let entries = models
            .iter()
            .map(|(name, _)| ConfiguredModel::new(*name, ProviderKind::OpenAi, ModelRef::new(*name)));
        let mut entries: Vec<_> = entries.collect();
        entries[0].fallback = fallback;
        let at = |(name, model): (&'static str, MockEmbedder)| {
            (name, Arc::new(model.at(&format!("http://{name}:80"), 0)))
        };
        let models: HashMap<_, _> = models.map(at).into();
        let metrics = Metrics::new(&mut Registry::default());
        let router = Router::new(RouterConfig {
            providers: vec![Arc::new(Mocks(models.clone()))],
            models: entries,
            vendor_models: Vec::new(),
            default_model: "one".into(),
            stack: Arc::new(Wrappers {
                breakers: BreakerRegistry::new(BreakerConfig::default()),
                metrics: metrics.clone(),
            }),
            policy: Policy::default(),
            decoder: Arc::new(TokenDecoder::new(TokenEncoding::Cl100k)),
            metrics,
        });
        Self { router, models }
    }

    /// Sends a request with a deadline. Returns the result, and the seconds until it came.
    async fn send(&self, deadline: u64) -> (Result<(), ErrorKind>, u64) {
        let start = Instant::now();
        let mut request = request(&["x".to_owned()], Priority::Interactive);
        request.context.deadline = Some((start + Duration::from_secs(deadline)).into_std());
        let result = self.router.embed(ModelSelector { model: Some("one"), provider: None }, request).await;
        (result.map(drop).map_err(|error| error.kind), start.elapsed().as_secs())
    }

    fn calls(&self, name: &str) -> usize {
        self.models[name].calls.lock().unwrap().len()
    }
}

fn healthy() -> MockEmbedder {
    MockEmbedder::new(Default::default(), |_| Ok(()))
}

fn taking(latency: Duration) -> MockEmbedder {
    let mut model = healthy();
    model.latency = latency;
    model
}

fn hanging() -> MockEmbedder {
    taking(1000 * SECOND)
}

fn failing(error: EmbedError) -> MockEmbedder {
    MockEmbedder::new(Default::default(), move |_| Err(error.clone()))
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_leaves_a_share_of_the_time_to_each_fallback() {
    let one_hangs = Fixture::new([("one", hanging()), ("two", healthy())]);
    assert_eq!(one_hangs.send(30).await, (Ok(()), 15));
    let two_hang = Fixture::new([("one", hanging()), ("two", hanging()), ("three", healthy())]);
    assert_eq!(two_hang.send(30).await, (Ok(()), 20));
    let all_hang = Fixture::new([("one", hanging()), ("two", hanging())]);
    assert_eq!(all_hang.send(30).await, (Err(ErrorKind::Timeout), 30));
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_the_share_and_what_is_left_goes_to_the_fallback() {
    let down = failure(ErrorKind::Unavailable, Fault::Upstream, Retry::Backoff);
    // Without a fallback the delays of the retries are 0.5, 1 and 2 seconds.
    let fixture = Fixture::new([("one", failing(down.clone())), ("two", healthy())]);
    assert_eq!(fixture.send(4).await, (Ok(()), 1));
    assert_eq!(
        (fixture.calls("one"), fixture.calls("two")),
        (3, 1),
        "the third retry would end after the share"
    );
    let slow = failure(ErrorKind::RateLimited, Fault::Upstream, Retry::After(20 * SECOND));
    let fixture = Fixture::new([("one", failing(slow)), ("two", taking(25 * SECOND))]);
    assert_eq!(fixture.send(30).await, (Ok(()), 25), "the fallback gets all the time that is left");
}

#[tokio::test(start_paused = true)]
async fn a_server_with_an_open_breaker_is_skipped() {
    let down = failure(ErrorKind::Unavailable, Fault::Upstream, Retry::Backoff);
    let fixture = Fixture::new([("one", failing(down)), ("two", healthy())]);
    for _ in 0..2 {
        assert_eq!(fixture.send(60).await.0, Ok(()));
    }
    assert_eq!(fixture.calls("one"), 5, "the fifth failure opens the breaker");
    for _ in 0..3 {
        assert_eq!(fixture.send(60).await, (Ok(()), 0));
    }
    assert_eq!((fixture.calls("one"), fixture.calls("two")), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn the_error_of_the_requested_model_is_returned_if_all_fail() {
    let down = |kind| failing(failure(kind, Fault::Upstream, Retry::Never));
    let fixture =
        Fixture::new([("one", down(ErrorKind::Unavailable)), ("two", down(ErrorKind::RateLimited))]);
    assert_eq!(fixture.send(30).await, (Err(ErrorKind::Unavailable), 0));
    let bad = failing(failure(ErrorKind::InvalidRequest, Fault::Caller, Retry::Never));
    let fixture = Fixture::new([("one", bad), ("two", healthy())]);
    assert_eq!(fixture.send(30).await, (Err(ErrorKind::InvalidRequest), 0));
    assert_eq!(fixture.calls("two"), 0, "a caller's error has no fallback");
}
