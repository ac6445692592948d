//! Rates in a real Redis: one budget for two limiters, exact waits, and everything passes while Redis is away.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use embeddery_accounts::{
    Limiter, UserId,
    limit::{Limited, Measure, Payer, Rate, Rates},
};
use embeddery_test_support::redis::Redis;

fn limiter(redis: &Redis, rate: Option<Rate>) -> Limiter {
    let rates = Rates { requests: rate, tokens: rate, failures: None };
    Limiter::shared(rates, &redis.url().into(), "{test}").unwrap()
}

fn ann() -> Payer {
    Payer::user(&UserId::new("ann"))
}

#[tokio::test]
async fn two_limiters_share_one_budget() {
    let redis = Redis::start().unwrap();
    let rate = Rate::per_second(0.001, 10);
    let (here, there) = (limiter(&redis, rate), limiter(&redis, rate));
    for n in 0..10 {
        let limiter = if n % 2 == 0 { &here } else { &there };
        let standing = limiter.take(Measure::Requests, &ann(), 1).await.unwrap().unwrap();
        assert_eq!((standing.limit, standing.remaining), (10, 9 - n));
    }
    for limiter in [&here, &there] {
        let Err(Limited::Wait { wait, standing }) = limiter.take(Measure::Requests, &ann(), 1).await else {
            panic!("an eleventh passed")
        };
        assert!(wait <= Duration::from_secs(1000) && wait > Duration::from_secs(900), "{wait:?}");
        assert_eq!((standing.remaining, standing.reset.as_secs().div_ceil(1000)), (0, 10));
        assert_eq!(limiter.look(Measure::Requests, &ann()).await.unwrap().remaining, 0);
    }
    let bob = Payer::user(&UserId::new("bob"));
    assert!(here.take(Measure::Requests, &bob, 1).await.unwrap().is_some(), "bob has his own budget");
    assert_eq!(here.take(Measure::Tokens, &ann(), 10).await.unwrap().unwrap().remaining, 0);
    assert_eq!(here.take(Measure::Tokens, &ann(), 11).await, Err(Limited::TooMuch { limit: 10 }));
}

#[tokio::test]
async fn it_passes_again_after_exactly_the_wait_that_was_told() {
    let redis = Redis::start().unwrap();
    let limiter = limiter(&redis, Rate::per_second(20.0, 1));
    limiter.take(Measure::Requests, &ann(), 1).await.unwrap();
    let Err(Limited::Wait { wait, .. }) = limiter.take(Measure::Requests, &ann(), 1).await else {
        panic!("passed")
    };
    // Never later than told. That it is not earlier, the wait itself shows: it was refused.
    tokio::time::sleep(wait).await;
    assert!(limiter.take(Measure::Requests, &ann(), 1).await.unwrap().is_some());
}

#[tokio::test]
async fn without_redis_everything_passes_and_limits_hold_again_after_it() {
    let mut redis = Redis::start().unwrap();
    let limiter = limiter(&redis, Rate::per_second(0.001, 1));
    assert!(limiter.take(Measure::Requests, &ann(), 1).await.unwrap().is_some());
    assert!(limiter.take(Measure::Requests, &ann(), 1).await.is_err());
    redis.kill().unwrap();
    for _ in 0..20 {
        assert_eq!(limiter.take(Measure::Requests, &ann(), 1).await, Ok(None));
    }
    redis.restart().unwrap();
    // The limiter finds it by itself; how soon is its own affair.
    tokio::time::timeout(Duration::from_secs(60), async {
        while limiter.take(Measure::Requests, &ann(), 1).await == Ok(None) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_limiter_can_be_made_while_redis_is_away_and_a_bad_url_cannot() {
    let mut redis = Redis::start().unwrap();
    redis.kill().unwrap();
    let limiter = limiter(&redis, Rate::per_second(1.0, 1));
    assert_eq!(limiter.take(Measure::Requests, &ann(), 1).await, Ok(None));
    let refused = Limiter::shared(Rates::default(), &"nonsense:secret".to_owned().into(), "p").err().unwrap();
    assert!(refused.contains("is not a Redis URL") && !refused.contains("secret"), "{refused}");
}
