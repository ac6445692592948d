//! What every queue does.

use std::{collections::HashMap, time::Duration};

use embeddery_pipeline::{
    BacklogSize, Consumer, Depth, MAX_ISOLATED_CRASHES, MAX_SHARED_CRASHES, Outcome, Priority, QueueOptions,
    Reason, SettleResult, Stage, StageMode, Task, WorkerStatus,
};

use crate::harness::{Bench, LONG, SHORT, Worker, job, next, now_ms, task, tasks};

fn reason() -> Reason {
    Reason { code: "broken".into(), message: "it is 'broken': \u{e4}\u{1f600}".into() }
}

pub async fn a_task_goes_through_all_stages_and_is_gone(bench: &dyn Bench) {
    let queue = bench.queue();
    let sent = Task {
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        priority: Priority::High,
        ..task(job(), 3, "ann/\u{fc} {x}")
    };
    assert_eq!(queue.enqueue(std::slice::from_ref(&sent)).await.unwrap(), [true]);
    let worker = Worker::new(&queue, "w");
    for (stage, bytes) in [(Stage::Chunking, 100), (Stage::Embedding, 50), (Stage::Storage, 50)] {
        let lease = worker.next(stage).await;
        assert_eq!(lease.task, Task { stage, bytes, ..sent.clone() });
        assert!(!lease.exclusive);
        assert!(worker.take(stage, 5).await.is_empty(), "nobody gets it twice");
        assert_eq!(worker.settle(&lease, next()).await, SettleResult::Done);
        assert_eq!(worker.settle(&lease, next()).await, SettleResult::Lost, "a lease ends once");
    }
    assert_eq!(queue.contains(&[sent.id]).await.unwrap(), [false]);
    assert!(queue.depth().await.unwrap().values().all(|depth| *depth == Depth::default()));
    assert_eq!(queue.backlog("ann/\u{fc} {x}").await.unwrap().all, BacklogSize::default());
}

pub async fn enqueueing_twice_is_enqueueing_once(bench: &dyn Bench) {
    let queue = bench.queue();
    let job = job();
    assert_eq!(queue.enqueue(&tasks(job, "ann", 2)).await.unwrap(), [true, true]);
    assert_eq!(bench.queue().enqueue(&tasks(job, "ann", 3)).await.unwrap(), [false, false, true]);
    let worker = Worker::new(&queue, "w");
    let lease = worker.next(Stage::Chunking).await;
    worker.settle(&lease, next()).await;
    assert_eq!(queue.enqueue(&[lease.task]).await.unwrap(), [false], "it is at the next stage");
    assert_eq!(queue.backlog("ann").await.unwrap().tenant.items, 3);
    assert_eq!(queue.enqueue(&[]).await.unwrap(), [] as [bool; 0]);
}

pub async fn who_lost_a_lease_can_neither_settle_nor_renew(bench: &dyn Bench) {
    let (one, other) = (bench.queue(), bench.queue());
    one.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let (slow, quick) = (Worker::new(&one, "slow").holding(SHORT), Worker::new(&other, "quick"));
    let stale = slow.next(Stage::Chunking).await;
    let fresh = quick.next(Stage::Chunking).await;
    assert_eq!((fresh.task.id, fresh.task.deaths), (stale.task.id, 1));
    assert_ne!(fresh.token, stale.token);
    for outcome in [
        next(),
        Outcome::Finished,
        Outcome::Release,
        Outcome::RetryAfter { after: SHORT, charged: true },
        Outcome::DeadLetter(reason()),
    ] {
        assert_eq!(slow.settle(&stale, outcome).await, SettleResult::Lost);
    }
    assert_eq!(one.renew(&[stale.clone(), fresh.clone()], LONG).await.unwrap(), [false, true]);
    // Not with another's name either.
    let stolen = embeddery_pipeline::Lease { consumer: Consumer("thief".into()), ..fresh.clone() };
    assert_eq!(slow.settle(&stolen, next()).await, SettleResult::Lost);
    assert_eq!(quick.settle(&fresh, next()).await, SettleResult::Done);
}

