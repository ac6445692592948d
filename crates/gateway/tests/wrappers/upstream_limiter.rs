//! The order and the times of calls under the limits of a provider.

use std::{sync::Arc, time::Duration};

use embeddery_core::{
    Embedder, ErrorKind, Fault, Priority, RateLimitInfo, RateListener as _, RateWindow, Retry,
};
use embeddery_gateway::{UpstreamLimiter, UpstreamLimiterConfig, UpstreamLimiters};
use tokio::time::Instant;

use crate::mock_embedder::{MockEmbedder, failure, request};

const SECOND: Duration = Duration::from_secs(1);

struct Fixture {
    model: Arc<MockEmbedder>,
    limiter: Arc<UpstreamLimiter>,
    limiters: UpstreamLimiters,
    start: Instant,
}

fn fixture(concurrency: usize, mut model: MockEmbedder, latency: Duration) -> Fixture {
    model.latency = latency;
    let model = Arc::new(model);
    let limiters = UpstreamLimiters::new(UpstreamLimiterConfig { concurrency, max_wait: 30 * SECOND });
    let limiter = Arc::new(UpstreamLimiter::new(Arc::clone(&model) as Arc<dyn Embedder>, &limiters));
    Fixture { model, limiter, limiters, start: Instant::now() }
}

fn healthy() -> MockEmbedder {
    MockEmbedder::new(Default::default(), |_| Ok(()))
}

impl Fixture {
    fn send(&self, text: &str, priority: Priority) -> tokio::task::JoinHandle<Result<(), ErrorKind>> {
        let (limiter, request) = (Arc::clone(&self.limiter), request(&[text.to_owned()], priority));
        tokio::spawn(async move { limiter.embed(request).await.map(drop).map_err(|error| error.kind) })
    }

    fn observe(&self, requests: RateWindow, tokens: RateWindow) {
        self.limiters.observe(&self.model.server(), RateLimitInfo { requests, tokens });
    }
}

fn window(remaining: u64, limit: u64, reset: Duration) -> RateWindow {
    RateWindow { limit: Some(limit), remaining: Some(remaining), reset: Some(reset) }
}

