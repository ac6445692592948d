//! Faults of the connection and the hub: a model is complete and verified, or an error names the problem.

use std::{fs, net::TcpListener};

use crate::support::{Fixture, NAME, WEIGHTS, WEIGHTS_LEN, fetch, files, store};
use embeddery_core::{ModelRef, ModelSource as _, Progress, SourceErrorKind};
use embeddery_model_store::DiskLimits;
use embeddery_test_support::hub::{Fault, LISTING};

/// Downloads with these faults in requests for the weights, and expects the complete model.
async fn survives(faults: &[Fault]) -> Fixture {
    let fixture = Fixture::new().await;
    for fault in faults {
        fixture.hub.inject_fault(WEIGHTS, *fault);
    }
    let progress = Progress::default();
    fixture.store().fetch(&ModelRef::new(NAME), &progress).await.unwrap();
    fixture.assert_complete(1);
    let (done, total) = progress.bytes();
    assert_eq!(done, total);
    fixture
}

#[tokio::test]
async fn a_broken_transfer_is_resumed() {
    let fixture = survives(&[Fault::DisconnectAfter(100_000), Fault::DisconnectAfter(50_000)]).await;
    let resumed = ["bytes=100000-", "bytes=150000-"].map(|range| Some(range.to_owned()));
    assert_eq!(fixture.weight_ranges(), [None, resumed[0].clone(), resumed[1].clone()]);
    assert_eq!(fixture.hub.bytes_sent(WEIGHTS), WEIGHTS_LEN, "no byte was sent twice");
}

#[tokio::test]
async fn progress_resets_the_retries() {
    survives(&[Fault::DisconnectAfter(10_000); 20]).await;
}

#[tokio::test]
async fn a_server_that_ignores_range_causes_a_restart() {
    let fixture = survives(&[Fault::DisconnectAfter(100_000), Fault::IgnoreRange]).await;
    assert_eq!(fixture.hub.bytes_sent(WEIGHTS), 100_000 + WEIGHTS_LEN);
}

#[tokio::test]
async fn a_server_that_refuses_range_causes_a_restart() {
    let fixture = survives(&[Fault::DisconnectAfter(100_000), Fault::RefuseRange]).await;
    assert_eq!(fixture.weight_ranges(), [None, Some("bytes=100000-".into()), None]);
    survives(&[Fault::DisconnectAfter(100_000), Fault::RefuseRange, Fault::WrongBytes]).await;
}

#[tokio::test]
async fn a_transfer_without_progress_fails_after_all_retries() {
    let fixture = Fixture::new().await;
    for _ in 0..20 {
        fixture.hub.inject_fault(WEIGHTS, Fault::DisconnectAfter(0));
    }
    let error = fixture.fetch().await.unwrap_err();
    assert!(error.kind == SourceErrorKind::Unreachable && error.message.contains("tried 6 times"), "{error}");
    assert_eq!(fixture.hub.requests_for(WEIGHTS), 6);
}

#[tokio::test]
async fn requests_to_busy_servers_are_retried() {
    let busy = [Fault::Status(503, None), Fault::Status(429, Some(0)), Fault::Status(500, None)];
    survives(&busy).await;
    let fixture = Fixture::new().await;
    for fault in busy {
        fixture.hub.inject_fault(LISTING, fault);
        fixture.hub.inject_fault("config.json", fault);
    }
    fixture.fetch().await.unwrap();
    assert_eq!(fixture.hub.requests_for(LISTING), 4);
}

#[tokio::test]
async fn an_expired_signed_url_is_requested_from_the_hub_again() {
    let fixture = survives(&[Fault::DisconnectAfter(100_000), Fault::Status(403, None)]).await;
    assert_eq!(fixture.hub.requests_for(WEIGHTS), 3);
}

#[tokio::test]
async fn a_long_retry_after_is_an_error_that_names_it() {
    let fixture = Fixture::new().await;
    fixture.hub.inject_fault(LISTING, Fault::Status(429, Some(3600)));
    let error = fixture.fetch().await.unwrap_err();
    assert!(error.kind == SourceErrorKind::Unreachable && error.message.contains("3600 s"), "{error}");
}

#[tokio::test]
async fn damaged_content_is_downloaded_once_more_and_then_an_error() {
    survives(&[Fault::WrongBytes]).await;
    survives(&[Fault::Shorter]).await;
    for (path, fault, words) in [
        (WEIGHTS, Fault::WrongBytes, "expected sha256"),
        ("tokenizer.json", Fault::WrongBytes, "expected git blob"),
        (WEIGHTS, Fault::Shorter, "expected 300000 bytes, found 150000"),
    ] {
        let fixture = Fixture::new().await;
        fixture.hub.inject_fault(path, fault);
        fixture.hub.inject_fault(path, fault);
        let error = fixture.fetch().await.unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::Corrupt, "{error}");
        for word in [path, NAME, words, "found"] {
            assert!(error.message.contains(word), "{word} is not in: {error}");
        }
        assert_eq!(fixture.hub.requests_for(path), 2);
        assert!(!fixture.base().join(NAME).exists());
        fixture.fetch().await.unwrap();
        fixture.assert_complete(1);
    }
}