pub async fn the_same_worker_cannot_settle_with_an_old_lease(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w").holding(SHORT);
    let old = worker.next(Stage::Chunking).await;
    let new = Worker::new(&queue, "w").next(Stage::Chunking).await;
    assert_eq!(worker.settle(&old, next()).await, SettleResult::Lost);
    assert_eq!(worker.settle(&new, next()).await, SettleResult::Done);
}

pub async fn a_renewed_lease_does_not_run_out(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w").holding(Duration::from_millis(200));
    let lease = worker.next(Stage::Chunking).await;
    assert_eq!(queue.renew(std::slice::from_ref(&lease), LONG).await.unwrap(), [true]);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert!(Worker::new(&queue, "x").take(Stage::Chunking, 1).await.is_empty());
    assert_eq!(worker.settle(&lease, next()).await, SettleResult::Done);
    assert_eq!(Worker::new(&queue, "x").next(Stage::Embedding).await.task.deaths, 0);
}

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
            assert!(late <= 16, "who comes late takes his turn at once: {order:?}");
        }
    }
}

pub async fn a_tenant_that_always_comes_again_does_not_starve_others(bench: &dyn Bench) {
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

pub async fn priorities_order_a_tenants_work_and_age_the_rest(bench: &dyn Bench) {
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
    assert_eq!(queue.reprioritize(low, Priority::Low).await.unwrap(), 0, "leased ones keep going");
    worker.settle(&leases[0], next()).await;
    assert_eq!(worker.next(Stage::Embedding).await.task.priority, Priority::Low, "later stages keep it");
}

pub async fn later_is_later_and_charged_when_it_was_the_tasks_own(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 2)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let first = worker.next(Stage::Chunking).await;
    worker.settle(&first, Outcome::RetryAfter { after: LONG, charged: true }).await;
    let second = worker.next(Stage::Chunking).await;
    assert_eq!(second.task.id.item, 1);
    let depth = queue.depth().await.unwrap()[&Stage::Chunking];
    assert_eq!((depth.delayed, depth.leased, depth.waiting), (1, 1, 0));
    worker.settle(&second, Outcome::RetryAfter { after: Duration::from_millis(30), charged: true }).await;
    let again = worker.next(Stage::Chunking).await;
    assert_eq!((again.task.id.item, again.task.attempts), (1, 1));
    worker.settle(&again, Outcome::RetryAfter { after: SHORT, charged: false }).await;
    let again = worker.next(Stage::Chunking).await;
    assert_eq!((again.task.attempts, again.task.deaths), (1, 0));
    worker.settle(&again, next()).await;
    assert_eq!(worker.next(Stage::Embedding).await.task.attempts, 0, "a new stage begins anew");
}

pub async fn what_is_handed_back_is_first_again(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 5)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    for lease in worker.take(Stage::Chunking, 2).await {
        assert_eq!(worker.settle(&lease, Outcome::Release).await, SettleResult::Done);
    }
    let again = worker.take(Stage::Chunking, 3).await;
    let seen: Vec<_> = again.iter().map(|l| (l.task.id.item, l.task.deaths, l.task.attempts)).collect();
    assert_eq!(seen, [(0, 0, 0), (1, 0, 0), (2, 0, 0)]);
}

pub async fn a_task_that_kills_runs_alone_and_ends_as_a_dead_letter(bench: &dyn Bench) {
    let queue = bench.queue();
    let job = job();
    queue.enqueue(&tasks(job, "ann", 1)).await.unwrap();
    let dying = Worker::new(&queue, "dying").holding(SHORT);
    for death in 0..MAX_SHARED_CRASHES {
        let lease = dying.next(Stage::Chunking).await;
        assert_eq!((lease.task.deaths, lease.exclusive), (death, false));
    }
    queue.enqueue(&[task(job, 1, "ann"), task(job, 2, "ann")]).await.unwrap();
    for death in 0..MAX_ISOLATED_CRASHES {
        // It comes by itself, though the worker has room for more.
        let mut leases = Vec::new();
        while leases.is_empty() || !leases.iter().any(|lease: &embeddery_pipeline::Lease| lease.exclusive) {
            leases = dying.take(Stage::Chunking, 10).await;
            if leases.iter().any(|lease| !lease.exclusive) {
                for lease in &leases {
                    Worker::new(&queue, "dying").settle(lease, Outcome::Release).await;
                }
            }
        }
        assert_eq!((leases.len(), leases[0].task.deaths), (1, MAX_SHARED_CRASHES + death));
    }
    let worker = Worker::new(&queue, "w");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let lease = worker.next(Stage::Chunking).await;
        assert_ne!(lease.task.id.item, 0);
        seen.push(lease.task.id.item);
        worker.settle(&lease, Outcome::Finished).await;
    }
    let mut letters = queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    while letters.is_empty() {
        worker.take(Stage::Chunking, 1).await;
        letters = queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    }
    assert_eq!(&*letters[0].reason.code, "worker_died");
    let dead = letters[0].task.clone().unwrap();
    assert_eq!((dead.id.item, dead.deaths), (0, MAX_SHARED_CRASHES + MAX_ISOLATED_CRASHES));
}