async fn all(tasks: Vec<tokio::task::JoinHandle<Result<(), ErrorKind>>>) -> Vec<Result<(), ErrorKind>> {
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_limited_and_interactive_calls_go_before_batch_calls() {
    let fixture = fixture(1, healthy(), SECOND);
    let mut tasks = Vec::new();
    for (text, priority) in [
        ("first", Priority::Batch),
        ("batch 1", Priority::Batch),
        ("batch 2", Priority::Batch),
        ("interactive 1", Priority::Interactive),
        ("interactive 2", Priority::Interactive),
    ] {
        tasks.push(fixture.send(text, priority));
        tokio::task::yield_now().await;
    }
    assert!(all(tasks).await.iter().all(Result::is_ok));
    assert_eq!(
        fixture.model.first_texts(),
        ["first", "interactive 1", "interactive 2", "batch 1", "batch 2"]
    );
    assert_eq!(fixture.model.seconds(fixture.start), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_does_not_block_the_queue() {
    let fixture = fixture(1, healthy(), SECOND);
    let first = fixture.send("first", Priority::Interactive);
    tokio::task::yield_now().await;
    let cancelled = fixture.send("cancelled", Priority::Interactive);
    tokio::task::yield_now().await;
    let last = fixture.send("last", Priority::Interactive);
    tokio::task::yield_now().await;
    cancelled.abort();
    assert_eq!(all(vec![first, last]).await, [Ok(()), Ok(())]);
    assert_eq!(fixture.model.first_texts(), ["first", "last"]);
    // A call that is cancelled while it runs returns its permit.
    let running = fixture.send("runs", Priority::Interactive);
    tokio::task::yield_now().await;
    running.abort();
    assert_eq!(fixture.send("after", Priority::Interactive).await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_429_delays_all_calls_by_its_retry_after() {
    let model = MockEmbedder::new(Default::default(), |request| match request.inputs[0].text() {
        Some("limited") => {
            Err(failure(ErrorKind::RateLimited, Fault::Upstream, Retry::After(Duration::from_secs(20))))
        }
        _ => Ok(()),
    });
    let fixture = fixture(8, model, Duration::ZERO);
    assert_eq!(fixture.send("limited", Priority::Interactive).await.unwrap(), Err(ErrorKind::RateLimited));
    let tasks = (0..3).map(|n| fixture.send(&n.to_string(), Priority::Interactive)).collect();
    assert!(all(tasks).await.iter().all(Result::is_ok));
    assert_eq!(fixture.model.seconds(fixture.start), [0, 20, 20, 20]);
}

#[tokio::test(start_paused = true)]
async fn a_429_also_delays_the_calls_that_wait_already() {
    let model = MockEmbedder::new(Default::default(), |request| match request.inputs[0].text() {
        Some("limited") => {
            Err(failure(ErrorKind::RateLimited, Fault::Upstream, Retry::After(Duration::from_secs(10))))
        }
        _ => Ok(()),
    });
    let fixture = fixture(1, model, SECOND);
    let limited = fixture.send("limited", Priority::Interactive);
    tokio::task::yield_now().await;
    let waits = fixture.send("waits", Priority::Interactive);
    assert_eq!(all(vec![limited, waits]).await, [Err(ErrorKind::RateLimited), Ok(())]);
    assert_eq!(fixture.model.seconds(fixture.start), [0, 11]);
}

#[tokio::test(start_paused = true)]
async fn delays_of_429s_without_retry_after_double_until_a_success() {
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let model = MockEmbedder::new(Default::default(), move |_| {
        match calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0..3 => Err(failure(ErrorKind::RateLimited, Fault::Upstream, Retry::Backoff)),
            _ => Ok(()),
        }
    });
    let fixture = fixture(1, model, Duration::ZERO);
    for _ in 0..5 {
        let _ = fixture.send("x", Priority::Interactive).await.unwrap();
    }
    assert_eq!(fixture.model.seconds(fixture.start), [0, 1, 3, 7, 7]);
}

#[tokio::test(start_paused = true)]
async fn the_reported_budget_is_not_exceeded() {
    let fixture = fixture(8, healthy(), Duration::ZERO);
    fixture.observe(window(2, 100, 15 * SECOND), RateWindow::default());
    let tasks = (0..4).map(|n| fixture.send(&n.to_string(), Priority::Interactive)).collect();
    assert!(all(tasks).await.iter().all(Result::is_ok));
    assert_eq!(fixture.model.seconds(fixture.start), [0, 0, 15, 15]);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_counted_and_a_call_larger_than_a_window_is_not_blocked_for_ever() {
    let fixture = fixture(8, healthy(), Duration::ZERO);
    fixture.observe(RateWindow::default(), window(10, 20, 5 * SECOND));
    let tasks =
        ["eight...", "eight...", &"x".repeat(50)].map(|text| fixture.send(text, Priority::Interactive));
    assert!(all(tasks.into()).await.iter().all(Result::is_ok));
    assert_eq!(fixture.model.seconds(fixture.start), [0, 5, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_long_delay_fails_the_call_at_once() {
    let fixture = fixture(8, healthy(), Duration::ZERO);
    fixture.observe(window(0, 100, 31 * SECOND), RateWindow::default());
    assert_eq!(fixture.send("x", Priority::Interactive).await.unwrap(), Err(ErrorKind::RateLimited));
    assert!(fixture.model.first_texts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_429_delays_neither_another_server_nor_another_account() {
    let limited = || {
        MockEmbedder::new(Default::default(), |_| {
            Err(failure(ErrorKind::RateLimited, Fault::Upstream, Retry::After(20 * SECOND)))
        })
    };
    let limiters = UpstreamLimiters::new(UpstreamLimiterConfig { concurrency: 1, max_wait: 30 * SECOND });
    let wrap = |model: MockEmbedder| UpstreamLimiter::new(Arc::new(model), &limiters);
    let send = async |limiter: &UpstreamLimiter| {
        let result = limiter.embed(request(&["x".to_owned()], Priority::Interactive)).await;
        result.map(drop).map_err(|error| error.kind)
    };
    let start = Instant::now();
    assert_eq!(send(&wrap(limited().at("http://one:80", 1))).await, Err(ErrorKind::RateLimited));
    for (address, account) in [("http://two:80", 1), ("http://one:80", 2)] {
        assert_eq!(send(&wrap(healthy().at(address, account))).await, Ok(()));
        assert_eq!(start.elapsed(), Duration::ZERO, "{address} {account}");
    }
    // Another model at the same server with the same account waits.
    assert_eq!(send(&wrap(healthy().at("http://one:80", 1))).await, Ok(()));
    assert_eq!(start.elapsed(), 20 * SECOND);
    // A reload forgets a server that is gone, and keeps the others.
    assert_eq!(send(&wrap(limited().at("http://two:80", 1))).await, Err(ErrorKind::RateLimited));
    assert_eq!(send(&wrap(limited().at("http://one:80", 2))).await, Err(ErrorKind::RateLimited));
    let start = Instant::now();
    limiters.retain(&[healthy().at("http://one:80", 2).server()]);
    assert_eq!(send(&wrap(healthy().at("http://two:80", 1))).await, Ok(()));
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(send(&wrap(healthy().at("http://one:80", 2))).await, Ok(()));
    assert_eq!(start.elapsed(), 20 * SECOND);
}
