//! Writes vectors as lines `{"id", "embedding"}`, or as one NumPy array with a row for each input line. The output is
//! `OUT.part` until it is complete. Failed lines are listed in `OUT.errors.jsonl`; in an array their rows are NaN.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    super::ReportedError,
    embedder::Row,
    input::{Batch, Line},
    journal::{Entry, Journal, Plan},
};
use crate::cli;

/// Length of the header of an array. The header is written at the end, when the number of rows is known.
const NPY_HEADER_BYTES: usize = 128;

/// The output with its journal and its error file, or standard output, which cannot be resumed.
pub(super) struct Output {
    format: OutputFormat,
    entry: Entry,
    /// `None` for standard output.
    files: Option<Files>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OutputFormat {
    JsonLines,
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
    fn for_output(output: &Path) -> Self {
        let with_suffix = |suffix: &str| {
            let mut name = output.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        Self {
            output: output.to_owned(),
            part: with_suffix(".part"),
            errors: with_suffix(".errors.jsonl"),
            journal: with_suffix(".journal"),
        }
    }
}

/// Checks the output path before a model is loaded.
///
/// # Errors
/// If the output exists or its directory does not.
pub(super) fn check(options: &cli::Embed) -> anyhow::Result<()> {
    let paths = Paths::for_output(&options.output);
    if options.output == Path::new("-") {
        return Ok(());
    }
    if paths.output.exists() && !paths.journal.exists() && !options.overwrite {
        bail!(ReportedError(format!(
            "{} exists; name another --output, or replace it with --overwrite",
            paths.output.display()
        )));
    }
    let parent = paths.output.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        bail!(ReportedError(format!("--output: {} is not a directory", parent.display())));
    }
    Ok(())
}

impl Output {
    /// Opens the output, and returns the entry to resume from; `None` if an earlier run has completed the output.
    pub(super) fn open(options: &cli::Embed, plan: &Plan) -> anyhow::Result<(Self, Option<Entry>)> {
        let npy = options.output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy"));
        let format = if npy { OutputFormat::Npy } else { OutputFormat::JsonLines };
        if options.output == Path::new("-") {
            let output = Self { format: OutputFormat::JsonLines, entry: Entry::default(), files: None };
            return Ok((output, Some(Entry::default())));
        }
        let paths = Paths::for_output(&options.output);
        let (journal, last) = Journal::open(&paths.journal, plan, options.overwrite)?;
        let complete = last.is_some() && paths.output.exists() && !paths.part.exists();
        let entry = last.unwrap_or_default();
        if complete {
            // The earlier run ended between the last two steps of `finish`.
            fs::remove_file(&paths.journal)?;
            return Ok((Self { format, entry, files: None }, None));
        }
        let output = open_at(&paths.part, entry.output)?;
        let errors = open_at(&paths.errors, entry.errors)?;
        sync_directory(&paths.output)?;
        let files = Files { output, errors, journal, paths };
        Ok((Self { format, entry: entry.clone(), files: Some(files) }, Some(entry)))
    }

