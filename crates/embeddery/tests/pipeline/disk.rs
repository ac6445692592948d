//! A disk that is really full while documents come in, and has room again.

use std::{fs, io::Write as _, path::PathBuf, process::Command, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Plan};

/// A small disk below the cluster's directory: a tmpfs, where this user may mount one.
struct Disk(PathBuf);

const SIZE: &str = "24m";

impl Disk {
    fn mount(at: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&at).unwrap();
        let options = format!("size={SIZE}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(at)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever is being killed may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Takes the room away from a running server, and gives it back.
enum Squeeze {
    /// A file that fills the disk.
    Filler(Disk),
    /// No file of the process may grow beyond what is there: what a kernel refuses then is what a full disk refuses.
    Limit(u32),
}

impl Squeeze {
    fn fill(&self) {
        match self {
            Self::Filler(disk) => {
                let mut file = fs::File::create(disk.0.join("filler")).unwrap();
                for block in [vec![7; 1 << 16], vec![7; 512]] {
                    while file.write_all(&block).is_ok() {}
                }
            }
            Self::Limit(pid) => limit(*pid, "65536:unlimited"),
        }
    }

    /// What a write is answered: a limit is an error like that of a broken disk.
    fn refusal(&self) -> StatusCode {
        match self {
            Self::Filler(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Limit(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn free(&self) {
        match self {
            Self::Filler(disk) => fs::remove_file(disk.0.join("filler")).unwrap(),
            Self::Limit(pid) => limit(*pid, "unlimited:unlimited"),
        }
    }
}

fn limit(pid: u32, to: &str) {
    let done = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--fsize={to}")]).status();
    assert!(done.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_while_documents_come_in_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::mount(dir.path().join("Databases"));
    // The usual reserve is larger than this disk.
    let more = "collections: {min_free_bytes: 4096}";
    let cluster = Cluster::start_in(dir, Plan { workers: 0, more }).await;
    let squeeze = match disk {
        Ok(disk) => Squeeze::Filler(disk),
        Err(problem) => {
            println!("no small disk can be mounted here ({}); RLIMIT_FSIZE it is", problem.trim());
            Squeeze::Limit(cluster.api.id())
        }
    };
    let documents: Vec<_> = (0..300).map(|i| (format!("d{i}"), format!("Document number {i}."))).collect();
    let held = cluster.vendors.hold();
    let job = cluster.submit("before", "notes", &documents).await;
    held.arrived(1).await;
    squeeze.fill();
    held.release();
    // What comes now is refused, and told why.
    let text = "words ".repeat(20_000);
    let body = json!({"collection": "notes", "documents": [{"id": "late", "text": text}]});
    let answer = cluster.request(Method::POST, "/api/v1/embeddings/jobs").json(&body).send().await.unwrap();
    let (status, answer): (StatusCode, Value) = (answer.status(), answer.json().await.unwrap());
    assert_eq!(status, squeeze.refusal(), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("disk"), "{answer}");
    // Longer than a lease, in which everything that is tried fails.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let log = fs::read_to_string(cluster.dir.path().join("serve.log")).unwrap();
    assert!(log.contains("disk"), "the log says what is the matter: {log}");
    let (_, meanwhile) =
        cluster.patiently(|| cluster.request(Method::GET, &format!("/api/v1/embeddings/jobs/{job}"))).await;
    assert_eq!((&meanwhile["status"], &meanwhile["documents"]["failed"]), (&json!("running"), &json!(0)));
    squeeze.free();
    let job = cluster.ended(&job).await;
    assert_eq!((&job["status"], &job["documents"]["stored"]), (&json!("completed"), &json!(300)), "{job}");
    let path = format!("/api/v1/embeddings/jobs/{}/documents?limit=1000", job["job_id"].as_str().unwrap());
    let (_, rows) = cluster.patiently(|| cluster.request(Method::GET, &path)).await;
    let rows = rows["documents"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["attempts"].as_u64().unwrap_or(0) == 0), "{rows:?}");
    assert_eq!(cluster.stored("notes").await.len(), 300);
    let (status, answer) =
        cluster.patiently(|| cluster.request(Method::POST, "/api/v1/embeddings/jobs").json(&body)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
}
