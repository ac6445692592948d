//! The audit log: rejected authentications and administrative actions, as JSON lines in a file that is rotated by size.
//! An event has no field for keys, tokens or texts, so none can be logged.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use serde::Serialize;

/// The path and the maximum size of the log.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// Path of the current file, such as `audit.jsonl`. Rotated files are `audit.jsonl.1` and so on.
    pub path: PathBuf,
    /// Maximum size of a file in bytes.
    pub max_bytes: u64,
    /// Maximum number of rotated files.
    pub keep: u32,
}

/// An event of the audit log.
#[derive(Clone, Debug, Serialize)]
pub struct AuditEvent<'a> {
    /// The kind of event: `login_refused`, `admin_refused`, `admin_action`, `admin_change`, `admin_action_ended`.
    pub event: &'static str,
    /// The user, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    /// The IP address of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The HTTP method.
    pub method: &'a str,
    /// The route, which unlike the path has no values from the caller.
    pub route: &'a str,
    /// The request id, which log lines share.
    pub request_id: &'a str,
    /// The name of the object that is changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<&'a str>,
    /// The changed fields or the new value; never a text of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<&'a str>,
    /// The reason of a rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The status of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a AuditEvent<'a>,
}

/// The log, open for appending. Several processes may share it: each line is a single write, and a file that another
/// process has rotated is reopened.
pub struct AuditLog {
    config: AuditConfig,
    file: Mutex<File>,
}

impl AuditLog {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// When the file cannot be opened for writing.
    pub fn open(config: AuditConfig) -> Result<Self, String> {
        let file = open(&config).map_err(|error| format!("{}: {error}", config.path.display()))?;
        Ok(Self { config, file: Mutex::new(file) })
    }

    /// Appends an event. A failure does not fail the request, but it is logged as an error.
    pub fn record(&self, event: &AuditEvent<'_>) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.append(&mut file, event) {
            tracing::error!(%error, file = %self.config.path.display(), event = event.event, "audit event could not be written");
        }
    }

    fn append(&self, file: &mut File, event: &AuditEvent<'_>) -> io::Result<()> {
        let line = Line { time: Timestamp::now().to_string(), event };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        let (open_file, current) = (file.metadata()?, fs::metadata(&self.config.path).ok());
        if current.as_ref().is_none_or(|current| current.ino() != open_file.ino()) {
            *file = open(&self.config)?;
        } else if open_file.len() > 0 && open_file.len() + bytes.len() as u64 > self.config.max_bytes {
            self.rotate(open_file.ino())?;
            *file = open(&self.config)?;
        }
        file.write_all(&bytes)
    }

    /// Rotates the files, unless another process has already rotated the file with this inode.
    fn rotate(&self, full_inode: u64) -> io::Result<()> {
        let lock = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.config.path.with_extension("lock"))?;
        lock.lock()?;
        if fs::metadata(&self.config.path).is_ok_and(|current| current.ino() != full_inode) {
            return Ok(());
        }
        if self.config.keep == 0 {
            return fs::remove_file(&self.config.path);
        }
        for number in (1..self.config.keep).rev() {
            let (from, to) = (self.rotated_path(number), self.rotated_path(number + 1));
            if from.exists() {
                fs::rename(from, to)?;
            }
        }
        fs::rename(&self.config.path, self.rotated_path(1))
    }

    fn rotated_path(&self, number: u32) -> PathBuf {
        let mut path = self.config.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

fn open(config: &AuditConfig) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(&config.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> AuditEvent<'_> {
        AuditEvent {
            event: "login_refused",
            user: None,
            address: Some(IpAddr::from([127, 0, 0, 1])),
            method: "POST",
            route: "/v1/embeddings",
            request_id: id,
            subject: None,
            changed: None,
            reason: Some("wrong key"),
            status: None,
        }
    }

    #[test]
    fn an_event_is_one_line_for_any_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = AuditLog::open(AuditConfig { path: path.clone(), max_bytes: 1 << 20, keep: 2 }).unwrap();
        audit.record(&AuditEvent { user: Some("ann\n{\"event\":\"forged\"}"), ..event("a") });
        audit.record(&event("b"));
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["user"], "ann\n{\"event\":\"forged\"}");
        assert_eq!((&lines[1]["reason"], &lines[1]["address"]), (&"wrong key".into(), &"127.0.0.1".into()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn size_and_number_of_files_are_limited_with_two_writers() {
        let dir = tempfile::tempdir().unwrap();
        let config = AuditConfig { path: dir.path().join("audit.jsonl"), max_bytes: 2000, keep: 2 };
        let audits = [AuditLog::open(config.clone()).unwrap(), AuditLog::open(config).unwrap()];
        for n in 0..200 {
            audits[n % 2].record(&event(&format!("{n:03}")));
        }
        let names = ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"];
        let mut ids = Vec::new();
        for name in names.iter().rev() {
            let text = fs::read_to_string(dir.path().join(name)).unwrap();
            assert!(text.len() <= 2000);
            ids.extend(text.lines().map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["request_id"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            }));
        }
        let expected: Vec<String> = (200 - ids.len()..200).map(|n| format!("{n:03}")).collect();
        assert_eq!(ids, expected, "the newest events without a gap");
        assert!(!dir.path().join("audit.jsonl.3").exists());
    }
}
