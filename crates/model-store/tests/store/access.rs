//! What a caller is told when the hub refuses, and where the token goes.

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

fn assert_says(error: &SourceError, kind: SourceErrorKind, words: &[&str]) {
    assert_eq!(error.kind, kind, "{error}");
    for word in words {
        assert!(error.message.contains(word), "{word} is not in: {error}");
    }
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let fixture = Fixture::new().await;
    let error = fetch(&fixture.store(), "nobody/nothing").await.unwrap_err();
    assert_says(
        &error,
        SourceErrorKind::NotFound,
        &["nobody/nothing", "does not exist", "private", "HF_TOKEN"],
    );
    let error = fixture.store().fetch(&at("v9"), &Progress::default()).await.unwrap_err();
    assert_says(&error, SourceErrorKind::NotFound, &[NAME, "v9"]);
    assert_eq!(fixture.hub.requests().len(), 2, "a refusal is not asked for again");
}

#[tokio::test]
async fn a_private_hub_wants_the_right_token() {
    let fixture = Fixture::new().await;
    fixture.hub.require_token(TOKEN);
    let error = fixture.fetch().await.unwrap_err();
    assert_says(&error, SourceErrorKind::Unauthorized, &[NAME, "set HF_TOKEN", "none is set"]);
    let error = fetch(&with_token(&fixture, "hf_wrong"), NAME).await.unwrap_err();
    assert_says(&error, SourceErrorKind::Unauthorized, &[NAME, "HF_TOKEN", "not valid"]);
    assert!(!error.message.contains("hf_wrong"));
    let error = fetch(&with_token(&fixture, "hf_\nwrong"), NAME).await.unwrap_err();
    assert_says(&error, SourceErrorKind::Unauthorized, &["HF_TOKEN"]);
    fetch(&with_token(&fixture, TOKEN), NAME).await.unwrap();
    fixture.assert_whole(1);
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_nowhere_else() {
    let fixture = Fixture::new().await;
    fixture.hub.require_token(TOKEN);
    let store = with_token(&fixture, TOKEN);
    fetch(&store, NAME).await.unwrap();
    let requests = fixture.hub.requests();
    let (storage, hub): (Vec<_>, Vec<_>) = requests.iter().partition(|seen| seen.storage);
    assert!(hub.iter().all(|seen| seen.authorization.as_deref() == Some("Bearer hf_right")));
    assert!(storage.iter().any(|seen| seen.path == WEIGHTS));
    assert!(storage.iter().all(|seen| seen.authorization.is_none()));
    assert!(!format!("{store:?}").contains(TOKEN));
}

#[tokio::test]
async fn a_gated_model_wants_its_conditions_accepted() {
    let fixture = Fixture::new().await;
    fixture.hub.gate(NAME);
    let error = fixture.fetch().await.unwrap_err();
    assert_says(&error, SourceErrorKind::Unauthorized, &[NAME, "gated", "accept", "none is set"]);
    let error = fetch(&with_token(&fixture, TOKEN), NAME).await.unwrap_err();
    assert_says(
        &error,
        SourceErrorKind::Unauthorized,
        &[NAME, "gated", "accept", "whose account has access"],
    );
}

#[tokio::test]
async fn offline_asks_nobody_and_says_where_it_looked() {
    let fixture = Fixture::new().await;
    let mut config = fixture.config();
    config.offline = true;
    let error = fetch(&store(config.clone()), NAME).await.unwrap_err();
    let base = fixture.base().join(NAME).display().to_string();
    assert_says(&error, SourceErrorKind::Offline, &[NAME, &base, "models--org--model", "HF_HUB_OFFLINE"]);
    assert!(fixture.hub.requests().is_empty());

    fixture.fetch().await.unwrap();
    let here = store(config).fetch(&ModelRef::new(NAME), &Progress::default()).await;
    assert_eq!(here, Ok(fixture.base().join(NAME)), "what is here needs no network");
}

#[tokio::test]
async fn a_mirror_takes_the_hub_s_place() {
    let fixture = Fixture::new().await;
    let other = Hub::start().await;
    other.publish(NAME, "main", files(2));
    let mut config = fixture.config();
    config.endpoint = format!("{}/", other.url());
    fetch(&store(config), NAME).await.unwrap();
    fixture.assert_whole(2);
}
