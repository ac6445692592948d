//! When a failure is tried again, and after which pause.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use embeddery_core::{EmbedError, Embedder, ErrorKind, Fault, Priority, Retry};
use embeddery_gateway::{RetryConfig, Retrying};
use tokio::time::Instant;

use crate::mock_embedder::{Scripted, failure, request};

/// When a model that always fails so is asked, in milliseconds, and the pauses that were drawn.
async fn attempts(error: EmbedError, deadline: Option<Duration>) -> (Vec<u64>, Vec<u64>) {
    let model = Arc::new(Scripted::new(Default::default(), move |_| Err(error.clone())));
    let drawn = Arc::new(Mutex::new(Vec::new()));
    let jitter = Arc::clone(&drawn);
    let config = RetryConfig {
        jitter: Arc::new(move |most| {
            jitter.lock().unwrap().push(most.as_millis() as u64);
            most / 2
        }),
        ..RetryConfig::default()
    };
    let began = Instant::now();
    let mut asked = request(&["a".into()], Priority::Interactive);
    asked.context.deadline = deadline.map(|after| (began + after).into_std());
    Retrying::new(Arc::clone(&model) as Arc<dyn Embedder>, config).embed(asked).await.unwrap_err();
    let at = model.asked.lock().unwrap().iter().map(|(at, _)| (*at - began).as_millis() as u64).collect();
    (at, drawn.lock().unwrap().clone())
}

#[tokio::test(start_paused = true)]
async fn pauses_are_drawn_from_a_doubling_range() {
    let down = failure(ErrorKind::Unavailable, Fault::Upstream, Retry::Backoff);
    assert_eq!(attempts(down, None).await, (vec![0, 250, 750, 1750], vec![500, 1000, 2000]));
}

#[tokio::test(start_paused = true)]
async fn what_the_upstream_asks_for_is_waited_exactly_unless_it_is_long() {
    let limited = |seconds| {
        failure(ErrorKind::RateLimited, Fault::Upstream, Retry::After(Duration::from_secs(seconds)))
    };
    assert_eq!(attempts(limited(7), None).await, (vec![0, 7000, 14_000, 21_000], vec![]));
    assert_eq!(attempts(limited(31), None).await.0, [0], "that is the caller's to wait");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_tried_after_the_deadline() {
    let down = failure(ErrorKind::Unavailable, Fault::Upstream, Retry::Backoff);
    assert_eq!(attempts(down, Some(Duration::from_millis(700))).await.0, [0, 250]);
}

#[tokio::test(start_paused = true)]
async fn mistakes_and_open_breakers_are_not_tried_again() {
    for error in [
        failure(ErrorKind::InvalidRequest, Fault::Caller, Retry::Backoff),
        failure(ErrorKind::UpstreamAuth, Fault::Us, Retry::Never),
        failure(ErrorKind::BreakerOpen, Fault::Us, Retry::After(Duration::from_secs(1))),
    ] {
        assert_eq!(attempts(error.clone(), None).await.0, [0], "{error:?}");
    }
}
