//! Errors of the hub about access, and the hosts that receive the token.

use crate::support::{Fixture, NAME, WEIGHTS, at, fetch, files, store};
use embeddery_core::{ModelRef, ModelSource as _, Progress, SourceError, SourceErrorKind};
use embeddery_model_store::ModelStore;
use embeddery_test_support::hub::Hub;
use secrecy::SecretString;

const TOKEN: &str = "hf_right";

fn with_token(fixture: &Fixture, token: &str) -> ModelStore {
    let mut config = fixture.config();
    config.token = Some(SecretString::from(token.to_owned()));
    store(config)
}

fn assert_error(error: &SourceError, kind: SourceErrorKind, words: &[&str]) {
    assert_eq!(error.kind, kind, "{error}");
    for word in words {
        assert!(error.message.contains(word), "{word} is not in: {error}");
    }
}

#[tokio::test]
async fn a_missing_model_or_revision_is_named() {
    let fixture = Fixture::new().await;
    let error = fetch(&fixture.store(), "no-org/no-model").await.unwrap_err();
    assert_error(
        &error,
        SourceErrorKind::NotFound,
        &["no-org/no-model", "does not exist", "private", "HF_TOKEN"],
    );
    let error = fixture.store().fetch(&at("v9"), &Progress::default()).await.unwrap_err();
    assert_error(&error, SourceErrorKind::NotFound, &[NAME, "v9"]);
    assert_eq!(fixture.hub.requests().len(), 2, "a final error is not retried");
}

#[tokio::test]
async fn a_private_hub_requires_the_right_token() {
    let fixture = Fixture::new().await;
    fixture.hub.require_token(TOKEN);
    let error = fixture.fetch().await.unwrap_err();
    assert_error(&error, SourceErrorKind::Unauthorized, &[NAME, "set HF_TOKEN", "none is set"]);
    let error = fetch(&with_token(&fixture, "hf_wrong"), NAME).await.unwrap_err();
    assert_error(&error, SourceErrorKind::Unauthorized, &[NAME, "HF_TOKEN", "not valid"]);
    assert!(!error.message.contains("hf_wrong"));
    let error = fetch(&with_token(&fixture, "hf_\nwrong"), NAME).await.unwrap_err();
    assert_error(&error, SourceErrorKind::Unauthorized, &["HF_TOKEN"]);
    fetch(&with_token(&fixture, TOKEN), NAME).await.unwrap();
    fixture.assert_complete(1);
}

#[tokio::test]
async fn the_token_is_sent_to_the_hub_only() {
    let fixture = Fixture::new().await;
    fixture.hub.require_token(TOKEN);
    let store = with_token(&fixture, TOKEN);
    fetch(&store, NAME).await.unwrap();
    let requests = fixture.hub.requests();
    let (storage, hub): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.storage);
    assert!(hub.iter().all(|request| request.authorization.as_deref() == Some("Bearer hf_right")));
    assert!(storage.iter().any(|request| request.path == WEIGHTS));
    assert!(storage.iter().all(|request| request.authorization.is_none()));
    assert!(!format!("{store:?}").contains(TOKEN));
}

#[tokio::test]
async fn a_gated_model_asks_to_accept_its_conditions() {
    let fixture = Fixture::new().await;
    fixture.hub.set_gated(NAME);
    let error = fixture.fetch().await.unwrap_err();
    assert_error(&error, SourceErrorKind::Unauthorized, &[NAME, "gated", "accept", "none is set"]);
    let error = fetch(&with_token(&fixture, TOKEN), NAME).await.unwrap_err();
    assert_error(
        &error,
        SourceErrorKind::Unauthorized,
        &[NAME, "gated", "accept", "whose account has access"],
    );
}

#[tokio::test]
async fn offline_sends_no_request_and_names_the_searched_directories() {
    let fixture = Fixture::new().await;
    let mut config = fixture.config();
    config.offline = true;
    let error = fetch(&store(config.clone()), NAME).await.unwrap_err();
    let base = fixture.base().join(NAME).display().to_string();
    assert_error(&error, SourceErrorKind::Offline, &[NAME, &base, "models--org--model", "HF_HUB_OFFLINE"]);
    assert!(fixture.hub.requests().is_empty());

    fixture.fetch().await.unwrap();
    let found = store(config).fetch(&ModelRef::new(NAME), &Progress::default()).await;
    assert_eq!(found, Ok(fixture.base().join(NAME)), "a complete model needs no network");
}

#[tokio::test]
async fn a_mirror_replaces_the_hub() {
    let fixture = Fixture::new().await;
    let other = Hub::start().await;
    other.publish(NAME, "main", files(2));
    let mut config = fixture.config();
    config.endpoint = format!("{}/", other.url());
    fetch(&store(config), NAME).await.unwrap();
    fixture.assert_complete(2);
}
