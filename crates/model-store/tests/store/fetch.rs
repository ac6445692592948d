//! Downloads: complete, once, and in the requested revision.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use crate::support::{Fixture, IGNORED, NAME, WEIGHTS, WEIGHTS_LEN, at, fetch, files, store};
use embeddery_core::{ModelRef, ModelSource as _, Progress, SourceErrorKind};
use embeddery_model_store::StoreConfig;
use embeddery_test_support::hub::{Fault, Hub, LISTING};

#[tokio::test]
async fn all_needed_files_are_downloaded_and_no_others() {
    let fixture = Fixture::new().await;
    let (store, model, progress) = (fixture.store(), ModelRef::new(NAME), Progress::default());
    assert_eq!(store.find(&model), Ok(None));
    assert_eq!(store.list(), Vec::<String>::new());

    let directory = store.fetch(&model, &progress).await.unwrap();
    assert_eq!(directory, fixture.base().join(NAME));
    fixture.assert_complete(1);
    for path in IGNORED {
        assert!(!directory.join(path).exists() && fixture.hub.requests_for(path) == 0, "{path} was fetched");
    }
    let expected: usize =
        files(1).iter().filter(|(path, _)| !IGNORED.contains(path)).map(|(_, content)| content.len()).sum();
    assert_eq!(progress.bytes(), (expected as u64, expected as u64));
    let sidecar = fs::read_to_string(directory.join(".embeddery.json")).unwrap();
    assert!(
        sidecar.contains("\"revision\": \"main\"")
            && sidecar.contains("sha256")
            && sidecar.contains("git_blob")
    );

    assert_eq!(store.find(&model), Ok(Some(directory.clone())));
    assert_eq!(store.list(), [NAME]);
    let requests = fixture.hub.requests().len();
    assert_eq!(fixture.fetch().await, Ok(directory));
    assert_eq!(fixture.hub.requests().len(), requests, "a complete model causes no request");
}