#[tokio::test]
async fn a_body_longer_than_announced_is_not_read_to_its_end() {
    let fixture = Fixture::new().await;
    fixture.hub.inject_fault(WEIGHTS, Fault::Longer);
    fixture.hub.inject_fault(WEIGHTS, Fault::Longer);
    let error = fixture.fetch().await.unwrap_err();
    assert!(
        error.kind == SourceErrorKind::Corrupt && error.message.contains("expected 300000 bytes"),
        "{error}"
    );
    assert!(!error.message.contains("found 3000000"), "{error}");
}

#[tokio::test]
async fn a_damaged_part_of_an_earlier_attempt_is_replaced() {
    let fixture = Fixture::new().await;
    let commit = fixture.hub.publish(NAME, "main", files(1));
    let staging = fixture.base().join(format!(".incoming/{NAME}@{commit}"));
    for len in [1000, WEIGHTS_LEN, WEIGHTS_LEN + 1] {
        fs::create_dir_all(&staging).unwrap();
        fs::write(staging.join(format!("{WEIGHTS}.part")), vec![0; len]).unwrap();
        fixture.fetch().await.unwrap();
        fixture.assert_complete(1);
        fs::remove_dir_all(fixture.base().join(NAME)).unwrap();
    }
}

#[tokio::test]
async fn a_mirror_may_announce_names_only() {
    let fixture = Fixture::new().await;
    let commit = fixture.hub.publish(NAME, "main", files(1));
    let siblings: Vec<String> =
        files(1).iter().map(|(path, _)| format!(r#"{{"rfilename":"{path}"}}"#)).collect();
    fixture.hub.set_listing(NAME, format!(r#"{{"sha":"{commit}","siblings":[{}]}}"#, siblings.join(",")));
    fixture.hub.inject_fault(WEIGHTS, Fault::DisconnectAfter(1000));
    fixture.fetch().await.unwrap();
    fixture.assert_complete(1);
}

#[tokio::test]
async fn an_invalid_listing_is_refused() {
    let fixture = Fixture::new().await;
    let commit = "0".repeat(40);
    let long = " ".repeat(17 << 20);
    let traversal = format!(r#"{{"sha":"{commit}","siblings":[{{"rfilename":"../../evil/config.json"}}]}}"#);
    for (listing, kind, words) in [
        ("<html>Log in to the hotel's network</html>", SourceErrorKind::Unreachable, "not a listing"),
        ("{}", SourceErrorKind::Unreachable, "not a listing"),
        (&long, SourceErrorKind::Unreachable, "16 MiB"),
        (r#"{"sha":"../..","siblings":[]}"#, SourceErrorKind::Corrupt, "not a commit"),
        (&traversal, SourceErrorKind::Corrupt, "leaves the model's directory"),
    ] {
        fixture.hub.set_listing(NAME, listing);
        let error = fixture.fetch().await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(NAME) && error.message.contains(words), "{error}");
    }
}

#[tokio::test]
async fn an_unreachable_hub_is_named_with_the_alternatives() {
    let fixture = Fixture::new().await;
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = fixture.config();
    config.endpoint = format!("http://{closed}");
    let error = fetch(&store(config), NAME).await.unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Unreachable);
    let directory = fixture.base().join(NAME).display().to_string();
    for word in [&closed.to_string(), "HF_ENDPOINT", "HF_HUB_OFFLINE", &directory] {
        assert!(error.message.contains(word), "{word} is not in: {error}");
    }
}

#[tokio::test]
async fn disk_limits_are_checked_before_the_weights_are_downloaded() {
    let fixture = Fixture::new().await;
    let refused = async |disk: DiskLimits| {
        let config = embeddery_model_store::StoreConfig { disk, ..fixture.config() };
        let error = fetch(&store(config), NAME).await.unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::Io);
        error.message
    };
    let message = refused(DiskLimits { min_free_bytes: 1 << 60, max_bytes: None }).await;
    assert!(message.contains("hub.min_free_bytes"), "{message}");
    let message = refused(DiskLimits { min_free_bytes: 0, max_bytes: Some(WEIGHTS_LEN as u64) }).await;
    assert!(message.contains("hub.max_bytes"), "{message}");
    assert_eq!(fixture.hub.bytes_sent(WEIGHTS), 0);
    let enough = DiskLimits { min_free_bytes: 0, max_bytes: Some(2 * WEIGHTS_LEN as u64) };
    let config = embeddery_model_store::StoreConfig { disk: enough, ..fixture.config() };
    fetch(&store(config), NAME).await.unwrap();
    // Models on disk count: a second model of the same size does not fit.
    fixture.hub.publish("org/second", "main", files(2));
    let config = embeddery_model_store::StoreConfig { disk: enough, ..fixture.config() };
    let error = fetch(&store(config), "org/second").await.unwrap_err();
    assert!(error.message.contains("hub.max_bytes"), "{error}");
}
