//! Dead letters, and messages that cannot be read.

use embeddery_pipeline::{Depth, MAX_SHARED_CRASHES, Outcome, QueueOptions, SettleResult, Stage, Task};

use crate::harness::{Bench, LONG, SHORT, Worker, job, next, now_ms, reason, status, task, tasks};

pub async fn a_message_of_a_newer_version_is_left_to_newer_workers(bench: &dyn Bench) {
    let queue = bench.queue();
    let job = job();
    let sent = tasks(job, "ann", 3);
    queue.enqueue(&sent).await.unwrap();
    bench.write_version(sent[0].id, 99).await;
    // Also a task that must run alone.
    let suspect = Task { deaths: MAX_SHARED_CRASHES, ..task(job, 3, "ann") };
    queue.enqueue(std::slice::from_ref(&suspect)).await.unwrap();
    bench.write_version(suspect.id, 99).await;
    let worker = Worker::new(&queue, "w");
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.extend(worker.take(Stage::Chunking, 5).await.iter().map(|lease| lease.task.id.item));
    }
    assert_eq!(taken, [1, 2], "the others get tasks");
    let found = queue.depth().await.unwrap()[&Stage::Chunking];
    assert_eq!(
        (found.newer, found.delayed, found.dead, found.waiting),
        (2, 0, 0, 0),
        "the depth counts them"
    );
    assert_eq!(queue.contains(&[sent[0].id, suspect.id]).await.unwrap(), [true, true]);
    assert_eq!(queue.enqueue(&sent[..1]).await.unwrap(), [false]);
    assert_eq!(queue.backlog("ann").await.unwrap().tenant.items, 4);
    // As a worker of that version sees them.
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

pub async fn an_unreadable_message_becomes_a_dead_letter(bench: &dyn Bench) {
    let queue = bench.queue();
    let sent = tasks(job(), "ann", 3);
    queue.enqueue(&sent).await.unwrap();
    bench.corrupt(sent[0].id).await;
    let worker = Worker::new(&queue, "w");
    let mut taken = Vec::new();
    while queue.dead_letters(Stage::Chunking, None, 10).await.unwrap().is_empty() || taken.len() < 2 {
        taken.extend(worker.take(Stage::Chunking, 1).await.iter().map(|lease| lease.task.id.item));
    }
    assert_eq!(taken, [1, 2], "the others get tasks");
    let letters = queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    assert_eq!((letters.len(), &*letters[0].reason.code), (1, "unreadable"));
    assert!(letters[0].raw.is_some() && letters[0].task.is_none(), "the message is kept as it was found");
    assert_eq!(
        queue.contains(&[sent[0].id]).await.unwrap(),
        [false],
        "the reconciler enqueues the document again"
    );
    assert_eq!(queue.backlog("ann").await.unwrap().tenant.items, 2);
    assert_eq!(queue.enqueue(&sent).await.unwrap(), [true, false, false]);
    assert_eq!(worker.next(Stage::Chunking).await.task, sent[0]);
    assert_eq!(
        queue.dead_letters(Stage::Chunking, None, 10).await.unwrap().len(),
        1,
        "the dead letter stays for the operator"
    );
}

pub async fn dead_letters_are_listed_requeued_and_deleted(bench: &dyn Bench) {
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
    assert_eq!(queue.backlog("ann").await.unwrap().tenant.items, 0, "dead letters do not count");

    assert_eq!(queue.dead_letter(Stage::Chunking, &all[2].id).await.unwrap(), Some(all[2].clone()));
    assert_eq!(queue.dead_letter(Stage::Storage, &all[2].id).await.unwrap(), None);
    assert!(queue.annotate(Stage::Chunking, &all[3].id, "seen").await.unwrap());
    assert!(!queue.annotate(Stage::Storage, &all[3].id, "seen").await.unwrap());
    let asked = [all[3].id.clone(), all[2].id.clone()];
    assert_eq!(queue.remarks(Stage::Chunking, &asked).await.unwrap(), [Some("seen".to_owned()), None]);

    assert_eq!(queue.enqueue(&[task(job, 3, "ann")]).await.unwrap(), [true], "its dead letter is removed");
    assert_eq!(queue.dead_letter(Stage::Chunking, &all[0].id).await.unwrap(), None);
    let lease = worker.next(Stage::Chunking).await;
    assert_eq!((lease.task.id.item, lease.task.attempts, lease.task.deaths), (3, 0, 0));
    assert!(queue.delete_dead_letter(Stage::Chunking, &all[1].id).await.unwrap());
    assert!(!queue.delete_dead_letter(Stage::Chunking, &all[1].id).await.unwrap());
    assert_eq!(queue.contains(&ids).await.unwrap(), [true, true, false, true]);
    assert_eq!(
        queue.enqueue(&[task(job, 1, "ann")]).await.unwrap(),
        [true],
        "enqueueing replaces the dead letter"
    );
    let left = queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    assert_eq!(left, [all[3].clone()]);
}

pub async fn the_number_of_dead_letters_is_limited(bench: &dyn Bench) {
    let queue = bench.open(QueueOptions { dead_letters: 2, ..QueueOptions::default() });
    let job = job();
    queue.enqueue(&tasks(job, "ann", 5)).await.unwrap();
    let worker = Worker::new(&queue, "w");
    for _ in 0..5 {
        let lease = worker.next(Stage::Chunking).await;
        worker.settle(&lease, Outcome::DeadLetter(reason())).await;
    }
    queue.heartbeat(&status("w"), LONG).await.unwrap();
    let left = queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    let items: Vec<_> = left.iter().map(|letter| letter.task.as_ref().unwrap().id.item).collect();
    assert_eq!(items, [4, 3]);
    let ids: Vec<_> = tasks(job, "ann", 5).iter().map(|task| task.id).collect();
    assert_eq!(queue.contains(&ids).await.unwrap(), [false, false, false, true, true]);
}

pub async fn dead_letters_expire(bench: &dyn Bench) {
    let queue = bench.open(QueueOptions { dead_letter_age: SHORT, ..QueueOptions::default() });
    let worker = Worker::new(&queue, "w");
    for _ in 0..3 {
        queue.enqueue(&tasks(job(), "ann", 40)).await.unwrap();
        for _ in 0..40 {
            let lease = worker.next(Stage::Chunking).await;
            worker.settle(&lease, Outcome::DeadLetter(reason())).await;
        }
    }
    // Heartbeats remove them.
    while !queue.dead_letters(Stage::Chunking, None, 1).await.unwrap().is_empty() {
        queue.heartbeat(&status("w"), LONG).await.unwrap();
    }
}
