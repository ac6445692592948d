//! The queue in a real Cluster of three, behind a real Sentinel, and by TLS.

use std::{sync::Arc, time::Duration};

use embeddery_core::BoxFuture;
use embeddery_database::redis::{KeyPrefix, RedisAddress};
use embeddery_pipeline::{Queue, QueueOptions, RedisConfig, RedisQueue, Settled, Stage, TaskId};
use embeddery_test_support::redis::{Cluster, Sentinel, TlsRedis};

use crate::{
    bench::{Bench, Streams, Tamper as _, Worker, config, job, next, tasks},
    conformance,
};

impl Bench for Cluster {
    fn open(&self, options: QueueOptions) -> Arc<dyn Queue> {
        let config = config(&self.nodes[0].url(), "{embeddings}");
        Arc::new(RedisQueue::connect(RedisConfig { options, ..config }).unwrap())
    }

    fn write_version(&self, task: TaskId, version: u32) -> BoxFuture<'_, ()> {
        Box::pin(self.nodes[0].write_version("{embeddings}", task, version))
    }

    fn spoil(&self, task: TaskId) -> BoxFuture<'_, ()> {
        Box::pin(self.nodes[0].spoil("{embeddings}", task))
    }

    fn age_clearing(&self, stage: Stage) -> BoxFuture<'_, ()> {
        Box::pin(self.nodes[0].age_clearing("{embeddings}", stage))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_everything_is_the_same() {
    let cluster = Cluster::start().await.unwrap();
    conformance::a_task_goes_through_all_stages_and_is_gone(&cluster).await;
    conformance::many_workers_do_everything_once(&cluster).await;
    conformance::who_lost_a_lease_can_neither_settle_nor_renew(&cluster).await;
    conformance::who_waits_is_woken_by_another_process(&cluster).await;
    assert_eq!(cluster.queue().health().await.unwrap(), Vec::<String>::new());
    let sizes = cluster.sizes().await;
    assert_eq!(sizes.iter().filter(|size| **size > 0).count(), 1, "one slot, one node: {sizes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_a_cluster_that_is_killed_comes_back_with_all_it_had() {
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
    assert_eq!(settled, [Settled::Done]);
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
    redis.master.ask::<i64>(&["WAIT", "1", "5000"]).await;
    redis.master.kill().unwrap();
    let settled = loop {
        match queue.settle(&[(lease.clone(), next())]).await {
            Ok(settled) => break settled,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    assert_eq!(settled, [Settled::Done], "leases live on at the new master");
    assert!(redis.replica.ask::<String>(&["INFO", "replication"]).await.contains("role:master"));
    assert_eq!(worker.take(Stage::Chunking, 5).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_trusts_whom_it_is_told_to() {
    let redis = TlsRedis::start().unwrap();
    let ca = std::fs::read(redis.ca_file()).unwrap();
    let at = |url: String, ca| {
        let address = RedisAddress { url: url.into(), ca, prefix: KeyPrefix::default() };
        RedisConfig { address, ..config("redis://unused", "unused") }
    };
    let trusting = at(redis.url(), Some(ca.clone()));
    let queue: Arc<dyn Queue> = Arc::new(RedisQueue::connect(trusting).unwrap());
    queue.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let lease = worker.next(Stage::Chunking).await;
    assert_eq!(worker.settle(&lease, next()).await, Settled::Done);
    let stranger = RedisQueue::connect(at(redis.url(), None)).unwrap();
    let error = stranger.pressure("ann").await.unwrap_err().to_string();
    assert!(error.contains("certificate") && !error.contains("hunter2"), "{error}");
    let wrong = redis.url().replace("hunter2", "hunter3");
    let wrong = RedisQueue::connect(at(wrong, Some(ca))).unwrap();
    let error = wrong.pressure("ann").await.unwrap_err().to_string();
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
    assert_eq!(other.holds(&[sent[0].id]).await.unwrap(), [false]);
    assert_eq!(other.enqueue(&sent).await.unwrap(), [true]);
    let keys: Vec<String> = bench.redis.ask(&["KEYS", "{other}:*"]).await;
    assert!(!keys.is_empty());
}
