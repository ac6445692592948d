//! Nothing is lost and nothing is stored twice, whoever dies when.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use crate::cluster::{Cluster, Plan, ended};

/// Kills of one round.
const KILLS: u32 = 3;

/// SplitMix64, so that a round that fails can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }
}

/// Documents of one to three chunks, each text unlike all others.
fn documents(round: u32, count: usize) -> Vec<(String, String)> {
    let text = |i: usize| {
        let chunks = (0..=i % 3).map(|c| format!("Round {round} document {i} part {c}."));
        chunks.collect::<Vec<_>>().join(" ")
    };
    (0..count).map(|i| (format!("d{i:05}"), text(i))).collect()
}

async fn rounds(rounds: u32, count: usize) {
    let mut cluster = Cluster::start(Plan { workers: 2, more: "" }).await;
    let (mut asked, mut due_in_all, began) = (0, 0, Instant::now());
    for round in 0..rounds {
        let (collection, documents) = (format!("round-{round}"), documents(round, count));
        let mut random = Random(u64::from(round));
        cluster.vendors.clear_requests();
        let job = cluster.submit(&collection, &collection, &documents).await;
        let mut killed = Vec::new();
        while killed.len() < KILLS as usize {
            tokio::time::sleep(Duration::from_millis(50 + random.below(700))).await;
            match random.below(4) {
                0 => cluster.kill_api(),
                1 => cluster.kill_redis(),
                worker => cluster.kill_worker(worker as usize - 2),
            }
            killed.push(ended(&cluster.job(&job).await));
        }
        let job = cluster.ended(&job).await;
        assert_eq!(job["status"], "completed", "round {round}: {job}\n{}", cluster.logs());
        let due: BTreeMap<String, Vec<String>> = documents
            .iter()
            .map(|(id, text)| {
                let parts = text.split_inclusive('.').map(|part| part.trim().to_owned());
                (id.clone(), parts.collect())
            })
            .collect();
        assert_eq!(cluster.stored(&collection).await, due, "round {round}");
        let texts = cluster.vendors.texts();
        let distinct: HashSet<&String> = texts.iter().collect();
        let chunks: usize = due.values().map(Vec::len).sum();
        assert!(distinct.len() >= chunks, "round {round}: not every text was asked for");
        // What was under way when somebody died is asked for again, and no more: two workers with two loops of 32
        // documents of at most three chunks.
        let most = chunks + KILLS as usize * 2 * 2 * 32 * 3;
        assert!(texts.len() <= most, "round {round}: {} texts were asked for, {chunks} are due", texts.len());
        (asked, due_in_all) = (asked + texts.len(), due_in_all + chunks);
        println!(
            "{} rounds of {count} documents, {KILLS} kills each, in {:.0} s; {asked} texts asked for, {due_in_all} due",
            round + 1,
            began.elapsed().as_secs_f64()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_whoever_is_killed() {
    rounds(15, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "half an hour; `make soak`"]
async fn soak_nothing_is_lost_whoever_is_killed() {
    rounds(300, 2000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_without_redis_nothing_is_lost_either() {
    let mut cluster = Cluster::start(Plan { workers: 0, more: "" }).await;
    for round in 0..5 {
        let (collection, documents) = (format!("round-{round}"), documents(round, 200));
        let mut random = Random(u64::from(round));
        let job = cluster.submit(&collection, &collection, &documents).await;
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(20 + random.below(300))).await;
            cluster.kill_api();
        }
        assert_eq!(cluster.ended(&job).await["status"], "completed", "{}", cluster.logs());
        assert_eq!(cluster.stored(&collection).await.len(), 200, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_kills_its_worker_ends_as_dead_letter_and_its_neighbours_are_stored() {
    let mut cluster = Cluster::start(Plan { workers: 1, more: "" }).await;
    let mut documents = documents(0, 20);
    documents[7].1 = "This one kills.".into();
    // The vendor does not answer calls with this text; whoever sent one is killed.
    let held = cluster.vendors.hold_text("This one kills.");
    let job = cluster.submit("poison", "poison", &documents).await;
    let mut calls = 0;
    loop {
        tokio::select! {
            () = held.arrived(calls + 1) => {
                calls += 1;
                cluster.kill_worker(0);
            }
            job = cluster.ended(&job) => {
                assert_eq!(job["status"], "partial", "{job}");
                break;
            }
        }
    }
    assert!((3..=6).contains(&calls), "it was tried {calls} times");
    let stored = cluster.stored("poison").await;
    assert!(stored.len() == 19 && !stored.contains_key("d00007"));
    let path = format!("/api/v1/embeddings/jobs/{job}/documents?status=failed");
    let (_, failed) = cluster.patiently(|| cluster.request(reqwest::Method::GET, &path)).await;
    assert!(failed.to_string().contains("died"), "{failed}");
}
