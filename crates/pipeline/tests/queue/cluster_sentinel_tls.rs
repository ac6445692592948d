//! The queue in a real Cluster of three nodes, behind a real Sentinel, and over TLS.

use std::{path::Path, time::Duration};

use embeddery_core::BoxFuture;
use embeddery_pipeline::{
    Queue, QueueOptions, RedisConfig, RedisQueue, SettleResult, Stage, TaskId, TaskProducer as _,
};
use std::sync::Arc;

use crate::{
    conformance::{leases, tasks},
    harness::{self, Bench, Streams, Worker, config, job, next},
    servers::{Server, free_port},
};

struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Three masters that share all slots, with AOF.
    async fn start() -> Self {
        let nodes: Vec<Server> = (0..3)
            .map(|_| {
                Server::with_arguments(|_, _| {
                    // The default port of the bus is 10000 higher, which may be too high.
                    let bus = free_port().to_string();
                    [
                        "--cluster-enabled",
                        "yes",
                        "--appendonly",
                        "yes",
                        "--appendfsync",
                        "always",
                        "--cluster-port",
                        &bus,
                    ]
                    .map(str::to_owned)
                    .into()
                })
            })
            .collect();
        for (node, slots) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
            node.command::<String>(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]).await;
        }
        let buses: Vec<String> = nodes
            .iter()
            .map(|node| std::fs::read_to_string(node.dir().join("nodes.conf")).unwrap())
            .map(|conf| conf.split('@').nth(1).unwrap().split([' ', ',']).next().unwrap().to_owned())
            .collect();
        for (node, bus) in nodes.iter().zip(&buses) {
            let meet = ["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), bus];
            nodes[0].command::<String>(&meet).await;
        }
        for node in &nodes {
            while !node.command::<String>(&["CLUSTER", "INFO"]).await.contains("cluster_state:ok")
                || !node.command::<String>(&["CLUSTER", "INFO"]).await.contains("cluster_known_nodes:3")
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Self { nodes }
    }
}

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
    let cluster = Cluster::start().await;
    tasks::a_task_goes_through_all_stages_and_leaves_the_queue(&cluster).await;
    tasks::many_workers_do_each_task_once(&cluster).await;
    leases::a_lost_lease_can_be_neither_settled_nor_renewed(&cluster).await;
    tasks::a_waiting_worker_is_woken_by_another_process(&cluster).await;
    assert_eq!(cluster.queue().health().await.unwrap(), Vec::<String>::new());
    let mut sizes = Vec::new();
    for node in &cluster.nodes {
        sizes.push(node.command::<u64>(&["DBSIZE"]).await);
    }
    assert_eq!(sizes.iter().filter(|size| **size > 0).count(), 1, "one slot, one node: {sizes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_of_a_cluster_comes_back_with_its_data() {
    let mut cluster = Cluster::start().await;
    let list: Vec<String> = cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let url = format!("redis://{}", list.join(","));
    let queue: Arc<dyn Queue> = Arc::new(RedisQueue::connect(config(&url, "embeddings")).unwrap());
    queue.enqueue(&harness::tasks(job(), "ann", 3)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let lease = worker.next(Stage::Chunking).await;
    let mut holder = 0;
    for (index, node) in cluster.nodes.iter().enumerate() {
        if node.command::<u64>(&["DBSIZE"]).await > 0 {
            holder = index;
        }
    }
    cluster.nodes[holder].restart();
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
async fn the_queue_follows_a_sentinel_to_the_new_master() {
    let mut master = Server::durable();
    let port = master.port.to_string();
    let replica = Server::start(&["--appendonly", "yes", "--replicaof", "127.0.0.1", &port]);
    let sentinel = Server::with_arguments(|_, dir| {
        let file = dir.join("sentinel.conf");
        let text = format!(
            "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 5000\n"
        );
        std::fs::write(&file, text).unwrap();
        vec![file.display().to_string(), "--sentinel".into()]
    });
    while !replica.command::<String>(&["INFO", "replication"]).await.contains("master_link_status:up")
        || !sentinel.command::<String>(&["INFO", "sentinel"]).await.contains("slaves=1")
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
    let queue: Arc<dyn Queue> = Arc::new(RedisQueue::connect(config(&url, "{embeddings}")).unwrap());
    let sent = harness::tasks(job(), "ann", 3);
    queue.enqueue(&sent).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let lease = worker.next(Stage::Chunking).await;
    master.command::<i64>(&["WAIT", "1", "5000"]).await;
    master.kill();
    let settled = loop {
        match queue.settle(&[(lease.clone(), next())]).await {
            Ok(settled) => break settled,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    assert_eq!(settled, [SettleResult::Done], "leases are valid at the new master");
    assert!(replica.command::<String>(&["INFO", "replication"]).await.contains("role:master"));
    assert_eq!(worker.take(Stage::Chunking, 5).await.len(), 2);
}

fn certificate(dir: &Path) -> Vec<u8> {
    let certificate =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(dir.join("cert.pem"), certificate.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
    certificate.cert.pem().into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_trusts_the_configured_certificate() {
    let secure = free_port();
    let server = Server::with_arguments(|_, dir| {
        certificate(dir);
        let secure = secure.to_string();
        let settings = ["--tls-port", &secure, "--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"];
        let more = ["--tls-auth-clients", "no", "--requirepass", "hunter2"];
        settings.into_iter().chain(more).map(str::to_owned).collect()
    });
    let ca = std::fs::read(server.dir().join("cert.pem")).unwrap();
    let url = format!("rediss://:hunter2@localhost:{secure}");
    let with_ca = RedisConfig { ca: Some(ca), ..config(&url, "{embeddings}") };
    let queue: Arc<dyn Queue> = Arc::new(RedisQueue::connect(with_ca.clone()).unwrap());
    queue.enqueue(&harness::tasks(job(), "ann", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let lease = worker.next(Stage::Chunking).await;
    assert_eq!(worker.settle(&lease, next()).await, SettleResult::Done);
    let without_ca = RedisQueue::connect(RedisConfig { ca: None, ..with_ca.clone() }).unwrap();
    let error = without_ca.backlog("ann").await.unwrap_err().to_string();
    assert!(error.contains("certificate") && !error.contains("hunter2"), "{error}");
    let wrong = url.replace("hunter2", "hunter3");
    let wrong = RedisQueue::connect(RedisConfig { url: wrong.into(), ..with_ca }).unwrap();
    let error = wrong.backlog("ann").await.unwrap_err().to_string();
    assert!(!error.contains("hunter"), "{error}");
}

#[tokio::test]
async fn two_prefixes_are_two_queues() {
    let mut bench = Streams::start();
    let one = bench.queue();
    bench.prefix = "other".into();
    let other = bench.queue();
    let sent = harness::tasks(job(), "ann", 1);
    one.enqueue(&sent).await.unwrap();
    assert_eq!(other.contains(&[sent[0].id]).await.unwrap(), [false]);
    assert_eq!(other.enqueue(&sent).await.unwrap(), [true]);
    let keys: Vec<String> = bench.redis.command(&["KEYS", "{other}:*"]).await;
    assert!(!keys.is_empty());
}
