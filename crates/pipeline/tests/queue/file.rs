//! What only the queue in a file has: rows that cannot be read.

use embeddery_pipeline::Stage;

use crate::harness::{Bench as _, Sqlite, Worker, job, tasks};

#[tokio::test]
async fn rows_that_cannot_be_read_are_put_aside_though_their_place_is_used_again() {
    let bench = Sqlite::start();
    let queue = bench.queue();
    let (worker, sent) = (Worker::new(&queue, "w"), tasks(job(), "ann", 1));
    for found in 1..=3 {
        assert_eq!(queue.enqueue(&sent).await.unwrap(), [true]);
        bench.spoil(sent[0].id).await;
        assert!(worker.take(Stage::Chunking, 1).await.is_empty());
        assert_eq!(queue.dead_letters(Stage::Chunking, None, 10).await.unwrap().len(), found);
    }
}

#[tokio::test]
async fn what_a_newer_version_has_written_is_left_as_it_is() {
    let bench = Sqlite::start();
    let queue = bench.queue();
    let job = job();
    let sent = tasks(job, "ann", 4);
    queue.enqueue(&sent).await.unwrap();
    // A priority that nobody here knows, and what cannot be read at all, at the front.
    bench.change(sent[0].id, "version = 99, rank = -7").await;
    bench.change(sent[1].id, "version = 99, rank = -8, deaths = -1").await;
    let worker = Worker::new(&queue, "w");
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.extend(worker.take(Stage::Chunking, 5).await.iter().map(|lease| lease.task.id.item));
    }
    assert_eq!(taken, [2, 3], "the others go on");
    let depth = queue.depth().await.unwrap()[&Stage::Chunking];
    assert_eq!((depth.newer, depth.dead, depth.waiting), (2, 0, 0));
    let ranks = "SELECT GROUP_CONCAT(rank ORDER BY item) FROM task WHERE place = 5";
    let ranks: String = bench.file().query_row(ranks, [], |row| row.get(0)).unwrap();
    assert_eq!(ranks, "-7,-8");
    assert_eq!(queue.cancel(job).await.unwrap(), 1, "what can be read can be cancelled");
}
