//! Tests of the ledger: no usage is lost or counted twice, and reservations of dead processes are released.

use super::*;

fn ledger(path: &Path, tokens_per_day: Option<u64>) -> Ledger {
    Ledger::open(LedgerConfig {
        path: path.into(),
        quotas: Quotas { tokens_per_day, stored_vectors: Some(10), concurrent_jobs: None },
        retention_days: 400,
        prices: Arc::new(|provider, _: &str| (provider == ProviderKind::OpenAi).then_some(0.02)),
    })
    .unwrap()
}

fn usage(tokens: u64) -> UsageRecord {
    UsageRecord {
        provider: ProviderKind::OpenAi,
        model: "small".into(),
        texts: 2,
        cached_texts: 1,
        tokens,
        billed_tokens: tokens / 2,
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn tokens_are_reserved_then_settled_and_returned_on_drop() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir.path().join("u"), Some(100));
    let ann = UserId::new("ann");
    let first = ledger.reserve(&ann, 60, MINUTE).await.unwrap();
    let Err(QuotaExceeded::Tokens { limit: 100, used: 60, wait }) = ledger.reserve(&ann, 50, MINUTE).await
    else {
        panic!("more tokens than the quota were reserved")
    };
    assert!(wait <= Duration::from_secs(86_400));
    assert!(
        ledger.reserve(&UserId::new("bob"), 50, MINUTE).await.is_ok(),
        "each user has a quota of their own"
    );
    drop(first);
    let second = ledger.reserve(&ann, 90, MINUTE).await.unwrap();
    second.settle(usage(40)).await;
    let used = ledger.used(&ann).await.unwrap();
    assert_eq!((used.tokens_today, used.tokens_reserved), (40, 0));
}

#[tokio::test]
async fn usage_is_persistent_and_adds_up_with_its_cost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("u");
    let ann = UserId::new("ann");
    for _ in 0..2 {
        let ledger = ledger(&path, None);
        ledger.reserve(&ann, 1, MINUTE).await.unwrap().settle(usage(1000)).await;
    }
    let ledger = ledger(&path, None);
    let rows =
        ledger.report(UsageFilter { user: Some(ann), limit: 10, ..UsageFilter::default() }).await.unwrap();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((row.requests, row.texts, row.cached_texts, row.tokens), (2, 4, 2, 2000));
    assert_eq!((row.billed_tokens, row.cost_nanodollars), (1000, 20_000), "1000 tokens at $0.02 a million");
    let other = UsageFilter { user: Some(UserId::new("bob")), limit: 10, ..UsageFilter::default() };
    assert_eq!(ledger.report(other).await.unwrap(), []);
    let old = UsageFilter { to: Some("2020-01-01".into()), limit: 10, ..UsageFilter::default() };
    assert_eq!(ledger.report(old).await.unwrap(), []);
}

#[tokio::test]
async fn two_ledgers_of_one_file_share_a_quota_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("u");
    let (here, there) = (ledger(&path, Some(50)), ledger(&path, Some(50)));
    let ann = UserId::new("ann");
    let mut passed = 0;
    for n in 0..80 {
        let ledger = if n % 2 == 0 { &here } else { &there };
        if let Ok(reservation) = ledger.reserve(&ann, 1, MINUTE).await {
            reservation.settle(usage(1)).await;
            passed += 1;
        }
    }
    assert_eq!(passed, 50);
}

#[tokio::test]
async fn the_reservation_of_a_dead_process_expires() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("u");
    let ledger = ledger(&path, Some(100));
    let ann = UserId::new("ann");
    // A killed process never drops its reservation, which then expires.
    let reservation = ledger.reserve(&ann, 100, MINUTE).await.unwrap();
    std::mem::forget(reservation);
    assert!(ledger.reserve(&ann, 1, MINUTE).await.is_err());
    file::open(&path).unwrap().execute("UPDATE reservation SET until = 1", []).unwrap();
    assert!(ledger.reserve(&ann, 1, MINUTE).await.is_ok());
}

#[tokio::test]
async fn counters_respect_their_limit_and_stay_at_zero_or_above() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir.path().join("u"), None);
    let ann = UserId::new("ann");
    let vectors = Counter::StoredVectors;
    ledger.acquire(&ann, vectors, 8).await.unwrap();
    let exceeded = QuotaExceeded::Counter { counter: vectors, limit: 10, used: 8 };
    assert_eq!(ledger.acquire(&ann, vectors, 3).await, Err(exceeded));
    ledger.acquire(&ann, vectors, 2).await.unwrap();
    ledger.release(&ann, vectors, 25).await;
    ledger.acquire(&ann, Counter::Jobs, 1_000_000).await.unwrap();
    let used = ledger.used(&ann).await.unwrap();
    assert_eq!((used.stored_vectors, used.jobs), (0, 1_000_000));
    ledger.forget(&ann).await;
    assert_eq!(ledger.used(&ann).await.unwrap(), UsageSnapshot::default());
}

#[test]
fn a_day_ends_at_midnight_in_utc() {
    let at = |text: &str| until_midnight(text.parse().unwrap()).as_secs();
    assert_eq!(at("2026-11-25T23:59:59Z"), 1);
    assert_eq!(at("2026-11-25T00:00:00Z"), 86_400);
    assert_eq!(day("2026-11-25T23:59:59Z".parse().unwrap()), "2026-11-25");
}

#[test]
fn usage_before_the_retention_period_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let db = file::open(&dir.path().join("u")).unwrap();
    let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
    for day in ["2026-11-25T12:00:00Z", "2026-11-15T12:00:00Z", "2026-11-14T12:00:00Z"] {
        let entry = token_quota::Settle {
            user: "ann".into(),
            reservation: None,
            usage: usage(1),
            cost_nanodollars: 0,
        };
        token_quota::settle(&db, &entry, day.parse().unwrap()).unwrap();
    }
    counters::sweep(&db, now, 10).unwrap();
    let days: i64 = db.query_row("SELECT count(*) FROM usage", [], |row| row.get(0)).unwrap();
    assert_eq!(days, 2);
}
