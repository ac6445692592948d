//! Failures of Redis, and data in it that cannot be read.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use embeddery_pipeline::{
    JobId, Outcome, Queue, QueueError, RedisConfig, RedisQueue, SettleResult, Stage, Task, TaskId,
    TaskProducer as _, WorkerStatus,
};
use embeddery_test_support::redis::{Redis, Relay};

use crate::harness::{Bench as _, LONG, SHORT, Streams, Worker, job, next, now_ms, task, tasks};

fn open(config: RedisConfig) -> Arc<dyn Queue> {
    Arc::new(RedisQueue::connect(config).unwrap())
}

fn record(job: JobId) -> String {
    format!("{{embeddings}}:job:{job}")
}

#[tokio::test]
async fn an_empty_queue_has_few_keys() {
    let bench = Streams::start();
    let queue = bench.queue();
    let cancelled = job();
    for tenant in 0..20 {
        queue.enqueue(&tasks(job(), &format!("tenant-{tenant}"), 10)).await.unwrap();
    }
    queue.enqueue(&tasks(cancelled, "tenant-x", 10)).await.unwrap();
    let dying = Worker::new(&queue, "dying").holding(SHORT);
    dying.take(Stage::Chunking, 30).await;
    queue.heartbeat(&report("silent"), Duration::from_millis(1)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let mut turn = 0;
    while queue.backlog("").await.unwrap().all.items > 0 {
        for stage in Stage::ALL {
            for lease in worker.take(stage, 7).await {
                turn += 1;
                let outcome = match turn % 11 {
                    0 => Outcome::RetryAfter { after: SHORT, charged: true },
                    1 => Outcome::Release,
                    2 => Outcome::Finished,
                    _ => next(),
                };
                worker.settle(&lease, outcome).await;
            }
        }
        queue.cancel(cancelled).await.unwrap();
    }
    for stage in Stage::ALL {
        assert!(worker.take(stage, 7).await.is_empty());
    }
    queue.heartbeat(&report("w"), LONG).await.unwrap();
    queue.deregister(&worker.consumer).await.unwrap();
    let mut keys: Vec<String> = bench.redis.ask(&["KEYS", "*"]).await;
    keys.sort();
    assert!(keys.len() <= 15, "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("{embeddings}:") && !key.contains("tenant-")), "{keys:?}");
    let groups: Vec<HashMap<String, redis::Value>> =
        bench.redis.ask(&["XINFO", "GROUPS", "{embeddings}:chunking"]).await;
    assert_eq!(groups[0]["name"], redis::Value::BulkString(b"chunking-workers".to_vec()));
    assert_eq!(
        (&groups[0]["consumers"], &groups[0]["pending"]),
        (&redis::Value::Int(0), &redis::Value::Int(0))
    );
}

fn report(name: &str) -> WorkerStatus {
    WorkerStatus {
        consumer: embeddery_pipeline::Consumer(name.into()),
        stages: Stage::ALL.into(),
        slots: 1,
        busy: 0,
        done: 0,
        failed: 0,
        started_at_ms: now_ms(),
        version: "0".into(),
    }
}

/// Workers finish all tasks. The test enqueues tasks that were lost again, as the reconciler does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigkill_of_redis_in_mid_work_loses_nothing() {
    let mut bench = Streams::on(Redis::durable().unwrap());
    let queue = bench.queue();
    let job = job();
    let sent = tasks(job, "ann", 400);
    queue.enqueue(&sent).await.unwrap();
    let done: Arc<Mutex<HashSet<TaskId>>> = Arc::default();
    let workers: Vec<_> = (0..3)
        .map(|number| {
            let (queue, done, all) = (bench.queue(), Arc::clone(&done), sent.len());
            let worker = Worker::new(&queue, &format!("w{number}")).busy().holding(Duration::from_secs(1));
            tokio::spawn(async move {
                while done.lock().unwrap().len() < all {
                    for stage in Stage::ALL {
                        let request = embeddery_pipeline::LeaseRequest {
                            stage,
                            consumer: &worker.consumer,
                            max_tasks: 8,
                            duration: worker.duration,
                            idle: true,
                        };
                        let Ok(leases) = queue.lease(request).await else {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            continue;
                        };
                        let outcomes: Vec<_> =
                            leases.leases.into_iter().map(|lease| (lease, next())).collect();
                        if stage == Stage::Storage {
                            // The result is written before the lease is settled.
                            done.lock().unwrap().extend(outcomes.iter().map(|(lease, _)| lease.task.id));
                        }
                        while queue.settle(&outcomes).await.is_err() {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
            })
        })
        .collect();
    let mut kills = 0;
    loop {
        let count = done.lock().unwrap().len();
        if count == sent.len() {
            break;
        }
        if count > kills * 80 {
            kills += 1;
            bench.redis.kill().unwrap();
            bench.redis.restart().unwrap();
        }
        let ids: Vec<TaskId> = sent.iter().map(|task| task.id).collect();
        if let Ok(held) = queue.contains(&ids).await {
            let finished = done.lock().unwrap().clone();
            let lost: Vec<Task> = sent
                .iter()
                .zip(held)
                .filter(|(task, held)| !held && !finished.contains(&task.id))
                .map(|(task, _)| task.clone())
                .collect();
            let _ = queue.enqueue(&lost).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for worker in workers {
        worker.await.unwrap();
    }
    assert!(kills >= 3, "killed {kills} times");
}

#[tokio::test]
async fn a_redis_that_lost_its_data_can_be_used() {
    let mut bench = Streams::start();
    let queue = bench.queue();
    let sent = tasks(job(), "ann", 2);
    queue.enqueue(&sent).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let lease = worker.next(Stage::Chunking).await;
    bench.redis.restart().unwrap();
    assert_eq!(
        worker.settle(&lease, next()).await,
        SettleResult::Lost,
        "scripts are loaded and groups are created again"
    );
    assert_eq!(queue.contains(&[sent[0].id]).await.unwrap(), [false]);
    assert_eq!(queue.enqueue(&sent).await.unwrap(), [true, true]);
    bench.redis.ask::<String>(&["SCRIPT", "FLUSH"]).await;
    let again = worker.next(Stage::Chunking).await;
    assert_eq!(worker.settle(&again, next()).await, SettleResult::Done);
    // A waiting worker is woken again.
    assert!(worker.take(Stage::Storage, 1).await.is_empty());
    queue.wait(Stage::Storage, Duration::from_millis(10)).await;
    bench.redis.restart().unwrap();
    // The queue does not repeat a lease request, because the lost response may have granted a lease. So the connection
    // is opened again first.
    queue.depth().await.unwrap();
    let other = bench.queue();
    let stored = Task { stage: Stage::Storage, ..task(job(), 0, "ann") };
    let waiting = tokio::spawn(async move { worker.next(Stage::Storage).await });
    other.enqueue(&[stored]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_queue_connects_to_a_redis_that_starts_late() {
    let mut server = Redis::not_started().unwrap();
    let queue = RedisQueue::connect(crate::harness::config(&server.url(), "{embeddings}")).unwrap();
    let error = queue.backlog("ann").await.unwrap_err();
    let port = server.port().to_string();
    assert!(matches!(&error, QueueError::Unavailable(text) if text.contains(&port)), "{error:?}");
    server.restart().unwrap();
    let reconnected = async {
        while queue.backlog("ann").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reconnected).await.unwrap();
}

/// A connection that is busy or blocked does not keep leases from being renewed.
#[tokio::test]
async fn heartbeats_have_a_connection_of_their_own() {
    let bench = Streams::start();
    let proxy = Relay::to(bench.redis.port()).await;
    let queue = open(crate::harness::config(&format!("redis://127.0.0.1:{}", proxy.port()), "{embeddings}"));
    queue.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let lease = Worker::new(&queue, "w").next(Stage::Chunking).await;
    proxy.stop_current_connections();
    assert_eq!(queue.renew(std::slice::from_ref(&lease), LONG).await.unwrap(), [true]);
    queue.heartbeat(&report("w"), LONG).await.unwrap();
    assert_eq!(bench.queue().workers().await.unwrap().len(), 1);
}

#[tokio::test]
async fn unreadable_messages_become_dead_letters_alone() {
    let bench = Streams::start();
    let key = Some("passphrase".to_owned().into());
    let queue = open(RedisConfig { dead_letter_key: key, ..bench.config() });
    let job = job();
    queue.enqueue(&tasks(job, "ann", 4)).await.unwrap();
    // A waiting record, a delayed one, and a stream entry that another program has written.
    bench.redis.ask::<i64>(&["HSET", &record(job), "1", "garbage: secret"]).await;
    let worker = Worker::new(&queue, "w");
    let lease = worker.next(Stage::Chunking).await;
    worker.settle(&lease, Outcome::RetryAfter { after: SHORT, charged: true }).await;
    bench.redis.ask::<i64>(&["HSET", &record(job), "0", r#"{"v":1,"t":5}"#]).await;
    bench.redis.ask::<String>(&["XADD", "{embeddings}:chunking", "*", "content", "secret text"]).await;
    let mut items = HashSet::new();
    while queue.dead_letters(Stage::Chunking, None, 10).await.unwrap().len() < 3 {
        items.extend(worker.take(Stage::Chunking, 1).await.iter().map(|lease| lease.task.id.item));
    }
    items.extend(worker.take(Stage::Chunking, 10).await.iter().map(|lease| lease.task.id.item));
    assert_eq!(items, HashSet::from([2, 3]));
    let letters = queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    let mut raws: Vec<String> =
        letters.iter().map(|l| String::from_utf8(l.raw.clone().unwrap()).unwrap()).collect();
    raws.sort();
    assert_eq!(raws, ["content\nsecret text", "garbage: secret", r#"{"v":1,"t":5}"#]);
    assert!(letters.iter().all(|letter| &*letter.reason.code == "unreadable" && letter.task.is_none()));
    let kept: redis::Value = bench.redis.ask(&["XRANGE", "{embeddings}:chunking:dlq", "-", "+"]).await;
    let plain = format!("{:?}", open(bench.config()).dead_letters(Stage::Chunking, None, 10).await.unwrap());
    assert!(
        !format!("{kept:?}").contains("secret") && !plain.contains("secret"),
        "raw messages are stored encrypted"
    );
    let ids = [TaskId { job, item: 0 }, TaskId { job, item: 1 }];
    assert_eq!(
        queue.contains(&ids).await.unwrap(),
        [false, false],
        "the reconciler enqueues the documents again"
    );
    assert!(queue.delete_dead_letter(Stage::Chunking, &letters[0].id).await.unwrap());
    let pending: redis::Value =
        bench.redis.ask(&["XPENDING", "{embeddings}:chunking", "chunking-workers"]).await;
    assert!(format!("{pending:?}").contains("int(2)"), "{pending:?}");
}

#[tokio::test]
async fn an_unreadable_message_of_a_crashed_worker_becomes_a_dead_letter() {
    let bench = Streams::start();
    let queue = bench.queue();
    assert!(Worker::new(&queue, "w").take(Stage::Chunking, 1).await.is_empty());
    // The message was delivered to a worker that crashed before it made a dead letter of it.
    bench.redis.ask::<String>(&["XADD", "{embeddings}:chunking", "7-7", "x", "y"]).await;
    let read = ["XREADGROUP", "GROUP", "chunking-workers", "dead", "STREAMS", "{embeddings}:chunking", ">"];
    bench.redis.ask::<redis::Value>(&read).await;
    bench.redis.ask::<i64>(&["ZADD", "{embeddings}:chunking:leases", "1", "7-7 "]).await;
    assert!(Worker::new(&queue, "w").take(Stage::Chunking, 1).await.is_empty());
    let letters = queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    assert_eq!(letters[0].raw.as_deref(), Some(&b"x\ny"[..]));
    assert_eq!(queue.depth().await.unwrap()[&Stage::Chunking].leased, 0);
}

#[tokio::test]
async fn a_message_of_a_newer_version_keeps_unknown_fields() {
    let bench = Streams::start();
    let queue = bench.queue();
    let job = job();
    queue.enqueue(&tasks(job, "ann", 1)).await.unwrap();
    let old: String = bench.redis.ask(&["HGET", &record(job), "0"]).await;
    let newer = old.replacen("\"v\":1", "\"v\":99,\"colour\":\"red\"", 1).replace("\"p\":1", "\"p\":7");
    bench.redis.ask::<i64>(&["HSET", &record(job), "0", &newer]).await;
    assert!(Worker::new(&queue, "w").take(Stage::Chunking, 5).await.is_empty());
    let kept: String = bench.redis.ask(&["HGET", &record(job), "0"]).await;
    for part in ["\"colour\":\"red\"", "\"v\":99", "\"p\":7", "\"a\":0", "\"d\":0"] {
        assert!(kept.contains(part), "{kept}");
    }
    assert_eq!(queue.cancel(job).await.unwrap(), 1, "it can be cancelled");
    assert_eq!(queue.depth().await.unwrap()[&Stage::Chunking].newer, 0);
}

#[tokio::test]
async fn a_destroyed_group_is_created_again_with_its_tasks() {
    let bench = Streams::start();
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let (one, other) = (Worker::new(&queue, "one"), Worker::new(&queue, "other"));
    let lost = one.next(Stage::Chunking).await;
    bench.redis.ask::<i64>(&["XGROUP", "DESTROY", "{embeddings}:chunking", "chunking-workers"]).await;
    assert_eq!(one.settle(&lost, next()).await, SettleResult::Lost);
    assert_eq!(queue.renew(std::slice::from_ref(&lost), LONG).await.unwrap(), [false]);
    let found = other.next(Stage::Chunking).await;
    assert_eq!(found.task.id, lost.task.id);
    assert_eq!(one.settle(&lost, next()).await, SettleResult::Lost);
    assert_eq!(other.settle(&found, next()).await, SettleResult::Done);
}

#[tokio::test]
async fn a_full_redis_refuses_and_does_nothing() {
    let bench = Streams::start();
    let queue = bench.queue();
    let sent = tasks(job(), "ann", 3);
    queue.enqueue(&sent[..1]).await.unwrap();
    let lease = Worker::new(&queue, "w").next(Stage::Chunking).await;
    let (waiting, cancelled) = (task(job(), 0, "ann"), task(job(), 0, "ann"));
    queue.enqueue(std::slice::from_ref(&cancelled)).await.unwrap();
    Worker::new(&queue, "w").next(Stage::Chunking).await;
    queue.enqueue(std::slice::from_ref(&waiting)).await.unwrap();
    bench.redis.ask::<String>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = queue.enqueue(&sent).await.unwrap_err();
    // Workers can drain it, which is the only way to free memory.
    let drained = Worker::new(&queue, "d").next(Stage::Chunking).await;
    assert_eq!(drained.task.id, waiting.id);
    queue.heartbeat(&report("d"), LONG).await.unwrap();
    assert_eq!(queue.renew(std::slice::from_ref(&drained), LONG).await.unwrap(), [true]);
    let settled_full = queue.settle(&[(drained, Outcome::Finished)]).await;
    assert_eq!(settled_full.unwrap(), [SettleResult::Done]);
    assert_eq!(queue.cancel(cancelled.id.job).await.unwrap(), 0);
    queue.deregister(&embeddery_pipeline::Consumer("d".into())).await.unwrap();
    assert!(matches!(&error, QueueError::Full(text) if text.contains("maxmemory")), "{error:?}");
    let worker = Worker::new(&queue, "w");
    let settled = queue.settle(&[(lease.clone(), next())]).await;
    bench.redis.ask::<String>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let ids: Vec<TaskId> = sent.iter().map(|task| task.id).collect();
    assert_eq!(queue.contains(&ids).await.unwrap(), [true, false, false]);
    // Redis lets some scripts finish when it is full. The step was done completely or not at all.
    if settled.is_err() {
        assert_eq!(worker.settle(&lease, next()).await, SettleResult::Done);
    }
    assert_eq!(worker.next(Stage::Embedding).await.task.id, lease.task.id);
    assert_eq!(queue.enqueue(&sent).await.unwrap(), [false, true, true]);
}

#[tokio::test]
async fn a_redis_that_is_not_durable_is_reported_and_refused_on_request() {
    let (volatile, durable) = (Streams::start(), Streams::on(Redis::durable().unwrap()));
    let found = volatile.queue().health().await.unwrap();
    assert!(found.len() == 1 && found[0].contains("appendonly yes"), "{found:?}");
    assert_eq!(durable.queue().health().await.unwrap(), Vec::<String>::new());
    let strict = |bench: &Streams| open(RedisConfig { require_durable: true, ..bench.config() });
    let error = strict(&volatile).enqueue(&tasks(job(), "ann", 1)).await.unwrap_err();
    assert!(
        error.to_string().contains("queue.require_durable") && error.to_string().contains("appendonly yes")
    );
    strict(&durable).enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    durable
        .redis
        .ask::<String>(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"])
        .await;
    let found = durable.queue().health().await.unwrap();
    assert!(found.len() == 1 && found[0].contains("noeviction"), "{found:?}");
}

#[tokio::test]
async fn a_user_without_the_right_to_info_can_work() {
    let bench = Streams::start();
    let rights = ["ACL", "SETUSER", "worker", "on", ">secret", "~{embeddings}*", "+@all", "-info", "-config"];
    bench.redis.ask::<String>(&rights).await;
    let url = format!("redis://worker:secret@127.0.0.1:{}", bench.redis.port());
    let queue = open(crate::harness::config(&url, "{embeddings}"));
    queue.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    Worker::new(&queue, "w").next(Stage::Chunking).await;
    let found = queue.health().await.unwrap();
    assert!(found.len() == 1 && found[0].contains("INFO"), "{found:?}");
}

/// Only the server's clock counts. Tasks of clients whose clocks are years off keep their order and their leases.
#[tokio::test]
async fn clocks_of_clients_may_differ() {
    let bench = Streams::start();
    let queue = bench.queue();
    let job = job();
    let year = 365 * 24 * 3_600_000;
    for (item, at) in [(0, now_ms() + year), (1, now_ms()), (2, now_ms() - year)] {
        queue.enqueue(&[Task { enqueued_at_ms: at, ..task(job, item, "ann") }]).await.unwrap();
    }
    let leases = Worker::new(&queue, "w").take(Stage::Chunking, 3).await;
    assert_eq!(leases.iter().map(|lease| lease.task.id.item).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(Worker::new(&queue, "x").take(Stage::Chunking, 3).await.is_empty());
    assert!(queue.depth().await.unwrap()[&Stage::Chunking].oldest < LONG);
}

#[tokio::test]
async fn crashed_consumers_are_removed_from_their_groups() {
    let bench = Streams::start();
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 3)).await.unwrap();
    for name in ["one", "two", "three"] {
        Worker::new(&queue, name).holding(Duration::from_millis(5)).next(Stage::Chunking).await;
    }
    let idle = report("idle");
    queue.heartbeat(&idle, Duration::from_millis(1)).await.unwrap();
    Worker::new(&queue, "idle").take(Stage::Embedding, 1).await;
    let worker = Worker::new(&queue, "w");
    let mut taken = 0;
    while taken < 3 {
        taken += worker.take(Stage::Chunking, 3).await.len();
    }
    let consumers = async |stage: &str| {
        let (key, group) = (format!("{{embeddings}}:{stage}"), format!("{stage}-workers"));
        let list: Vec<HashMap<String, redis::Value>> =
            bench.redis.ask(&["XINFO", "CONSUMERS", &key, &group]).await;
        list.len()
    };
    assert_eq!(consumers("chunking").await, 1);
    queue.heartbeat(&report("w"), LONG).await.unwrap();
    assert_eq!(consumers("embedding").await, 0);
}
