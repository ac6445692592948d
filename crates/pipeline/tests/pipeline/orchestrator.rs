//! An orchestrator looks after its workers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use embeddery_pipeline::{
    DocumentState, ExclusiveGate, Orchestrator, OrchestratorConfig, OrchestratorMetrics, PoolConfig,
    SpawnWorker, Stage, Status, Worker, WorkerMetrics,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio_util::sync::CancellationToken;

use crate::support::{Plant, count};

/// Pools of one worker for each stage, whose workers may hang for as long as tests can wait.
fn orchestrator(plant: &Plant, registry: &mut Registry) -> Orchestrator {
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
        look_every: Duration::from_millis(50),
        stalled_after: Duration::from_secs(2),
    };
    let (tools, queue, floor) =
        (Arc::clone(&plant.tools), Arc::clone(&plant.queue), ExclusiveGate::default());
    let (common, metrics) = (plant.config.clone(), WorkerMetrics::new(registry));
    let hire: SpawnWorker = Box::new(move |pool| {
        let mut config = common.clone();
        config.stages = vec![pool.stage];
        config.concurrency = 1;
        config.slots = BTreeMap::from([(pool.stage, pool.slots)]);
        config.grace = pool.grace;
        Ok(Worker::new(Arc::clone(&tools), queue.clone(), config, metrics.clone())?.sharing_gate(&floor))
    });
    Orchestrator::new(config, plant.queue.clone(), hire, OrchestratorMetrics::new(registry))
}

/// Not an answer that is late, which a deadline ends, but a thread that never comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_worker_that_makes_no_progress_is_replaced_and_its_documents_are_done() {
    let mut plant = Plant::new();
    plant.config.lease = Duration::from_millis(500);
    plant.config.deadline = Duration::from_millis(500);
    let (release, until) = std::sync::mpsc::channel();
    plant.fake.state().blocking = Some(("wedge", until));
    let mut registry = Registry::default();
    let orchestrator = orchestrator(&plant, &mut registry);
    let findings = orchestrator.findings();
    let stop = CancellationToken::new();
    let running = tokio::spawn(orchestrator.run(stop.clone()));
    let documents = [("a", "One two."), ("b", "This is a wedge."), ("c", "Three four."), ("d", "Five.")];
    let job = plant.submit(&documents).await;
    let ended = plant.ended(job).await;
    assert_eq!((ended.status, count(&ended, DocumentState::Stored)), (Status::Completed, 4));
    let stalled = || findings.lock().unwrap().pools["embedding"];
    assert_eq!(stalled(), (1, 1), "one works, and the one that it replaced is still stuck");
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
    assert_eq!(plant.stored().await.len(), 4, "who comes late changes nothing");
    assert_eq!(plant.queue.depth().await.unwrap()[&Stage::Embedding].leased, 0);
    stop.cancel();
    running.await.unwrap().unwrap();
}