pub async fn a_worker_is_cleared_for_what_must_run_alone(bench: &dyn Bench) {
    let queue = bench.queue();
    let job = job();
    let suspect = Task { deaths: MAX_SHARED_CRASHES, ..task(job, 0, "ann") };
    queue.enqueue(&[suspect]).await.unwrap();
    queue.enqueue(&[task(job, 1, "ann"), task(job, 2, "ann"), task(job, 3, "ann")]).await.unwrap();
    let depth = queue.depth().await.unwrap()[&Stage::Chunking];
    assert_eq!((depth.waiting, depth.bytes), (4, 400));
    let (one, other) = (Worker::new(&queue, "one").busy(), Worker::new(&queue, "other").busy());
    let asked = one.ask(Stage::Chunking, 5).await;
    assert!(asked.drain_for_exclusive && asked.leases.is_empty(), "the first who asks is to become idle");
    let second = other.ask(Stage::Chunking, 1).await;
    assert!(!second.drain_for_exclusive && second.leases.len() == 1, "the others go on");
    // What the first has at hand takes long.
    bench.age_clearing(Stage::Chunking).await;
    queue.heartbeat(&report("one"), LONG).await.unwrap();
    queue.heartbeat(&report("other"), LONG).await.unwrap();
    assert!(!other.ask(Stage::Chunking, 0).await.drain_for_exclusive, "it lives, so it is still its turn");
    assert!(one.ask(Stage::Chunking, 1).await.drain_for_exclusive, "who asks again is told again");
    bench.age_clearing(Stage::Chunking).await;
    queue.deregister(&one.consumer).await.unwrap();
    assert!(other.ask(Stage::Chunking, 1).await.drain_for_exclusive, "it is gone, so another one is asked");
    let one = Worker::new(&queue, "one");
    let leases = one.take(Stage::Chunking, 5).await;
    assert_eq!((leases.len(), leases[0].exclusive, leases[0].task.id.item), (1, true, 0));
    one.settle(&leases[0], next()).await;
    assert!(!one.next(Stage::Embedding).await.exclusive, "it has done no harm: a new stage begins anew");
    assert_eq!(one.busy().take(Stage::Chunking, 5).await.len(), 2);
}

/// Whoever reports is alive: a lease of its that runs out is one it never heard of.
pub async fn an_answer_that_is_lost_is_no_death(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let (alive, silent) = (Worker::new(&queue, "w").holding(SHORT), Worker::new(&queue, "x").holding(SHORT));
    queue.heartbeat(&report("w"), LONG).await.unwrap();
    for _ in 0..=MAX_SHARED_CRASHES {
        let lease = alive.next(Stage::Chunking).await;
        assert_eq!((lease.task.deaths, lease.task.attempts, lease.exclusive), (0, 0, false));
    }
    assert_eq!(silent.next(Stage::Chunking).await.task.deaths, 0);
    assert_eq!(alive.next(Stage::Chunking).await.task.deaths, 1, "who is silent has died");
}

