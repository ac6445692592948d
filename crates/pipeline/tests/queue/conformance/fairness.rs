//! Turns between tenants, and priorities within one.

use std::collections::HashMap;

use embeddery_pipeline::{Outcome, Priority, QueueOptions, Stage, Task};

use crate::harness::{Bench, SHORT, Worker, job, next, tasks};

pub async fn a_small_tenant_does_not_wait_for_a_large_one(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "large", 200)).await.unwrap();
    queue.enqueue(&tasks(job(), "small", 5)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    for stage in Stage::ALL {
        let mut order = Vec::new();
        for turn in 0..20 {
            if turn == 10 && stage == Stage::Chunking {
                queue.enqueue(&tasks(job(), "late", 3)).await.unwrap();
            }
            let lease = worker.next(stage).await;
            order.push(lease.task.tenant.to_string());
            worker.settle(&lease, next()).await;
        }
        let small = order.iter().rposition(|tenant| tenant == "small").unwrap();
        let tenants = if stage == Stage::Chunking { 2 } else { 3 };
        assert!(small < 5 * tenants, "{stage:?}: {order:?}");
        if stage == Stage::Chunking {
            let late = order.iter().rposition(|tenant| tenant == "late").unwrap();
            assert!(late <= 16, "a tenant that comes late gets a turn at once: {order:?}");
        }
    }
}

pub async fn a_tenant_that_keeps_enqueueing_does_not_starve_others(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "b", 20)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let mut turns: HashMap<String, u32> = HashMap::new();
    for _ in 0..20 {
        queue.enqueue(&tasks(job(), "a", 1)).await.unwrap();
        let lease = worker.next(Stage::Chunking).await;
        *turns.entry(lease.task.tenant.to_string()).or_default() += 1;
        worker.settle(&lease, Outcome::Finished).await;
    }
    assert!(turns["b"] >= 9, "{turns:?}");
}

pub async fn tasks_of_a_tenant_are_leased_by_priority_then_age(bench: &dyn Bench) {
    let queue = bench.queue();
    let (low, normal, high) = (job(), job(), job());
    for (job, priority) in [(low, Priority::Low), (normal, Priority::Normal), (high, Priority::High)] {
        let sent: Vec<Task> =
            tasks(job, "ann", 2).into_iter().map(|task| Task { priority, ..task }).collect();
        queue.enqueue(&sent).await.unwrap();
    }
    assert_eq!(queue.reprioritize(low, Priority::High).await.unwrap(), 2);
    let worker = Worker::new(&queue, "w");
    let leases = worker.take(Stage::Chunking, 10).await;
    let order: Vec<_> = leases.iter().map(|lease| (lease.task.id.job, lease.task.id.item)).collect();
    assert_eq!(order, [(low, 0), (low, 1), (high, 0), (high, 1), (normal, 0), (normal, 1)]);
    assert_eq!(queue.reprioritize(low, Priority::Low).await.unwrap(), 0, "leased tasks do not move");
    worker.settle(&leases[0], next()).await;
    assert_eq!(worker.next(Stage::Embedding).await.task.priority, Priority::Low, "later stages keep it");
}

pub async fn a_turn_without_a_result_is_refunded(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 100)).await.unwrap();
    queue.enqueue(&tasks(job(), "bob", 100)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let parked = Outcome::RetryAfter { after: SHORT, charged: false };
    for outcome in [Outcome::Release, parked] {
        let (ann, bob): (Vec<_>, Vec<_>) = worker
            .take(Stage::Chunking, 20)
            .await
            .into_iter()
            .partition(|lease| &*lease.task.tenant == "ann");
        assert!((9..=11).contains(&ann.len()), "{}", ann.len());
        for lease in &bob {
            worker.settle(lease, next()).await;
        }
        for lease in &ann {
            worker.settle(lease, outcome.clone()).await;
        }
        while queue.depth().await.unwrap()[&Stage::Chunking].delayed > 0 {
            assert!(Worker::new(&queue, "w").take(Stage::Chunking, 0).await.is_empty());
        }
        let again = worker.take(Stage::Chunking, 9).await;
        assert!(again.iter().all(|lease| &*lease.task.tenant == "ann"), "{outcome:?}: it is ann's turn");
        for lease in &again {
            worker.settle(lease, next()).await;
        }
    }
}

pub async fn refunds_do_not_starve_other_tenants(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 900)).await.unwrap();
    queue.enqueue(&tasks(job(), "bob", 400)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let mut parked = Vec::new();
    for lease in worker.take(Stage::Chunking, 600).await {
        if &*lease.task.tenant == "bob" {
            worker.settle(&lease, next()).await;
        } else {
            parked.push((lease, Outcome::Release));
        }
    }
    assert!(parked.len() >= 290);
    queue.settle(&parked).await.unwrap();
    let turns = worker.take(Stage::Chunking, 150).await;
    assert!(turns.iter().any(|lease| &*lease.task.tenant == "bob"), "refunds do not put ann far ahead");
}

pub async fn tasks_in_flight_per_tenant_are_limited(bench: &dyn Bench) {
    let queue = bench.open(QueueOptions { in_flight_per_tenant: Some(3), ..QueueOptions::default() });
    queue.enqueue(&tasks(job(), "ann", 10)).await.unwrap();
    queue.enqueue(&tasks(job(), "bob", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let leases = worker.take(Stage::Chunking, 10).await;
    assert_eq!(leases.iter().filter(|lease| &*lease.task.tenant == "ann").count(), 3);
    assert_eq!(leases.len(), 4);
    assert!(worker.take(Stage::Chunking, 10).await.is_empty());
    let ann: Vec<_> = leases.iter().filter(|lease| &*lease.task.tenant == "ann").collect();
    worker.settle(ann[0], next()).await;
    worker.settle(ann[1], Outcome::Release).await;
    assert_eq!(worker.take(Stage::Chunking, 10).await.len(), 2);
}