#[tokio::test]
async fn names_without_an_organisation_and_sharded_weights_work() {
    let fixture = Fixture::new().await;
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let index = format!(r#"{{"weight_map":{{"a":"{}","b":"{}"}}}}"#, shards[0], shards[1]);
    let mut content = files(1);
    content.retain(|(path, _)| *path != WEIGHTS);
    content.extend([
        ("model.safetensors.index.json", index.into_bytes()),
        (shards[0], vec![1]),
        (shards[1], vec![2]),
    ]);
    fixture.hub.publish("bert", "main", content.clone());
    let directory = fetch(&fixture.store(), "bert").await.unwrap();
    assert_eq!(directory, fixture.base().join("bert"));
    assert_eq!(fs::read(directory.join(shards[1])).unwrap(), [2]);

    content.retain(|(path, _)| *path != shards[1]);
    fixture.hub.publish("incomplete", "main", content);
    let error = fetch(&fixture.store(), "incomplete").await.unwrap_err();
    assert!(error.kind == SourceErrorKind::Corrupt && error.message.contains(shards[1]), "{error}");
    assert_eq!(fixture.store().list(), ["bert"]);
}

#[tokio::test]
async fn a_repository_that_is_not_an_encoder_is_refused_before_any_download() {
    let fixture = Fixture::new().await;
    for missing in ["config.json", "tokenizer.json", WEIGHTS] {
        fixture.hub.publish(NAME, "main", files(1).into_iter().filter(|(path, _)| *path != missing));
        let error = fixture.fetch().await.unwrap_err();
        assert!(error.kind == SourceErrorKind::NotFound, "{error}");
        assert!(error.message.contains(NAME) && error.message.contains(missing), "{error}");
    }
    assert!(fixture.hub.requests().iter().all(|request| request.path == LISTING));
}

#[tokio::test]
async fn two_stores_download_once() {
    let fixture = Arc::new(Fixture::new().await);
    let gate = fixture.hub.hold(WEIGHTS);
    let tasks: Vec<_> = (0..2)
        .map(|_| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { fixture.fetch().await })
        })
        .collect();
    gate.arrived().await;
    gate.release();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(fixture.base().join(NAME)));
    }
    assert_eq!(fixture.hub.requests_for(WEIGHTS), 1);
    assert_eq!(fixture.hub.requests_for(LISTING), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_leaves_its_bytes_to_the_next_process() {
    let fixture = Fixture::new().await;
    fixture.hub.inject_fault(WEIGHTS, Fault::StallAfter(100_000));
    let part = staging(&fixture).join(format!("{WEIGHTS}.part"));
    let params = format!("{}\n{}", fixture.hub.url(), fixture.base().display());
    fs::write(fixture.dir.path().join("params.txt"), params).unwrap();
    let mut child = spawn_fetch(&fixture);
    wait_until(|| fs::metadata(&part).is_ok_and(|part| part.len() == 100_000)).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!fixture.base().join(NAME).exists(), "an incomplete model is not published");

    let children = [spawn_fetch(&fixture), spawn_fetch(&fixture)];
    for child in children {
        let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    fixture.assert_complete(1);
    assert_eq!(fixture.weight_ranges(), [None, Some("bytes=100000-".into())]);
    assert_eq!(fixture.hub.bytes_sent(WEIGHTS), WEIGHTS_LEN);
}

#[tokio::test]
async fn a_cancelled_download_leaves_its_bytes_to_the_next() {
    let fixture = Fixture::new().await;
    fixture.hub.inject_fault(WEIGHTS, Fault::StallAfter(100_000));
    let (store, model, progress) = (fixture.store(), ModelRef::new(NAME), Progress::default());
    let small = total_of_small_files();
    tokio::select! {
        result = store.fetch(&model, &progress) => panic!("the hub stalls, but {result:?}"),
        () = wait_until(|| progress.bytes().0 >= small + 100_000) => {}
    }
    assert_eq!(store.find(&model), Ok(None));
    fixture.fetch().await.unwrap();
    fixture.assert_complete(1);
    assert_eq!(fixture.weight_ranges(), [None, Some("bytes=100000-".into())]);
    for (path, _) in files(1).iter().filter(|(path, _)| !IGNORED.contains(path) && *path != WEIGHTS) {
        assert_eq!(fixture.hub.requests_for(path), 1, "{path}");
    }
}

#[tokio::test]
async fn another_revision_replaces_the_directory_as_a_whole() {
    let fixture = Fixture::new().await;
    let commit = fixture.hub.publish(NAME, "refs/pr/1", files(2));
    let (store, progress) = (fixture.store(), Progress::default());
    store.fetch(&at("refs/pr/1"), &progress).await.unwrap();
    fixture.assert_complete(2);
    let found = Some(fixture.base().join(NAME));
    assert_eq!(store.find(&at("refs/pr/1")), Ok(found.clone()));
    assert_eq!(store.find(&at(&commit)), Ok(found.clone()), "the commit that the revision named");
    assert_eq!(store.find(&ModelRef::new(NAME)), Ok(found), "any revision matches if none is requested");
    assert_eq!(store.find(&at("main")), Ok(None));

    fixture.hub.inject_fault(WEIGHTS, Fault::WrongBytes);
    fixture.hub.inject_fault(WEIGHTS, Fault::WrongBytes);
    assert_eq!(store.fetch(&at("main"), &progress).await.unwrap_err().kind, SourceErrorKind::Corrupt);
    fixture.assert_complete(2);
    store.fetch(&at("main"), &progress).await.unwrap();
    fixture.assert_complete(1);
    assert_eq!(staging_directories(&fixture), Vec::<String>::new());
}

#[tokio::test]
async fn a_branch_that_moves_during_a_download_is_not_mixed() {
    let fixture = Arc::new(Fixture::new().await);
    let gate = fixture.hub.hold(WEIGHTS);
    let fetching = tokio::spawn({
        let fixture = Arc::clone(&fixture);
        async move { fixture.fetch().await }
    });
    gate.arrived().await;
    fixture.hub.publish(NAME, "main", files(2));
    gate.release();
    fetching.await.unwrap().unwrap();
    fixture.assert_complete(1);
}

#[tokio::test]
async fn the_staging_directory_of_an_older_commit_is_removed() {
    let fixture = Fixture::new().await;
    for _ in 0..2 {
        fixture.hub.inject_fault(WEIGHTS, Fault::WrongBytes);
    }
    fixture.fetch().await.unwrap_err();
    assert_eq!(staging_directories(&fixture).len(), 1);
    fixture.hub.publish(NAME, "main", files(2));
    fixture.fetch().await.unwrap();
    fixture.assert_complete(2);
    assert_eq!(staging_directories(&fixture), Vec::<String>::new());
}

#[tokio::test]
async fn a_deleted_file_is_downloaded_again_but_files_of_the_user_are_not_changed() {
    let fixture = Fixture::new().await;
    fixture.fetch().await.unwrap();
    fs::remove_file(fixture.base().join(NAME).join(WEIGHTS)).unwrap();
    assert_eq!(fixture.store().find(&ModelRef::new(NAME)), Ok(None));
    fixture.fetch().await.unwrap();
    fixture.assert_complete(1);

    fixture.hub.publish("org/mine", "main", files(1));
    let mine = fixture.base().join("org/mine");
    fs::create_dir_all(&mine).unwrap();
    fs::write(mine.join("notes.txt"), "mine").unwrap();
    let error = fetch(&fixture.store(), "org/mine").await.unwrap_err();
    assert!(error.kind == SourceErrorKind::Io && error.message.contains("in the way"), "{error}");
    assert_eq!(fs::read_dir(&mine).unwrap().count(), 1);
}

/// Not a test: the child processes of the tests above run it. `params.txt` has the hub's URL and the base directory.
#[tokio::test]
#[ignore = "run in a process of its own by other tests"]
async fn child() {
    let Ok(params) = fs::read_to_string("params.txt") else { return };
    let (endpoint, base) = params.split_once('\n').unwrap();
    let config = StoreConfig {
        base_dir: base.into(),
        hub_cache: None,
        endpoint: endpoint.into(),
        token: None,
        offline: false,
        disk: embeddery_model_store::DiskLimits::default(),
        format: embeddery_model_store::WeightsFormat::default(),
    };
    fetch(&store(config), NAME).await.unwrap();
}

fn spawn_fetch(fixture: &Fixture) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "fetch::child"])
        .current_dir(fixture.dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Polls a condition, and lets other tasks run in between.
async fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

fn staging(fixture: &Fixture) -> PathBuf {
    fixture.base().join(format!(".incoming/{NAME}@{}", commit_of_main(&fixture.hub)))
}

/// The commit of `main`: publishing the same files again returns the same commit.
fn commit_of_main(hub: &Hub) -> String {
    hub.publish(NAME, "main", files(1))
}

fn total_of_small_files() -> u64 {
    let small = files(1).into_iter().filter(|(path, _)| !IGNORED.contains(path) && *path != WEIGHTS);
    // The listing is sorted. Files after the weights are not downloaded while the weights stall.
    small.filter(|(path, _)| *path < WEIGHTS).map(|(_, content)| content.len() as u64).sum()
}

/// The remaining staging directories.
fn staging_directories(fixture: &Fixture) -> Vec<String> {
    let incoming = fixture.base().join(".incoming/org");
    let directories = fs::read_dir(incoming).unwrap().flatten().filter(|entry| entry.path().is_dir());
    directories.map(|entry| Path::new(&entry.file_name()).display().to_string()).collect()
}
