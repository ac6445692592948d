//! The audit log: who was refused, who did what as an admin. JSON lines, one file that is renamed when it is
//! full, a fixed number of old ones. No key, no token, no text ever gets here: an event has no field for them.

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

/// Where the log lies and how large it may become.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// `audit.jsonl`; older ones are `audit.jsonl.1` and on.
    pub path: PathBuf,
    /// Bytes after which a new file begins.
    pub max_bytes: u64,
    /// How many old files are kept.
    pub keep: u32,
}

/// Something that an auditor asks for.
#[derive(Clone, Debug, Serialize)]
pub struct Event<'a> {
    /// `login_refused`, `admin_refused`, `admin_action`, `admin_change`, `admin_action_ended`.
    pub event: &'static str,
    /// Who, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// GET, POST…
    pub method: &'a str,
    /// The route, not the path.
    pub route: &'a str,
    /// Ties it to the lines of the log.
    pub request_id: &'a str,
    /// What is changed, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<&'a str>,
    /// Which of its fields, or to what: never a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<&'a str>,
    /// Why, when it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// The log, open for appending. Several processes may write it: a line is one write, and a file that another
/// process has renamed is noticed.
pub struct Audit {
    config: AuditConfig,
    file: Mutex<File>,
}

impl Audit {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// When it cannot be written, with the reason for an operator.
    pub fn open(config: AuditConfig) -> Result<Self, String> {
        let file = open(&config).map_err(|error| format!("{}: {error}", config.path.display()))?;
        Ok(Self { config, file: Mutex::new(file) })
    }

    /// Writes an event down. A failure is logged: an audit log that cannot be written must not be silent.
    pub fn record(&self, event: &Event<'_>) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.append(&mut file, event) {
            tracing::error!(%error, file = %self.config.path.display(), event = event.event, "an audit event could not be written");
        }
    }

    fn append(&self, file: &mut File, event: &Event<'_>) -> io::Result<()> {
        let line = Line { time: Timestamp::now().to_string(), event };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        let (mine, there) = (file.metadata()?, fs::metadata(&self.config.path).ok());
        if there.as_ref().is_none_or(|there| there.ino() != mine.ino()) {
            *file = open(&self.config)?;
        } else if mine.len() > 0 && mine.len() + bytes.len() as u64 > self.config.max_bytes {
            self.rotate(mine.ino())?;
            *file = open(&self.config)?;
        }
        file.write_all(&bytes)
    }

    /// Renames the files, unless another process has just done it.
    fn rotate(&self, full: u64) -> io::Result<()> {
        let lock = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.config.path.with_extension("lock"))?;
        lock.lock()?;
        if fs::metadata(&self.config.path).is_ok_and(|there| there.ino() != full) {
            return Ok(());
        }
        if self.config.keep == 0 {
            return fs::remove_file(&self.config.path);
        }
        for number in (1..self.config.keep).rev() {
            let (from, to) = (self.old(number), self.old(number + 1));
            if from.exists() {
                fs::rename(from, to)?;
            }
        }
        fs::rename(&self.config.path, self.old(1))
    }

    fn old(&self, number: u32) -> PathBuf {
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

    fn event(id: &str) -> Event<'_> {
        Event {
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
    fn an_event_is_one_line_whatever_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::open(AuditConfig { path: path.clone(), max_bytes: 1 << 20, keep: 2 }).unwrap();
        audit.record(&Event { user: Some("ann\n{\"event\":\"forged\"}"), ..event("a") });
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
    fn files_stay_small_and_few_also_with_two_writers() {
        let dir = tempfile::tempdir().unwrap();
        let config = AuditConfig { path: dir.path().join("audit.jsonl"), max_bytes: 2000, keep: 2 };
        let audits = [Audit::open(config.clone()).unwrap(), Audit::open(config).unwrap()];
        for n in 0..200 {
            audits[n % 2].record(&event(&format!("{n:03}")));
        }
        let names = ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"];
        let mut last = Vec::new();
        for name in names.iter().rev() {
            let text = fs::read_to_string(dir.path().join(name)).unwrap();
            assert!(text.len() <= 2000);
            last.extend(text.lines().map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["request_id"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            }));
        }
        let wanted: Vec<String> = (200 - last.len()..200).map(|n| format!("{n:03}")).collect();
        assert_eq!(last, wanted, "what is kept is the end, without a gap");
        assert!(!dir.path().join("audit.jsonl.3").exists());
    }
}
