//! Who goes when, by what the provider says.

use std::{sync::Arc, time::Duration};

use embeddery_core::{
    Embedder, ErrorKind, Fault, Priority, ProviderKind, RateLimitInfo, RateListener as _, RateWindow, Retry,
};
use embeddery_gateway::{GovernorConfig, Governors, RateLimited};
use tokio::time::Instant;

use crate::mock_embedder::{Scripted, failure, request};

const SECOND: Duration = Duration::from_secs(1);

struct Governor {
    model: Arc<Scripted>,
    governed: Arc<RateLimited>,
    governors: Governors,
    began: Instant,
}

fn governor(concurrency: usize, mut model: Scripted, takes: Duration) -> Governor {
    model.takes = takes;
    let model = Arc::new(model);
    let governors = Governors::new(|_| GovernorConfig { concurrency, max_wait: 30 * SECOND });
    let governed = Arc::new(RateLimited::new(Arc::clone(&model) as Arc<dyn Embedder>, &governors));
    Governor { model, governed, governors, began: Instant::now() }
}

fn well() -> Scripted {
    Scripted::new(Default::default(), |_| Ok(()))
}

impl Governor {
    fn send(&self, text: &str, priority: Priority) -> tokio::task::JoinHandle<Result<(), ErrorKind>> {
        let (governed, request) = (Arc::clone(&self.governed), request(&[text.to_owned()], priority));
        tokio::spawn(async move { governed.embed(request).await.map(drop).map_err(|error| error.kind) })
    }

    fn observe(&self, requests: RateWindow, tokens: RateWindow) {
        self.governors.observe(ProviderKind::OpenAi, RateLimitInfo { requests, tokens });
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
async fn so_many_run_at_a_time_and_people_go_before_pipelines() {
    let governor = governor(1, well(), SECOND);
    let mut tasks = Vec::new();
    for (text, priority) in [
        ("first", Priority::Batch),
        ("batch 1", Priority::Batch),
        ("batch 2", Priority::Batch),
        ("person 1", Priority::Interactive),
        ("person 2", Priority::Interactive),
    ] {
        tasks.push(governor.send(text, priority));
        tokio::task::yield_now().await;
    }
    assert!(all(tasks).await.iter().all(Result::is_ok));
    assert_eq!(governor.model.firsts(), ["first", "person 1", "person 2", "batch 1", "batch 2"]);
    assert_eq!(governor.model.seconds(governor.began), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn one_who_leaves_the_line_keeps_nobody_waiting() {
    let governor = governor(1, well(), SECOND);
    let first = governor.send("first", Priority::Interactive);
    tokio::task::yield_now().await;
    let leaves = governor.send("leaves", Priority::Interactive);
    tokio::task::yield_now().await;
    let last = governor.send("last", Priority::Interactive);
    tokio::task::yield_now().await;
    leaves.abort();
    assert_eq!(all(vec![first, last]).await, [Ok(()), Ok(())]);
    assert_eq!(governor.model.firsts(), ["first", "last"]);
    // One who leaves while it runs gives its permit back.
    let running = governor.send("runs", Priority::Interactive);
    tokio::task::yield_now().await;
    running.abort();
    assert_eq!(governor.send("after", Priority::Interactive).await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_429_pauses_all_for_what_it_says() {
    let model = Scripted::new(Default::default(), |request| match request.inputs[0].text() {
        Some("limited") => {
            Err(failure(ErrorKind::RateLimited, Fault::Upstream, Retry::After(Duration::from_secs(20))))
        }
        _ => Ok(()),
    });
    let governor = governor(8, model, Duration::ZERO);
    assert_eq!(governor.send("limited", Priority::Interactive).await.unwrap(), Err(ErrorKind::RateLimited));
    let tasks = (0..3).map(|n| governor.send(&n.to_string(), Priority::Interactive)).collect();
    assert!(all(tasks).await.iter().all(Result::is_ok));
    assert_eq!(governor.model.seconds(governor.began), [0, 20, 20, 20]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_begins_while_others_wait_holds_them_too() {
    let model = Scripted::new(Default::default(), |request| match request.inputs[0].text() {
        Some("limited") => {
            Err(failure(ErrorKind::RateLimited, Fault::Upstream, Retry::After(Duration::from_secs(10))))
        }
        _ => Ok(()),
    });
    let governor = governor(1, model, SECOND);
    let limited = governor.send("limited", Priority::Interactive);
    tokio::task::yield_now().await;
    let waits = governor.send("waits", Priority::Interactive);
    assert_eq!(all(vec![limited, waits]).await, [Err(ErrorKind::RateLimited), Ok(())]);
    assert_eq!(governor.model.seconds(governor.began), [0, 11]);
}

#[tokio::test(start_paused = true)]
async fn pauses_without_a_length_double_and_an_answer_ends_that() {
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let model = Scripted::new(Default::default(), move |_| {
        match calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0..3 => Err(failure(ErrorKind::RateLimited, Fault::Upstream, Retry::Backoff)),
            _ => Ok(()),
        }
    });
    let governor = governor(1, model, Duration::ZERO);
    for _ in 0..5 {
        let _ = governor.send("x", Priority::Interactive).await.unwrap();
    }
    assert_eq!(governor.model.seconds(governor.began), [0, 1, 3, 7, 7]);
}

#[tokio::test(start_paused = true)]
async fn what_answers_say_is_left_is_not_overspent() {
    let governor = governor(8, well(), Duration::ZERO);
    governor.observe(window(2, 100, 15 * SECOND), RateWindow::default());
    let tasks = (0..4).map(|n| governor.send(&n.to_string(), Priority::Interactive)).collect();
    assert!(all(tasks).await.iter().all(Result::is_ok));
    assert_eq!(governor.model.seconds(governor.began), [0, 0, 15, 15]);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_counted_and_a_call_larger_than_a_window_is_not_held_for_ever() {
    let governor = governor(8, well(), Duration::ZERO);
    governor.observe(RateWindow::default(), window(10, 20, 5 * SECOND));
    let tasks =
        ["eight...", "eight...", &"x".repeat(50)].map(|text| governor.send(text, Priority::Interactive));
    assert!(all(tasks.into()).await.iter().all(Result::is_ok));
    assert_eq!(governor.model.seconds(governor.began), [0, 5, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_long_pause_is_told_and_not_waited() {
    let governor = governor(8, well(), Duration::ZERO);
    governor.observe(window(0, 100, 31 * SECOND), RateWindow::default());
    assert_eq!(governor.send("x", Priority::Interactive).await.unwrap(), Err(ErrorKind::RateLimited));
    assert!(governor.model.firsts().is_empty());
}