/// Nobody could renew while the queue was away.
pub async fn time_in_which_nobody_is_heard_is_not_counted(bench: &dyn Bench) {
    let options = QueueOptions { outage_threshold: Duration::from_millis(100), ..QueueOptions::default() };
    let queue = bench.open(options);
    queue.enqueue(&tasks(job(), "ann", 2)).await.unwrap();
    let worker = Worker::new(&queue, "w").holding(Duration::from_millis(400));
    let (one, two) = (worker.next(Stage::Chunking).await, worker.next(Stage::Chunking).await);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let other = Worker::new(&queue, "x");
    assert!(other.take(Stage::Chunking, 1).await.is_empty(), "its leases hold");
    assert_eq!(worker.settle(&one, next()).await, SettleResult::Done);
    // From here on somebody is heard, and it is silent.
    let again = loop {
        queue.heartbeat(&report("x"), LONG).await.unwrap();
        if let Some(lease) = other.take(Stage::Chunking, 1).await.pop() {
            break lease;
        }
    };
    assert_eq!(again.task, Task { deaths: 1, ..two.task });
}

pub async fn a_turn_that_came_to_nothing_is_given_back(bench: &dyn Bench) {
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
            let nobody = Worker::new(&queue, "w").take(Stage::Chunking, 0).await;
            assert!(nobody.is_empty());
        }
        let again = worker.take(Stage::Chunking, 9).await;
        assert!(again.iter().all(|lease| &*lease.task.tenant == "ann"), "{outcome:?}: it is ann's turn");
        for lease in &again {
            worker.settle(lease, next()).await;
        }
    }
}

pub async fn turns_given_back_do_not_keep_others_waiting(bench: &dyn Bench) {
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
    assert!(turns.iter().any(|lease| &*lease.task.tenant == "bob"), "an outage is not made up for at once");
}

pub async fn what_breaks_off_counts_as_a_death(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    for death in 0..MAX_SHARED_CRASHES + MAX_ISOLATED_CRASHES {
        let lease = worker.next(Stage::Chunking).await;
        assert_eq!((lease.task.deaths, lease.exclusive), (death, death >= MAX_SHARED_CRASHES));
        assert_eq!(worker.settle(&lease, Outcome::Crashed { after: SHORT }).await, SettleResult::Done);
    }
    let letters = queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    assert_eq!(&*letters[0].reason.code, "worker_died");
    assert!(letters[0].reason.message.contains("defect of the program"), "{}", letters[0].reason.message);
    queue.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    let lease = worker.next(Stage::Chunking).await;
    worker.settle(&lease, Outcome::Crashed { after: LONG }).await;
    assert!(worker.take(Stage::Chunking, 1).await.is_empty());
    assert_eq!(queue.depth().await.unwrap()[&Stage::Chunking].delayed, 1, "not before the pause is over");
}

pub async fn a_message_of_a_newer_version_is_left_to_newer_workers(bench: &dyn Bench) {
    let queue = bench.queue();
    let job = job();
    let sent = tasks(job, "ann", 3);
    queue.enqueue(&sent).await.unwrap();
    bench.write_version(sent[0].id, 99).await;
    // One that must run alone, too.
    let suspect = Task { deaths: MAX_SHARED_CRASHES, ..task(job, 3, "ann") };
    queue.enqueue(std::slice::from_ref(&suspect)).await.unwrap();
    bench.write_version(suspect.id, 99).await;
    let worker = Worker::new(&queue, "w");
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.extend(worker.take(Stage::Chunking, 5).await.iter().map(|lease| lease.task.id.item));
    }
    assert_eq!(taken, [1, 2], "the others go on");
    let found = queue.depth().await.unwrap()[&Stage::Chunking];
    assert_eq!((found.newer, found.delayed, found.dead, found.waiting), (2, 0, 0, 0), "operators see it");
    assert_eq!(queue.contains(&[sent[0].id, suspect.id]).await.unwrap(), [true, true]);
    assert_eq!(queue.enqueue(&sent[..1]).await.unwrap(), [false]);
    assert_eq!(queue.backlog("ann").await.unwrap().tenant.items, 4);
    // A worker of that version.
    for id in [sent[0].id, suspect.id] {
        bench.write_version(id, 1).await;
    }
    let suspicious = worker.next(Stage::Chunking).await;
    assert_eq!((suspicious.task.id, suspicious.exclusive), (suspect.id, true));
    let lease = worker.next(Stage::Chunking).await;
    assert_eq!((lease.task.id, lease.task.attempts, lease.task.deaths), (sent[0].id, 0, 0));
    assert_eq!(worker.settle(&lease, next()).await, SettleResult::Done);
    assert_eq!(queue.depth().await.unwrap()[&Stage::Chunking].newer, 0);
}

