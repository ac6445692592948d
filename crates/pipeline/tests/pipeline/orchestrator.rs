//! The orchestrator replaces stalled workers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use embeddery_pipeline::{
    DocumentState, ExclusiveGate, Orchestrator, OrchestratorConfig, OrchestratorMetrics, PoolConfig,
    SpawnWorker, Stage, Status, Worker, WorkerMetrics,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio_util::sync::CancellationToken;

use crate::support::{Harness, count};

/// One pool of one worker per stage, with a short stall timeout.
fn orchestrator(harness: &Harness, registry: &mut Registry) -> Orchestrator {
    let pool = |stage: Stage| PoolConfig {
        name: stage.as_str().into(),
        stage,
        workers: 1,
        slots: 1,
        max_attempts: 3,
        grace: Duration::from_millis(100),
    };
    let config = OrchestratorConfig {
        pools: Stage::ALL.into_iter().map(pool).collect(),
        scaling: None,
        poll_interval: Duration::from_millis(50),
        stalled_after: Duration::from_secs(2),
    };
    let (context, queue, gate) =
        (Arc::clone(&harness.context), Arc::clone(&harness.queue), ExclusiveGate::default());
    let (common, metrics) = (harness.config.clone(), WorkerMetrics::new(registry));
    let spawn_worker: SpawnWorker = Box::new(move |pool| {
        let mut config = common.clone();
        config.stages = vec![pool.stage];
        config.concurrency = 1;
        config.slots = BTreeMap::from([(pool.stage, pool.slots)]);
        config.grace = pool.grace;
        Ok(Worker::new(Arc::clone(&context), queue.clone(), config, metrics.clone())?.sharing_gate(&gate))
    });
    Orchestrator::new(config, harness.queue.clone(), spawn_worker, OrchestratorMetrics::new(registry))
}

/// The worker's thread is blocked, so that no deadline can end the call.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_worker_that_makes_no_progress_is_replaced_and_its_documents_are_processed() {
    let mut harness = Harness::new();
    harness.config.lease = Duration::from_millis(500);
    harness.config.deadline = Duration::from_millis(500);
    let (release, until) = std::sync::mpsc::channel();
    harness.fake.state().blocking = Some(("wedge", until));
    let mut registry = Registry::default();
    let orchestrator = orchestrator(&harness, &mut registry);
    let status = orchestrator.status();
    let stop = CancellationToken::new();
    let running = tokio::spawn(orchestrator.run(stop.clone()));
    let documents = [("a", "One two."), ("b", "This is a wedge."), ("c", "Three four."), ("d", "Five.")];
    let job = harness.submit(&documents).await;
    let ended = harness.ended(job).await;
    assert_eq!((ended.status, count(&ended, DocumentState::Stored)), (Status::Completed, 4));
    let stalled = || status.lock().unwrap().pools["embedding"];
    assert_eq!(stalled(), (1, 1), "one worker is active, and the replaced one is still blocked");
    let mut metrics = String::new();
    encode(&mut metrics, &registry).unwrap();
    for line in [
        "embedding_workers_replaced_total{worker_type=\"embedding\"} 1",
        "embedding_workers_stalled{worker_type=\"embedding\"} 1",
        "embedding_workers_active{worker_type=\"embedding\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    release.send(()).unwrap();
    while stalled() != (1, 0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(harness.stored().await.len(), 4, "the late result changes nothing");
    assert_eq!(harness.queue.depth().await.unwrap()[&Stage::Embedding].leased, 0);
    stop.cancel();
    running.await.unwrap().unwrap();
}
