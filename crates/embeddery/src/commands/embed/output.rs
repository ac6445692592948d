//! Where vectors go: lines `{"id", "embedding"}`, or one NumPy array with a row for each line that asked. The file
//! bears its name only when it is complete; until then it is `OUT.part`. Lines without a vector are told in
//! `OUT.errors.jsonl`, and in an array their row is NaN.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use serde_json::Value;

use super::{
    super::ReportedError,
    embedder::Row,
    input::{Batch, Line},
    journal::{Entry, Journal, Plan},
};
use crate::cli;

/// Bytes before an array's first number; its shape is written into them at the end.
const NPY_HEADER: usize = 128;

/// The output with its journal and its file of errors; or standard output, which nobody can resume.
pub(super) struct Output {
    form: VendorApi,
    entry: Entry,
    files: Option<Files>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum VendorApi {
    Lines,
    Npy,
}

struct Files {
    output: File,
    errors: File,
    journal: Journal,
    paths: Paths,
}

struct Paths {
    output: PathBuf,
    part: PathBuf,
    errors: PathBuf,
    journal: PathBuf,
}

impl Paths {
    fn of(output: &Path) -> Self {
        let beside = |suffix: &str| {
            let mut name = output.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        Self {
            output: output.to_owned(),
            part: beside(".part"),
            errors: beside(".errors.jsonl"),
            journal: beside(".journal"),
        }
    }
}

/// Refuses, before a model is loaded, what would be refused anyway.
pub(super) fn check(options: &cli::Embed) -> anyhow::Result<()> {
    let paths = Paths::of(&options.output);
    if options.output == Path::new("-") {
        return Ok(());
    }
    if paths.output.exists() && !paths.journal.exists() && !options.overwrite {
        bail!(ReportedError(format!(
            "{} is there already; name another --output, or replace it with --overwrite",
            paths.output.display()
        )));
    }
    let parent = paths.output.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        bail!(ReportedError(format!("--output: {} is no directory", parent.display())));
    }
    Ok(())
}

impl Output {
    /// With where to begin; `None` when an earlier run has done everything.
    pub(super) fn open(options: &cli::Embed, plan: &Plan) -> anyhow::Result<(Self, Option<Entry>)> {
        let npy = options.output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy"));
        let form = if npy { VendorApi::Npy } else { VendorApi::Lines };
        if options.output == Path::new("-") {
            let output = Self { form: VendorApi::Lines, entry: Entry::default(), files: None };
            return Ok((output, Some(Entry::default())));
        }
        let paths = Paths::of(&options.output);
        let (journal, found) = Journal::open(&paths.journal, plan, options.overwrite)?;
        let complete = found.is_some() && paths.output.exists() && !paths.part.exists();
        let entry = found.unwrap_or_default();
        if complete {
            // Ended between the last two steps of `finish`.
            fs::remove_file(&paths.journal)?;
            return Ok((Self { form, entry, files: None }, None));
        }
        let output = at(&paths.part, entry.output)?;
        let errors = at(&paths.errors, entry.errors)?;
        sync_directory(&paths.output)?;
        let files = Files { output, errors, journal, paths };
        Ok((Self { form, entry: entry.clone(), files: Some(files) }, Some(entry)))
    }

    /// What is safely written by now.
    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Writes what came of a batch, waits until the disk has it, and says so in the journal.
    pub(super) fn write(&mut self, batch: &Batch, rows: &[Row]) -> anyhow::Result<()> {
        let mut entry = self.entry.clone();
        let (mut vectors, mut errors) = (Vec::new(), Vec::new());
        let mut last_answer = None;
        for (line, row) in batch.lines.iter().zip(rows) {
            match row {
                Row::Vector(answer, row) => {
                    if !last_answer.replace(answer).is_some_and(|last| std::sync::Arc::ptr_eq(last, answer)) {
                        entry.truncated += answer.truncated as u64;
                    }
                    self.begin(&mut entry, answer.dim, &mut vectors)?;
                    entry.space.get_or_insert_with(|| answer.space.to_string());
                    let vector = &answer.data[row * answer.dim..(row + 1) * answer.dim];
                    match self.form {
                        VendorApi::Lines => {
                            json(&mut vectors, &OutputRecord { id: &line.id, embedding: vector })?
                        }
                        VendorApi::Npy => vectors.extend(vector.iter().flat_map(|x| x.to_le_bytes())),
                    }
                }
                Row::Failed(why) => {
                    entry.failed += 1;
                    json(&mut errors, &Failed::of(line, why))?;
                    if self.form == VendorApi::Npy {
                        vectors.extend(nan(entry.dim.unwrap_or_default()));
                    }
                }
            }
            entry.asked += 1;
        }
        entry.output += vectors.len() as u64;
        entry.errors += errors.len() as u64;
        entry.place = batch.end.clone();
        match &mut self.files {
            None => {
                io::stdout().lock().write_all(&vectors).context("writing to standard output")?;
                io::stderr().lock().write_all(&errors)?;
            }
            Some(files) => {
                let written = files.output.write_all(&vectors).and_then(|()| files.output.sync_data());
                written.with_context(|| format!("writing {}", files.paths.part.display()))?;
                if !errors.is_empty() {
                    let written = files.errors.write_all(&errors).and_then(|()| files.errors.sync_data());
                    written.with_context(|| format!("writing {}", files.paths.errors.display()))?;
                }
                let entered = files.journal.append(&entry);
                entered.with_context(|| format!("writing {}", files.paths.journal.display()))?;
            }
        }
        self.entry = entry;
        Ok(())
    }