pub async fn a_message_that_nobody_can_read_is_put_aside(bench: &dyn Bench) {
    let queue = bench.queue();
    let sent = tasks(job(), "ann", 3);
    queue.enqueue(&sent).await.unwrap();
    bench.spoil(sent[0].id).await;
    let worker = Worker::new(&queue, "w");
    let mut taken = Vec::new();
    while queue.dead_letters(Stage::Chunking, None, 10).await.unwrap().is_empty() || taken.len() < 2 {
        taken.extend(worker.take(Stage::Chunking, 1).await.iter().map(|lease| lease.task.id.item));
    }
    assert_eq!(taken, [1, 2], "the others go on");
    let letters = queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    assert_eq!((letters.len(), &*letters[0].reason.code), (1, "unreadable"));
    assert!(letters[0].raw.is_some() && letters[0].task.is_none(), "it is kept as it was found");
    assert_eq!(
        queue.contains(&[sent[0].id]).await.unwrap(),
        [false],
        "the reconciler brings the document again"
    );
    assert_eq!(queue.backlog("ann").await.unwrap().tenant.items, 2);
    assert_eq!(queue.enqueue(&sent).await.unwrap(), [true, false, false]);
    assert_eq!(worker.next(Stage::Chunking).await.task, sent[0]);
    assert_eq!(
        queue.dead_letters(Stage::Chunking, None, 10).await.unwrap().len(),
        1,
        "it stays for the operator"
    );
}

