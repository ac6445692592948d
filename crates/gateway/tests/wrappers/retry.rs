//! When a failure is retried, and after which delay.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use embeddery_core::{EmbedError, Embedder, ErrorKind, Fault, Priority, Retry};
use embeddery_gateway::{Retrier, RetryConfig};
use tokio::time::Instant;

use crate::mock_embedder::{MockEmbedder, failure, request};

/// The times of all attempts at a model that always fails with `error`, and the upper bounds of the drawn delays, in
/// milliseconds.
async fn attempts(error: EmbedError, deadline: Option<Duration>) -> (Vec<u64>, Vec<u64>) {
    let model = Arc::new(MockEmbedder::new(Default::default(), move |_| Err(error.clone())));
    let drawn = Arc::new(Mutex::new(Vec::new()));
    let jitter = Arc::clone(&drawn);
    let config = RetryConfig {
        jitter: Arc::new(move |max| {
            jitter.lock().unwrap().push(max.as_millis() as u64);
            max / 2
        }),
        ..RetryConfig::default()
    };
    let start = Instant::now();
    let mut request = request(&["a".into()], Priority::Interactive);
    request.context.deadline = deadline.map(|after| (start + after).into_std());
    Retrier::new(Arc::clone(&model) as Arc<dyn Embedder>, config).embed(request).await.unwrap_err();
    let at = model.calls.lock().unwrap().iter().map(|(at, _)| (*at - start).as_millis() as u64).collect();
    (at, drawn.lock().unwrap().clone())
}

#[tokio::test(start_paused = true)]
async fn the_upper_bound_of_the_delay_doubles() {
    let down = failure(ErrorKind::Unavailable, Fault::Upstream, Retry::Backoff);
    assert_eq!(attempts(down, None).await, (vec![0, 250, 750, 1750], vec![500, 1000, 2000]));
}

#[tokio::test(start_paused = true)]
async fn the_delay_of_the_upstream_is_waited_exactly_unless_it_is_too_long() {
    let limited = |seconds| {
        failure(ErrorKind::RateLimited, Fault::Upstream, Retry::After(Duration::from_secs(seconds)))
    };
    assert_eq!(attempts(limited(7), None).await, (vec![0, 7000, 14_000, 21_000], vec![]));
    assert_eq!(attempts(limited(31), None).await.0, [0], "a long delay is left to the caller");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_retried_after_the_deadline() {
    let down = failure(ErrorKind::Unavailable, Fault::Upstream, Retry::Backoff);
    assert_eq!(attempts(down, Some(Duration::from_millis(700))).await.0, [0, 250]);
}

#[tokio::test(start_paused = true)]
async fn caller_errors_and_open_breakers_are_not_retried() {
    for error in [
        failure(ErrorKind::InvalidRequest, Fault::Caller, Retry::Backoff),
        failure(ErrorKind::UpstreamAuth, Fault::Us, Retry::Never),
        failure(ErrorKind::BreakerOpen, Fault::Us, Retry::After(Duration::from_secs(1))),
    ] {
        assert_eq!(attempts(error.clone(), None).await.0, [0], "{error:?}");
    }
}
