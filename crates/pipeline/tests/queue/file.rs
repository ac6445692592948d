//! Rows of the SQLite queue that cannot be read.

use embeddery_pipeline::Stage;

use crate::harness::{Bench as _, Sqlite, Worker, job, tasks};

#[tokio::test]
async fn unreadable_rows_become_dead_letters_although_their_ids_are_used_again() {
    let bench = Sqlite::start();
    let queue = bench.queue();
    let (worker, sent) = (Worker::new(&queue, "w"), tasks(job(), "ann", 1));
    for found in 1..=3 {
        assert_eq!(queue.enqueue(&sent).await.unwrap(), [true]);
        bench.corrupt(sent[0].id).await;
        assert!(worker.take(Stage::Chunking, 1).await.is_empty());
        assert_eq!(queue.dead_letters(Stage::Chunking, None, 10).await.unwrap().len(), found);
    }
}

#[tokio::test]
async fn rows_of_a_newer_version_do_not_change() {
    let bench = Sqlite::start();
    let queue = bench.queue();
    let job = job();
    let sent = tasks(job, "ann", 4);
    queue.enqueue(&sent).await.unwrap();
    // An unknown priority, and a row that cannot be read at all, at the front.
    bench.change(sent[0].id, "version = 99, rank = -7").await;
    bench.change(sent[1].id, "version = 99, rank = -8, deaths = -1").await;
    let worker = Worker::new(&queue, "w");
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.extend(worker.take(Stage::Chunking, 5).await.iter().map(|lease| lease.task.id.item));
    }
    assert_eq!(taken, [2, 3], "the others get tasks");
    let depth = queue.depth().await.unwrap()[&Stage::Chunking];
    assert_eq!((depth.newer, depth.dead, depth.waiting), (2, 0, 0));
    let ranks = "SELECT GROUP_CONCAT(rank ORDER BY item) FROM task WHERE place = 5";
    let ranks: String = bench.file().query_row(ranks, [], |row| row.get(0)).unwrap();
    assert_eq!(ranks, "-7,-8");
    assert_eq!(queue.cancel(job).await.unwrap(), 1, "a row that can be read can be cancelled");
}