    /// The length of a vector is learnt from the first one. An array has room for its shape before it, and rows for
    /// the lines that failed until then.
    fn begin(&self, entry: &mut Entry, dim: usize, vectors: &mut Vec<u8>) -> anyhow::Result<()> {
        if let Some(known) = entry.dim {
            ensure!(known == dim, "the model answered with {dim} numbers a vector, and before with {known}");
            return Ok(());
        }
        entry.dim = Some(dim);
        if self.form == VendorApi::Npy {
            vectors.extend([0; NPY_HEADER]);
            let rows = usize::try_from(entry.asked)?;
            vectors.extend(nan(dim * rows));
        }
        Ok(())
    }

    /// Gives the file its name, and ends the journal.
    pub(super) fn finish(self) -> anyhow::Result<Entry> {
        let Some(mut files) = self.files else { return Ok(self.entry) };
        if self.form == VendorApi::Npy {
            let header = npy_header(self.entry.asked, self.entry.dim.unwrap_or_default());
            files.output.seek(SeekFrom::Start(0))?;
            files.output.write_all(&header)?;
            files.output.sync_data()?;
        }
        let Paths { output, part, errors, journal } = &files.paths;
        fs::rename(part, output).with_context(|| format!("naming {}", output.display()))?;
        if self.entry.errors == 0 {
            fs::remove_file(errors)?;
        }
        sync_directory(output)?;
        fs::remove_file(journal)?;
        Ok(self.entry)
    }
}

#[derive(Serialize)]
struct OutputRecord<'a> {
    id: &'a Value,
    embedding: &'a [f32],
}

#[derive(Serialize)]
struct Failed<'a> {
    line: u64,
    id: &'a Value,
    error: &'a str,
}

impl<'a> Failed<'a> {
    fn of(line: &'a Line, error: &'a str) -> Self {
        Self { line: line.number, id: &line.id, error }
    }
}

fn json(into: &mut Vec<u8>, line: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *into, line)?;
    into.push(b'\n');
    Ok(())
}

fn nan(numbers: usize) -> impl Iterator<Item = u8> {
    std::iter::repeat_n(f32::NAN.to_le_bytes(), numbers).flatten()
}

/// The file, cut to what the journal vouches for.
fn at(path: &Path, length: u64) -> anyhow::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let mut file = file.with_context(|| format!("opening {}", path.display()))?;
    if file.metadata()?.len() < length {
        bail!(ReportedError(format!(
            "{} is shorter than its journal says; start over with --overwrite",
            path.display()
        )));
    }
    file.set_len(length)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

/// A new name is safe only when its directory is.
fn sync_directory(of: &Path) -> io::Result<()> {
    let parent = of.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// NumPy's format 1.0, always of the same length.
fn npy_header(rows: u64, dim: usize) -> Vec<u8> {
    let about = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let text = NPY_HEADER - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text as u16).to_le_bytes());
    header.extend(format!("{about:<width$}\n", width = text - 1).bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrays_header_always_fits() {
        for (rows, dim) in [(0, 0), (3, 384), (u64::MAX, 99_999)] {
            let header = npy_header(rows, dim);
            assert_eq!(header.len(), NPY_HEADER);
            assert!(header.ends_with(b"\n") && header[10..].starts_with(b"{'descr': '<f4'"));
        }
    }
}
