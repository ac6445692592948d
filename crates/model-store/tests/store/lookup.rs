//! Lookup of models without the network, and names that are refused.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::{Fixture, NAME, WEIGHTS, at, fetch, files, store};
use embeddery_core::{ModelRef, ModelSource as _, SourceErrorKind};
use embeddery_model_store::{DiskLimits, ModelStore, StoreConfig, WeightsFormat};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A store over an empty base directory and an empty cache, without any network.
fn offline_store() -> (TempDir, ModelStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::new(config(dir.path())).unwrap();
    (dir, store)
}

fn config(dir: &Path) -> StoreConfig {
    StoreConfig {
        base_dir: dir.join("models"),
        hub_cache: Some(dir.join("hub")),
        endpoint: "https://hub.invalid".into(),
        token: None,
        offline: true,
        disk: DiskLimits::default(),
        format: WeightsFormat::default(),
    }
}

fn write_model(directory: &Path) {
    for (path, content) in files(1) {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// Writes a model to the cache in the layout of the Python programs: files in `blobs/`, links in a snapshot.
fn cache_model(dir: &Path, name: &str) -> PathBuf {
    let model = dir.join("hub").join(name);
    let snapshot = model.join("snapshots").join(COMMIT);
    write_model(&snapshot);
    fs::create_dir_all(model.join("blobs")).unwrap();
    fs::rename(snapshot.join(WEIGHTS), model.join("blobs/weights")).unwrap();
    std::os::unix::fs::symlink("../../blobs/weights", snapshot.join(WEIGHTS)).unwrap();
    fs::create_dir_all(model.join("refs")).unwrap();
    fs::write(model.join("refs/main"), COMMIT).unwrap();
    snapshot
}

#[test]
fn a_path_is_used_unchanged() {
    let (dir, store) = offline_store();
    let model = dir.path().join("anywhere");
    write_model(&model);
    let named = ModelRef::new(model.to_str().unwrap());
    assert_eq!(store.find(&named), Ok(Some(model.clone())));
    fs::remove_file(model.join("config.json")).unwrap();
    for (path, word) in
        [(model, "config.json"), (dir.path().join("absent"), "No such file"), ("./no".into(), "No such file")]
    {
        let error = store.find(&ModelRef::new(path.to_str().unwrap())).unwrap_err();
        assert!(error.kind == SourceErrorKind::InvalidName && error.message.contains(word), "{error}");
    }
}

#[test]
fn plain_files_in_the_base_directory_match_any_revision() {
    let (dir, store) = offline_store();
    for name in [NAME, "bare"] {
        let directory = dir.path().join("models").join(name);
        assert_eq!(store.find(&ModelRef::new(name)), Ok(None));
        write_model(&directory);
        assert_eq!(store.find(&ModelRef::new(name)), Ok(Some(directory)));
    }
    assert!(store.find(&at("v1")).unwrap().is_some());
    write_model(&dir.path().join("models/.incoming/org/other"));
    write_model(&dir.path().join("models/org/.hidden"));
    cache_model(dir.path(), "models--org--model");
    cache_model(dir.path(), "models--org--cached");
    cache_model(dir.path(), "models--old");
    cache_model(dir.path(), "datasets--org--data");
    assert_eq!(store.list(), ["bare", "old", "org/cached", "org/model"]);
}

#[test]
fn an_unreadable_sidecar_is_named() {
    let (dir, store) = offline_store();
    let directory = dir.path().join("models").join(NAME);
    write_model(&directory);
    for (sidecar, kind, word) in [
        (r#"{"schema":2}"#, SourceErrorKind::Io, "newer"),
        ("{", SourceErrorKind::Corrupt, "damaged"),
        (r#"{"schema":1}"#, SourceErrorKind::Corrupt, "damaged"),
    ] {
        fs::write(directory.join(".embeddery.json"), sidecar).unwrap();
        let error = store.find(&ModelRef::new(NAME)).unwrap_err();
        assert!(error.kind == kind && error.message.contains(word), "{error}");
        assert!(error.message.contains(".embeddery.json"), "{error}");
    }
}

#[test]
fn the_cache_is_read_by_branch_and_commit() {
    let (dir, store) = offline_store();
    let snapshot = Some(cache_model(dir.path(), "models--org--model"));
    let model = dir.path().join("hub/models--org--model");
    fs::create_dir_all(model.join("refs/refs/pr")).unwrap();
    fs::write(model.join("refs/refs/pr/1"), COMMIT).unwrap();
    assert_eq!(store.find(&ModelRef::new(NAME)), Ok(snapshot.clone()));
    for revision in ["main", "refs/pr/1", COMMIT] {
        assert_eq!(store.find(&at(revision)), Ok(snapshot.clone()), "{revision}");
    }
    assert_eq!(store.find(&at("v1")), Ok(None));
    fs::write(model.join("refs/main"), "../../../../etc").unwrap();
    assert_eq!(store.find(&ModelRef::new(NAME)), Ok(None));
}

#[test]
fn an_incomplete_snapshot_is_not_used() {
    for missing in [
        "config.json",
        "tokenizer.json",
        WEIGHTS,
        "1_Pooling/config.json",
        "modules.json",
        "../../blobs/weights",
    ] {
        let (dir, store) = offline_store();
        let snapshot = cache_model(dir.path(), "models--org--model");
        fs::remove_file(snapshot.join(missing)).unwrap();
        assert_eq!(store.find(&ModelRef::new(NAME)), Ok(None), "without {missing}");
        assert_eq!(store.list(), Vec::<String>::new());
    }
}

#[test]
fn a_snapshot_without_modules_is_used_if_the_repository_has_none() {
    let (dir, store) = offline_store();
    let snapshot = cache_model(dir.path(), "models--org--model");
    fs::remove_file(snapshot.join("modules.json")).unwrap();
    let no_exist = dir.path().join("hub/models--org--model/.no_exist").join(COMMIT);
    fs::create_dir_all(&no_exist).unwrap();
    fs::write(no_exist.join("modules.json"), "").unwrap();
    assert_eq!(store.find(&ModelRef::new(NAME)), Ok(Some(snapshot.clone())));
    fs::remove_dir_all(no_exist).unwrap();
    fs::write(snapshot.join(".gitattributes"), "").unwrap();
    assert_eq!(store.find(&ModelRef::new(NAME)), Ok(Some(snapshot)));
}

#[test]
fn names_that_would_leave_the_base_directory_are_refused() {
    let (_dir, store) = offline_store();
    for name in ["", "..", "a/../../b", "a\\b", "a/b/c", ".incoming/x", "a\0b", "/a\0b", "~/x"] {
        assert_eq!(
            store.find(&ModelRef::new(name)).unwrap_err().kind,
            SourceErrorKind::InvalidName,
            "{name:?}"
        );
    }
    assert_eq!(store.find(&at("../../x")).unwrap_err().kind, SourceErrorKind::InvalidName);
}

#[tokio::test]
async fn an_unusable_base_directory_is_named_with_the_fix() {
    let fixture = Fixture::new().await;
    let file = fixture.dir.path().join("file");
    fs::write(&file, "").unwrap();
    let mut config = fixture.config();
    config.base_dir = file.clone();
    let error = ModelStore::new(config.clone()).unwrap_err();
    assert!(error.kind == SourceErrorKind::Io && error.message.contains(file.to_str().unwrap()), "{error}");

    config.base_dir = file.join("below");
    let error = fetch(&store(config), NAME).await.unwrap_err();
    assert!(
        error.kind == SourceErrorKind::Io && error.message.contains("EMBEDDINGS_MODEL_STORAGE_DIR"),
        "{error}"
    );
    assert!(fixture.hub.requests().is_empty(), "the disk is checked first");
}