pub async fn a_cancelled_job_is_out_wherever_it_was(bench: &dyn Bench) {
    let queue = bench.queue();
    let (gone, stays) = (job(), job());
    queue.enqueue(&tasks(gone, "ann", 2500)).await.unwrap();
    queue.enqueue(&tasks(stays, "ann", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let leases = worker.take(Stage::Chunking, 4).await;
    worker.settle(&leases[0], next()).await;
    worker.settle(&leases[1], Outcome::RetryAfter { after: SHORT, charged: true }).await;
    assert_eq!(queue.cancel(gone).await.unwrap(), 2498);
    assert_eq!(queue.cancel(gone).await.unwrap(), 0);
    assert_eq!(queue.renew(&leases[2..], LONG).await.unwrap(), [false, false], "nobody wants it any more");
    assert_eq!(worker.settle(&leases[2], next()).await, SettleResult::Cancelled);
    assert_eq!(worker.settle(&leases[3], Outcome::DeadLetter(reason())).await, SettleResult::Cancelled);
    assert_eq!(worker.settle(&leases[3], next()).await, SettleResult::Lost);
    assert!(worker.take(Stage::Embedding, 5).await.is_empty());
    assert_eq!(worker.next(Stage::Chunking).await.task.id.job, stays);
    assert_eq!(queue.backlog("ann").await.unwrap().tenant.items, 1);
    assert_eq!(queue.depth().await.unwrap()[&Stage::Chunking].dead, 0);
}

pub async fn a_cancelled_task_whose_worker_dies_is_gone(bench: &dyn Bench) {
    let queue = bench.queue();
    let job = job();
    queue.enqueue(&tasks(job, "ann", 1)).await.unwrap();
    let lease = Worker::new(&queue, "w").holding(Duration::from_millis(20)).next(Stage::Chunking).await;
    queue.cancel(job).await.unwrap();
    while queue.contains(&[lease.task.id]).await.unwrap()[0] {
        assert!(Worker::new(&queue, "x").take(Stage::Chunking, 1).await.is_empty());
    }
    assert_eq!(queue.backlog("ann").await.unwrap().all.items, 0);
}

pub async fn dead_letters_are_listed_revived_and_buried(bench: &dyn Bench) {
    let queue = bench.queue();
    let job = job();
    queue.enqueue(&tasks(job, "ann", 4)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    for _ in 0..4 {
        let lease = worker.next(Stage::Chunking).await;
        assert_eq!(worker.settle(&lease, Outcome::DeadLetter(reason())).await, SettleResult::Done);
    }
    let before = now_ms();
    let all = queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    let items: Vec<_> = all.iter().map(|letter| letter.task.as_ref().unwrap().id.item).collect();
    assert_eq!(items, [3, 2, 1, 0], "newest first");
    assert!(all.iter().all(|l| l.reason == reason() && l.raw.is_none() && l.at_ms.abs_diff(before) < 60_000));
    let page = queue.dead_letters(Stage::Chunking, Some(all[1].id.clone()), 1).await.unwrap();
    assert_eq!(page, [all[2].clone()]);
    let ids: Vec<_> = tasks(job, "ann", 4).iter().map(|task| task.id).collect();
    assert_eq!(queue.contains(&ids).await.unwrap(), [true; 4]);
    let depth = queue.depth().await.unwrap();
    assert_eq!(depth[&Stage::Chunking], Depth { dead: 4, ..Depth::default() });
    assert_eq!(queue.backlog("ann").await.unwrap().tenant.items, 0, "dead ones press nobody");

    assert_eq!(queue.dead_letter(Stage::Chunking, &all[2].id).await.unwrap(), Some(all[2].clone()));
    assert_eq!(queue.dead_letter(Stage::Storage, &all[2].id).await.unwrap(), None);
    assert!(queue.annotate(Stage::Chunking, &all[3].id, "seen").await.unwrap());
    assert!(!queue.annotate(Stage::Storage, &all[3].id, "seen").await.unwrap());
    let asked = [all[3].id.clone(), all[2].id.clone()];
    assert_eq!(queue.remarks(Stage::Chunking, &asked).await.unwrap(), [Some("seen".to_owned()), None]);

    assert!(queue.revive(Stage::Chunking, &all[0].id).await.unwrap());
    assert!(!queue.revive(Stage::Chunking, &all[0].id).await.unwrap());
    assert!(!queue.revive(Stage::Storage, &all[1].id).await.unwrap());
    let lease = worker.next(Stage::Chunking).await;
    assert_eq!((lease.task.id.item, lease.task.attempts, lease.task.deaths), (3, 0, 0));
    assert!(queue.delete_dead_letter(Stage::Chunking, &all[1].id).await.unwrap());
    assert!(!queue.delete_dead_letter(Stage::Chunking, &all[1].id).await.unwrap());
    assert_eq!(queue.contains(&ids).await.unwrap(), [true, true, false, true]);
    assert_eq!(queue.enqueue(&[task(job, 1, "ann")]).await.unwrap(), [true], "who enqueues it wants it done");
    let left = queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    assert_eq!(left, [all[3].clone()]);
}

pub async fn dead_letters_are_not_kept_without_end(bench: &dyn Bench) {
    let queue = bench.open(QueueOptions { dead_letters: 2, ..QueueOptions::default() });
    let job = job();
    queue.enqueue(&tasks(job, "ann", 5)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    for _ in 0..5 {
        let lease = worker.next(Stage::Chunking).await;
        worker.settle(&lease, Outcome::DeadLetter(reason())).await;
    }
    queue.heartbeat(&report("w"), LONG).await.unwrap();
    let left = queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    let items: Vec<_> = left.iter().map(|letter| letter.task.as_ref().unwrap().id.item).collect();
    assert_eq!(items, [4, 3]);
    let ids: Vec<_> = tasks(job, "ann", 5).iter().map(|task| task.id).collect();
    assert_eq!(queue.contains(&ids).await.unwrap(), [false, false, false, true, true]);
}

pub async fn dead_letters_are_not_kept_for_ever(bench: &dyn Bench) {
    let queue = bench.open(QueueOptions { dead_letter_age: SHORT, ..QueueOptions::default() });
    let worker = Worker::new(&queue, "w");
    for _ in 0..3 {
        queue.enqueue(&tasks(job(), "ann", 40)).await.unwrap();
        for _ in 0..40 {
            let lease = worker.next(Stage::Chunking).await;
            worker.settle(&lease, Outcome::DeadLetter(reason())).await;
        }
    }
    // Whoever works looks after them.
    while !queue.dead_letters(Stage::Chunking, None, 1).await.unwrap().is_empty() {
        queue.heartbeat(&report("w"), LONG).await.unwrap();
    }
}

pub async fn stages_pause_and_drain(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.enqueue(&tasks(job(), "ann", 3)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let leases = worker.take(Stage::Chunking, 2).await;
    queue.set_flow(Stage::Chunking, StageMode::Pause).await.unwrap();
    assert_eq!(bench.queue().flow().await.unwrap()[&Stage::Chunking], StageMode::Pause);
    assert!(worker.take(Stage::Chunking, 1).await.is_empty());
    worker.settle(&leases[0], next()).await;
    queue.set_flow(Stage::Embedding, StageMode::Drain).await.unwrap();
    worker.settle(&leases[1], next()).await;
    let embedding = worker.take(Stage::Embedding, 5).await;
    assert_eq!(embedding.len(), 1, "what is in is worked off, what would enter waits");
    let depth = queue.depth().await.unwrap()[&Stage::Embedding];
    assert_eq!((depth.held, depth.leased, depth.waiting), (1, 1, 0));
    worker.settle(&embedding[0], next()).await;
    queue.set_flow(Stage::Embedding, StageMode::Run).await.unwrap();
    queue.set_flow(Stage::Chunking, StageMode::Run).await.unwrap();
    assert_eq!(worker.take(Stage::Embedding, 5).await.len(), 1);
    assert_eq!(worker.take(Stage::Chunking, 5).await.len(), 1);
    assert!(queue.flow().await.unwrap().values().all(|flow| *flow == StageMode::Run));
    assert_eq!(queue.depth().await.unwrap()[&Stage::Embedding].held, 0);
}

pub async fn a_draining_stage_holds_new_jobs_and_cancels_them(bench: &dyn Bench) {
    let queue = bench.queue();
    queue.set_flow(Stage::Chunking, StageMode::Drain).await.unwrap();
    let (one, other) = (job(), job());
    queue.enqueue(&tasks(one, "ann", 2)).await.unwrap();
    queue.enqueue(&tasks(other, "ann", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    assert!(worker.take(Stage::Chunking, 5).await.is_empty());
    assert_eq!(queue.backlog("ann").await.unwrap().tenant.items, 3);
    assert_eq!(queue.cancel(one).await.unwrap(), 2);
    queue.set_flow(Stage::Chunking, StageMode::Run).await.unwrap();
    assert_eq!(worker.next(Stage::Chunking).await.task.id.job, other);
    assert!(worker.take(Stage::Chunking, 5).await.is_empty());
}

pub async fn depth_and_pressure_tell_what_is_there(bench: &dyn Bench) {
    let queue = bench.queue();
    let old: Vec<Task> = tasks(job(), "ann", 4)
        .into_iter()
        .map(|task| Task { enqueued_at_ms: now_ms() - 5000, ..task })
        .collect();
    queue.enqueue(&old).await.unwrap();
    queue.enqueue(&tasks(job(), "bob", 2)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let lease = worker.take(Stage::Chunking, 1).await.remove(0);
    worker.settle(&lease, next()).await;
    let leased = worker.take(Stage::Chunking, 1).await.remove(0);
    let depth = queue.depth().await.unwrap();
    let chunking = Depth { oldest: Duration::ZERO, ..depth[&Stage::Chunking] };
    assert_eq!(chunking, Depth { waiting: 4, leased: 1, bytes: 400, ..Depth::default() });
    assert_eq!((depth[&Stage::Embedding].waiting, depth[&Stage::Embedding].bytes), (1, 50));
    let (ann, bob) = (queue.backlog("ann").await.unwrap(), queue.backlog("bob").await.unwrap());
    assert_eq!((ann.tenant.items, bob.tenant.items, ann.all.items), (4, 2, 6));
    assert_eq!((ann.tenant.bytes, bob.tenant.bytes, bob.all.bytes), (350, 200, 550));
    assert!(ann.tenant.oldest >= Duration::from_secs(5) && ann.all.oldest >= Duration::from_secs(5));
    assert!(bob.tenant.oldest < Duration::from_secs(5));
    let nobody = queue.backlog("nobody").await.unwrap().tenant;
    assert_eq!(nobody, BacklogSize::default());
    worker.settle(&leased, Outcome::Finished).await;
    assert_eq!(queue.backlog("ann").await.unwrap().all.items, 5);
}

pub async fn a_tenant_has_no_more_in_flight_than_allowed(bench: &dyn Bench) {
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

fn report(name: &str) -> WorkerStatus {
    WorkerStatus {
        consumer: Consumer(name.into()),
        stages: vec![Stage::Chunking, Stage::Storage],
        slots: 4,
        busy: 1,
        done: (10, 2),
        started_at_ms: 1_764_000_000_123,
        version: "0.1.0".into(),
    }
}

pub async fn workers_are_known_while_they_report(bench: &dyn Bench) {
    let queue = bench.queue();
    assert!(queue.workers().await.unwrap().is_empty());
    queue.heartbeat(&report("a"), LONG).await.unwrap();
    queue.heartbeat(&report("b"), Duration::from_millis(20)).await.unwrap();
    let busier = WorkerStatus { busy: 3, ..report("a") };
    queue.heartbeat(&busier, LONG).await.unwrap();
    while bench.queue().workers().await.unwrap().len() > 1 {}
    assert_eq!(queue.workers().await.unwrap(), [busier]);
    queue.deregister(&Consumer("a".into())).await.unwrap();
    assert!(queue.workers().await.unwrap().is_empty());
}

pub async fn who_retires_hands_everything_back(bench: &dyn Bench) {
    let queue = bench.queue();
    let (stays, gone) = (job(), job());
    queue.enqueue(&tasks(stays, "ann", 3)).await.unwrap();
    queue.enqueue(&tasks(gone, "ann", 1)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    let leases = worker.take(Stage::Chunking, 4).await;
    worker.settle(&leases[0], next()).await;
    worker.take(Stage::Embedding, 1).await;
    queue.cancel(gone).await.unwrap();
    queue.deregister(&worker.consumer).await.unwrap();
    queue.deregister(&worker.consumer).await.unwrap();
    let other = Worker::new(&queue, "x");
    let again = other.take(Stage::Chunking, 5).await;
    assert_eq!(again.iter().map(|l| (l.task.id.item, l.task.deaths)).collect::<Vec<_>>(), [(1, 0), (2, 0)]);
    assert_eq!(other.take(Stage::Embedding, 5).await.len(), 1);
    assert_eq!(worker.settle(&leases[1], next()).await, SettleResult::Lost);
}

pub async fn who_waits_is_woken_by_another_process(bench: &dyn Bench) {
    let (here, there) = (bench.queue(), bench.queue());
    let worker = Worker::new(&here, "w");
    assert!(worker.take(Stage::Chunking, 1).await.is_empty());
    let waiting = tokio::spawn(async move {
        while worker.take(Stage::Chunking, 1).await.is_empty() {
            worker.queue.wait(Stage::Chunking, Duration::from_secs(60)).await;
        }
    });
    there.enqueue(&tasks(job(), "ann", 1)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it sleeps on").unwrap();
}

pub async fn many_workers_do_everything_once(bench: &dyn Bench) {
    let (a, b) = (bench.queue(), bench.queue());
    let sent: Vec<Task> = (0..4).flat_map(|tenant| tasks(job(), &format!("tenant-{tenant}"), 150)).collect();
    let workers: Vec<_> = (0..8)
        .map(|number| {
            let worker = Worker::new(if number % 2 == 0 { &a } else { &b }, &format!("w{number}")).busy();
            tokio::spawn(async move {
                let mut done = Vec::new();
                let mut empty = 0;
                while empty < 30 {
                    empty += 1;
                    for stage in Stage::ALL {
                        for lease in worker.take(stage, 1 + number % 5).await {
                            empty = 0;
                            assert_eq!(worker.settle(&lease, next()).await, SettleResult::Done);
                            done.push((lease.task.id, stage));
                        }
                    }
                    if empty > 0 {
                        worker.queue.wait(Stage::Storage, Duration::from_millis(20)).await;
                    }
                }
                done
            })
        })
        .collect();
    for part in sent.chunks(97) {
        a.enqueue(part).await.unwrap();
    }
    let mut done = Vec::new();
    for worker in workers {
        done.extend(worker.await.unwrap());
    }
    let mut due: Vec<_> = sent.iter().flat_map(|task| Stage::ALL.map(|stage| (task.id, stage))).collect();
    done.sort_unstable();
    due.sort_unstable();
    assert_eq!(done, due);
    assert!(b.depth().await.unwrap().values().all(|depth| *depth == Depth::default()));
}
