//! A disk that is full while documents are submitted, and has space again later.

use std::{fs, io::Write as _, path::PathBuf, process::Command, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, ClusterConfig};

/// A small tmpfs below the cluster's directory, if this user may mount one.
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
        // A lazy unmount, because a killed process may still have open files.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Makes the disk of a running server full, and frees it again.
enum FullDisk {
    /// A file that fills the disk.
    Filler(Disk),
    /// A limit on the size of the process's files (RLIMIT_FSIZE). The kernel refuses the same writes as on a full disk.
    Limit(u32),
}

impl FullDisk {
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

    /// The status of a refused write. The limit looks like a broken disk.
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
    let status = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--fsize={to}")]).status();
    assert!(status.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_during_submissions_loses_no_document() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::mount(dir.path().join("Databases"));
    // The default of min_free_bytes is larger than this disk.
    let extra_config = "collections: {min_free_bytes: 4096}";
    let cluster = Cluster::start_in(dir, ClusterConfig { workers: 0, extra_config }).await;
    let full_disk = match disk {
        Ok(disk) => FullDisk::Filler(disk),
        Err(problem) => {
            println!("a small disk cannot be mounted ({}); using RLIMIT_FSIZE", problem.trim());
            FullDisk::Limit(cluster.api.id())
        }
    };
    let documents: Vec<_> = (0..300).map(|i| (format!("d{i}"), format!("Document number {i}."))).collect();
    let held = cluster.vendors.hold();
    let job = cluster.submit("before", "notes", &documents).await;
    held.arrived(1).await;
    full_disk.fill();
    held.release();
    // A submission to the full disk is refused with the reason.
    let text = "words ".repeat(20_000);
    let body = json!({"collection": "notes", "documents": [{"id": "late", "text": text}]});
    let response = cluster.request(Method::POST, "/api/v1/embeddings/jobs").json(&body).send().await.unwrap();
    let (status, response): (StatusCode, Value) = (response.status(), response.json().await.unwrap());
    assert_eq!(status, full_disk.refusal(), "{response}");
    assert!(response["error"]["message"].as_str().unwrap().contains("disk"), "{response}");
    // Longer than a lease, while every write fails.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let log = fs::read_to_string(cluster.dir.path().join("serve.log")).unwrap();
    assert!(log.contains("disk"), "the log names the disk: {log}");
    let (_, meanwhile) = cluster
        .send_until_available(|| cluster.request(Method::GET, &format!("/api/v1/embeddings/jobs/{job}")))
        .await;
    assert_eq!((&meanwhile["status"], &meanwhile["documents"]["failed"]), (&json!("running"), &json!(0)));
    full_disk.free();
    let job = cluster.ended(&job).await;
    assert_eq!((&job["status"], &job["documents"]["stored"]), (&json!("completed"), &json!(300)), "{job}");
    let path = format!("/api/v1/embeddings/jobs/{}/documents?limit=1000", job["job_id"].as_str().unwrap());
    let (_, rows) = cluster.send_until_available(|| cluster.request(Method::GET, &path)).await;
    let rows = rows["documents"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["attempts"].as_u64().unwrap_or(0) == 0), "{rows:?}");
    assert_eq!(cluster.stored("notes").await.len(), 300);
    let (status, response) = cluster
        .send_until_available(|| cluster.request(Method::POST, "/api/v1/embeddings/jobs").json(&body))
        .await;
    assert_eq!(status, StatusCode::ACCEPTED, "{response}");
}
