//! The progress bar on a terminal, and the summary line at the end. Both go to standard error, because standard output may
//! be the vectors.

use std::{fmt, io::Write as _, path::Path, time::Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::journal::Entry;

/// A progress bar over the bytes of the input, because the number of lines is not known in advance.
pub(super) struct Progress {
    bar: ProgressBar,
    start: Instant,
    /// Lines that an earlier run has written.
    earlier_lines: u64,
}

impl Progress {
    pub(super) fn new(total_bytes: Option<u64>, resumed: &Entry) -> Self {
        let (bar, template) = match total_bytes {
            Some(total) => (ProgressBar::new(total), "{wide_bar} {percent:>3} %  {msg}  {eta} left"),
            None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_position(resumed.position.bytes);
        bar.reset_eta();
        Self { bar, start: Instant::now(), earlier_lines: resumed.asked }
    }

    pub(super) fn update(&self, entry: &Entry) {
        self.bar.set_position(entry.position.bytes);
        let failed = match entry.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        self.bar.set_message(format!("{} lines{failed}, {:.0}/s", entry.asked, self.rate(entry)));
    }

    pub(super) fn finish(&self, output: &Path, entry: &Entry) {
        self.bar.finish_and_clear();
        let vectors = entry.asked - entry.failed;
        let dim = entry.dim.unwrap_or_default();
        let mut line = format!(
            "{vectors} vectors of {dim} dimensions in {}, {:.0} lines/s",
            if output == Path::new("-") { "standard output".into() } else { output.display().to_string() },
            self.rate(entry)
        );
        if entry.truncated > 0 {
            line += &format!("; {} texts were truncated to the model's limit", entry.truncated);
        }
        if entry.failed > 0 {
            line += &format!("; {} lines failed", entry.failed);
            if output != Path::new("-") {
                line += &format!(", see {}.errors.jsonl", output.display());
            }
        }
        println_stderr(line);
    }

    fn rate(&self, entry: &Entry) -> f64 {
        (entry.asked - self.earlier_lines) as f64 / self.start.elapsed().as_secs_f64().max(1e-3)
    }
}

/// Writes a line to standard error.
pub(super) fn println_stderr(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
