//! What a person at a terminal sees meanwhile, and the line that everybody gets at the end. Both on standard error:
//! standard output may be the vectors.

use std::{fmt, io::Write as _, path::Path, time::Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::journal::Entry;

/// A bar over the input's bytes: lines are counted only when they have been read.
pub(super) struct Progress {
    bar: ProgressBar,
    began: Instant,
    /// Lines that an earlier run has done.
    before: u64,
}

impl Progress {
    pub(super) fn new(total: Option<u64>, start: &Entry) -> Self {
        let (bar, form) = match total {
            Some(total) => (ProgressBar::new(total), "{wide_bar} {percent:>3} %  {msg}  ready in {eta}"),
            None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
        };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_position(start.place.bytes);
        bar.reset_eta();
        Self { bar, began: Instant::now(), before: start.asked }
    }

    pub(super) fn at(&self, entry: &Entry) {
        self.bar.set_position(entry.place.bytes);
        let failed = match entry.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        self.bar.set_message(format!("{} lines{failed}, {:.0}/s", entry.asked, self.rate(entry)));
    }

    pub(super) fn end(&self, output: &Path, entry: &Entry) {
        self.bar.finish_and_clear();
        let made = entry.asked - entry.failed;
        let dim = entry.dim.unwrap_or_default();
        let mut line = format!(
            "{made} vectors of {dim} numbers in {}, {:.0} lines/s",
            if output == Path::new("-") { "standard output".into() } else { output.display().to_string() },
            self.rate(entry)
        );
        if entry.truncated > 0 {
            line += &format!("; {} texts were cut to the model's limit", entry.truncated);
        }
        if entry.failed > 0 {
            line += &format!("; {} lines failed", entry.failed);
            if output != Path::new("-") {
                line += &format!(", see {}.errors.jsonl", output.display());
            }
        }
        say(line);
    }

    fn rate(&self, entry: &Entry) -> f64 {
        (entry.asked - self.before) as f64 / self.began.elapsed().as_secs_f64().max(1e-3)
    }
}

/// A line on standard error.
pub(super) fn say(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