    /// The progress up to the last batch on the disk.
    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Writes the results of a batch, waits until they are on the disk, and appends an entry to the journal.
    pub(super) fn write(&mut self, batch: &Batch, rows: &[Row]) -> anyhow::Result<()> {
        let mut entry = self.entry.clone();
        let (mut vectors, mut errors) = (Vec::new(), Vec::new());
        let mut last_response = None;
        for (line, row) in batch.lines.iter().zip(rows) {
            match row {
                Row::Vector(response, row) => {
                    if !last_response.replace(response).is_some_and(|last| Arc::ptr_eq(last, response)) {
                        entry.truncated += response.truncated as u64;
                    }
                    self.set_dim(&mut entry, response.dim, &mut vectors)?;
                    entry.space.get_or_insert_with(|| response.space.to_string());
                    let vector = &response.data[row * response.dim..(row + 1) * response.dim];
                    match self.format {
                        OutputFormat::JsonLines => {
                            write_json(&mut vectors, &OutputRecord { id: &line.id, embedding: vector })?;
                        }
                        OutputFormat::Npy => vectors.extend(vector.iter().flat_map(|x| x.to_le_bytes())),
                    }
                }
                Row::Failed(error) => {
                    entry.failed += 1;
                    write_json(&mut errors, &ErrorRecord::new(line, error))?;
                    if self.format == OutputFormat::Npy {
                        vectors.extend(nan(entry.dim.unwrap_or_default()));
                    }
                }
            }
            entry.asked += 1;
        }
        entry.output += vectors.len() as u64;
        entry.errors += errors.len() as u64;
        entry.position = batch.end.clone();
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
                let appended = files.journal.append(&entry);
                appended.with_context(|| format!("writing {}", files.paths.journal.display()))?;
            }
        }
        self.entry = entry;
        Ok(())
    }

    /// Records the dimensions of the first vector, and checks those of the others. Before the first vector of an array it
    /// writes space for the header and the rows of the lines that failed before.
    fn set_dim(&self, entry: &mut Entry, dim: usize, vectors: &mut Vec<u8>) -> anyhow::Result<()> {
        if let Some(known) = entry.dim {
            ensure!(known == dim, "the model returned a vector of {dim} dimensions after vectors of {known}");
            return Ok(());
        }
        entry.dim = Some(dim);
        if self.format == OutputFormat::Npy {
            vectors.extend([0; NPY_HEADER_BYTES]);
            let rows = usize::try_from(entry.asked)?;
            vectors.extend(nan(dim * rows));
        }
        Ok(())
    }

    /// Writes the header of an array, renames the output to its final name, and deletes the journal.
    pub(super) fn finish(self) -> anyhow::Result<Entry> {
        let Some(mut files) = self.files else { return Ok(self.entry) };
        if self.format == OutputFormat::Npy {
            let header = npy_header(self.entry.asked, self.entry.dim.unwrap_or_default());
            files.output.seek(SeekFrom::Start(0))?;
            files.output.write_all(&header)?;
            files.output.sync_data()?;
        }
        let Paths { output, part, errors, journal } = &files.paths;
        fs::rename(part, output).with_context(|| format!("renaming {}", output.display()))?;
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
    id: &'a RawValue,
    embedding: &'a [f32],
}

#[derive(Serialize)]
struct ErrorRecord<'a> {
    line: u64,
    id: &'a RawValue,
    error: &'a str,
}

impl<'a> ErrorRecord<'a> {
    fn new(line: &'a Line, error: &'a str) -> Self {
        Self { line: line.number, id: &line.id, error }
    }
}

fn write_json(output: &mut Vec<u8>, line: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *output, line)?;
    output.push(b'\n');
    Ok(())
}

fn nan(count: usize) -> impl Iterator<Item = u8> {
    std::iter::repeat_n(f32::NAN.to_le_bytes(), count).flatten()
}

/// Opens the file and truncates it to the length in the journal.
fn open_at(path: &Path, length: u64) -> anyhow::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let mut file = file.with_context(|| format!("opening {}", path.display()))?;
    if file.metadata()?.len() < length {
        bail!(ReportedError(format!(
            "{} is shorter than the length in its journal; start over with --overwrite",
            path.display()
        )));
    }
    file.set_len(length)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

/// Syncs the directory of `path`: a new name is durable only after that.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// The header of NumPy's format 1.0, padded to a constant length.
fn npy_header(rows: u64, dim: usize) -> Vec<u8> {
    let description = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let text_bytes = NPY_HEADER_BYTES - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text_bytes as u16).to_le_bytes());
    header.extend(format!("{description:<width$}\n", width = text_bytes - 1).bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_an_array_has_a_constant_length() {
        for (rows, dim) in [(0, 0), (3, 384), (u64::MAX, 99_999)] {
            let header = npy_header(rows, dim);
            assert_eq!(header.len(), NPY_HEADER_BYTES);
            assert!(header.ends_with(b"\n") && header[10..].starts_with(b"{'descr': '<f4'"));
        }
    }
}
