//! Compares the memory budget with the memory of the process, while requests use twenty models in turn and the budget is
//! that of three. `cargo run --release -p embeddery-providers --example residence`

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its results and stops at the first error"
)]

use std::{
    collections::HashMap,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use embeddery_core::{
    BoxFuture, EmbedRequest, Input, ModelRef, ModelSource, Progress, Provider as _, RequestContext,
    SourceError, SourceErrorKind,
};
use embeddery_engine::Precision;
use embeddery_providers::local::{
    Local, LocalConfig, MemoryBudget, MemoryLimits, ResourcesConfig, SharedResources,
};
use embeddery_test_support::tiny::Tiny;

const MODELS: usize = 20;
const CALLERS: usize = 6;
const TURNS: usize = 4 * MODELS;

struct Directory(PathBuf);

impl ModelSource for Directory {
    fn find(&self, model: &ModelRef) -> Result<Option<PathBuf>, SourceError> {
        Ok(Some(self.0.join(&*model.name)))
    }

    fn fetch<'a>(&'a self, _: &'a ModelRef, _: &'a Progress) -> BoxFuture<'a, Result<PathBuf, SourceError>> {
        Box::pin(async { Err(SourceError::new(SourceErrorKind::NotFound, "downloads are not supported")) })
    }

    fn list(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The bytes in a line of /proc/self/status.
fn status_bytes(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn resources(bytes: Option<u64>) -> Arc<SharedResources> {
    SharedResources::new(ResourcesConfig {
        threads: NonZeroUsize::new(2).unwrap(),
        memory: MemoryBudget::new(MemoryLimits { bytes, models: None }, Duration::from_secs(60)),
        queue_tokens: 1_000_000,
        unload_after: Duration::ZERO,
    })
    .unwrap()
}

fn local(base: &Path, resources: &Arc<SharedResources>) -> Arc<Local> {
    let config = LocalConfig {
        resources: Arc::clone(resources),
        source: Arc::new(Directory(base.to_path_buf())),
        auto_download: false,
        models: HashMap::new(),
    };
    Arc::new(Local::new(config, Precision::F32))
}

async fn send_requests(local: &Local, caller: usize) {
    for turn in 0..TURNS {
        let model = ModelRef::new(((turn * (caller + 1) + 3 * caller) % MODELS).to_string());
        let inputs = vec![Input::Text("w1 w2 w3 w4 w5 w6 w7".into()); 16];
        let request = EmbedRequest::with_defaults(inputs, RequestContext::new("1", "bench"));
        local.open(&model).await.unwrap().embed(request).await.unwrap();
    }
}

#[tokio::main]
async fn main() {
    let base = tempfile::tempdir().unwrap();
    for seed in 0..MODELS as u32 {
        Tiny { hidden: 384, layers: 6, seed }.write(base.path(), &seed.to_string()).unwrap();
    }
    let one = local(base.path(), &resources(None)).describe(&ModelRef::new("0")).await.unwrap().unwrap();
    let limit = one.info.memory_bytes * 33 / 10;
    let resources = resources(Some(limit));
    let local = local(base.path(), &resources);
    let before = status_bytes("RssAnon:");
    let finished = Arc::new(AtomicBool::new(false));
    let (stop, watched) = (Arc::clone(&finished), Arc::clone(&resources));
    let watch = std::thread::spawn(move || {
        let mut max = [0; 3];
        while !stop.load(SeqCst) {
            let now = [watched.memory().reserved_bytes(), status_bytes("RssAnon:"), status_bytes("VmRSS:")];
            max = std::array::from_fn(|index| max[index].max(now[index]));
            std::thread::sleep(Duration::from_millis(2));
        }
        max
    });
    let started_at = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let local = Arc::clone(&local);
        callers.spawn(async move { send_requests(&local, caller).await });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    let seconds = started_at.elapsed().as_secs_f64();
    finished.store(true, SeqCst);
    let [reserved, anonymous, resident] = watch.join().unwrap();
    for seed in 0..MODELS {
        local.unload(&ModelRef::new(seed.to_string())).await.unwrap();
    }
    while resources.memory().reserved_bytes() > 0 {
        tokio::task::yield_now().await;
    }
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let share = 100.0 * anonymous.saturating_sub(before) as f64 / limit as f64;
    println!("{} requests to {MODELS} models in {seconds:.1} s, none failed", CALLERS * TURNS);
    println!(
        "a model {:.0} MB, limit {:.0} MB, at most reserved {:.0} MB",
        megabytes(one.info.memory_bytes),
        megabytes(limit),
        megabytes(reserved)
    );
    println!(
        "anonymous memory of the process: {:.0} MB before, {:.0} MB at most (growth: {share:.0} % of the limit), {:.0} MB \
         after all models were unloaded; {:.0} MB at most with mapped files",
        megabytes(before),
        megabytes(anonymous),
        megabytes(status_bytes("RssAnon:")),
        megabytes(resident)
    );
}
