//! The queue in a real Cluster of three nodes, behind a real Sentinel, and over TLS.

use std::{sync::Arc, time::Duration};

use embeddery_core::BoxFuture;
use embeddery_database::redis::{KeyPrefix, RedisAddress};
use embeddery_pipeline::{
    Queue, QueueOptions, RedisConfig, RedisQueue, SettleResult, Stage, TaskId, TaskProducer as _,
};
use embeddery_test_support::redis::{Cluster, Sentinel, TlsRedis};

use crate::{
    conformance::{leases, tasks as conformance_tasks},
    harness::{Bench, Streams, Tamper as _, Worker, config, job, next, tasks},
};

impl Bench for Cluster {
    fn open(&self, options: QueueOptions) -> Arc<dyn Queue> {
        let config = config(&self.nodes[0].url(), "{embeddings}");
        Arc::new(RedisQueue::connect(RedisConfig { options, ..config }).unwrap())
    }

    fn write_version(&self, task: TaskId, version: u32) -> BoxFuture<'_, ()> {
        Box::pin(self.nodes[0].write_version("{embeddings}", task, version))
    }

    fn corrupt(&self, task: TaskId) -> BoxFuture<'_, ()> {
        Box::pin(self.nodes[0].corrupt("{embeddings}", task))
    }

    fn expire_drain(&self, stage: Stage) -> BoxFuture<'_, ()> {
        Box::pin(self.nodes[0].expire_drain("{embeddings}", stage))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_behaves_as_one_server() {
    let cluster = Cluster::start().await.unwrap();
    conformance_tasks::a_task_goes_through_all_stages_and_leaves_the_queue(&cluster).await;
    conformance_tasks::many_workers_do_each_task_once(&cluster).await;
    leases::a_lost_lease_can_be_neither_settled_nor_renewed(&cluster).await;
    conformance_tasks::a_waiting_worker_is_woken_by_another_process(&cluster).await;
    assert_eq!(cluster.queue().health().await.unwrap(), Vec::<String>::new());
    let sizes = cluster.sizes().await;
    assert_eq!(sizes.iter().filter(|size| **size > 0).count(), 1, "one slot, one node: {sizes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_of_a_cluster_comes_back_with_its_data() {
    let mut cluster = Cluster::start().await.unwrap();
    let config = config(&cluster.url(), "embeddings");
    let queue: Arc<dyn Queue> = Arc::new(RedisQueue::connect(config).unwrap());
    queue.enqueue(&tasks(job(), "ann", 3)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let lease = worker.next(Stage::Chunking).await;
    let holder = cluster.sizes().await.iter().position(|size| *size > 0).unwrap();
    cluster.nodes[holder].restart().unwrap();
    let settled = loop {
        match queue.settle(&[(lease.clone(), next())]).await {
            Ok(settled) => break settled,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert_eq!(settled, [SettleResult::Done]);
    assert_eq!(worker.take(Stage::Chunking, 5).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_names_the_new_master() {
    let mut redis = Sentinel::start().await.unwrap();
    let config = config(&redis.url(), "{embeddings}");
    let queue: Arc<dyn Queue> = Arc::new(RedisQueue::connect(config).unwrap());
    let sent = tasks(job(), "ann", 3);
    queue.enqueue(&sent).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let lease = worker.next(Stage::Chunking).await;
    redis.kill_replicated_master().await.unwrap();
    let settled = loop {
        match queue.settle(&[(lease.clone(), next())]).await {
            Ok(settled) => break settled,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    assert_eq!(settled, [SettleResult::Done], "leases survive on the new master");
    assert!(redis.replica.ask::<String>(&["INFO", "replication"]).await.contains("role:master"));
    assert_eq!(worker.take(Stage::Chunking, 5).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_trusts_the_configured_certificate() {
    let redis = TlsRedis::start().unwrap();
    let ca = std::fs::read(redis.ca_file()).unwrap();
    let at = |url: String, ca| {
        let address = RedisAddress { url: url.into(), ca, prefix: KeyPrefix::default() };
        RedisConfig { address, ..config("redis://unused", "unused") }
    };
    let with_ca = at(redis.url(), Some(ca.clone()));
    let queue: Arc<dyn Queue> = Arc::new(RedisQueue::connect(with_ca).unwrap());
    queue.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let lease = worker.next(Stage::Chunking).await;
    assert_eq!(worker.settle(&lease, next()).await, SettleResult::Done);
    let without_ca = RedisQueue::connect(at(redis.url(), None)).unwrap();
    let error = without_ca.backlog("ann").await.unwrap_err().to_string();
    assert!(error.contains("certificate") && !error.contains("hunter2"), "{error}");
    let wrong = redis.url().replace("hunter2", "hunter3");
    let wrong = RedisQueue::connect(at(wrong, Some(ca))).unwrap();
    let error = wrong.backlog("ann").await.unwrap_err().to_string();
    assert!(!error.contains("hunter"), "{error}");
}

#[tokio::test]
async fn two_prefixes_are_two_queues() {
    let mut bench = Streams::start();
    let one = bench.queue();
    bench.prefix = "other".into();
    let other = bench.queue();
    let sent = tasks(job(), "ann", 1);
    one.enqueue(&sent).await.unwrap();
    assert_eq!(other.contains(&[sent[0].id]).await.unwrap(), [false]);
    assert_eq!(other.enqueue(&sent).await.unwrap(), [true]);
    let keys: Vec<String> = bench.redis.ask(&["KEYS", "{other}:*"]).await;
    assert!(!keys.is_empty());
}
