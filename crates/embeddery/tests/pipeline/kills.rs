//! Documents are neither lost nor stored twice when the API, Redis or a worker is killed at any moment.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use crate::cluster::{Cluster, ClusterConfig, ended};

/// Kills in one round.
const KILLS: u32 = 3;

/// SplitMix64. Its seed is the round, so that a failed round can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Documents of one to three chunks. All texts are different.
fn documents(round: u32, count: usize) -> Vec<(String, String)> {
    let text = |i: usize| {
        let chunks = (0..=i % 3).map(|c| format!("Round {round} document {i} part {c}."));
        chunks.collect::<Vec<_>>().join(" ")
    };
    (0..count).map(|i| (format!("d{i:05}"), text(i))).collect()
}

async fn rounds(rounds: u32, count: usize) {
    let mut cluster = Cluster::start(ClusterConfig { workers: 2, extra_config: "" }).await;
    let (mut embedded, mut expected_chunks, start) = (0, 0, Instant::now());
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
        let expected: BTreeMap<String, Vec<String>> = documents
            .iter()
            .map(|(id, text)| {
                let parts = text.split_inclusive('.').map(|part| part.trim().to_owned());
                (id.clone(), parts.collect())
            })
            .collect();
        assert_eq!(cluster.stored(&collection).await, expected, "round {round}");
        let texts = cluster.vendors.texts();
        let distinct: HashSet<&String> = texts.iter().collect();
        let chunks: usize = expected.values().map(Vec::len).sum();
        assert!(distinct.len() >= chunks, "round {round}: a text was not embedded");
        // Only the work in progress at a kill is embedded again: at most two workers with two loops of 32 documents of
        // three chunks.
        let max = chunks + KILLS as usize * 2 * 2 * 32 * 3;
        assert!(texts.len() <= max, "round {round}: {} texts were embedded, {chunks} expected", texts.len());
        (embedded, expected_chunks) = (embedded + texts.len(), expected_chunks + chunks);
        println!(
            "{} rounds of {count} documents, {KILLS} kills each, in {:.0} s; {embedded} texts embedded, {expected_chunks} expected",
            round + 1,
            start.elapsed().as_secs_f64()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_document_is_lost_when_processes_are_killed() {
    rounds(15, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "half an hour; `make soak`"]
async fn soak_no_document_is_lost_when_processes_are_killed() {
    rounds(300, 2000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_document_is_lost_when_a_server_without_redis_is_killed() {
    let mut cluster = Cluster::start(ClusterConfig { workers: 0, extra_config: "" }).await;
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
async fn a_document_that_crashes_its_worker_becomes_a_dead_letter_and_the_others_are_stored() {
    let mut cluster = Cluster::start(ClusterConfig { workers: 1, extra_config: "" }).await;
    let mut documents = documents(0, 20);
    documents[7].1 = "This one kills.".into();
    // The vendor holds requests with this text. The worker that sent one is killed.
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
    assert!((3..=6).contains(&calls), "{calls} attempts");
    let stored = cluster.stored("poison").await;
    assert!(stored.len() == 19 && !stored.contains_key("d00007"));
    let path = format!("/api/v1/embeddings/jobs/{job}/documents?status=failed");
    let (_, failed) = cluster.send_until_available(|| cluster.request(reqwest::Method::GET, &path)).await;
    assert!(failed.to_string().contains("died"), "{failed}");
}
