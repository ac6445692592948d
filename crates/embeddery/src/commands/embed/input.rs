//! Texts, one a line: files in their order, or standard input. What has been read is known by its length and hash,
//! so that a resumed run can prove that it skips what the earlier one has done.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use super::super::ReportedError;
use crate::cli::InputFormat;

/// Lines of a batch: enough to keep a model busy, few enough that little is lost.
const LINES: usize = 256;
/// Bytes of a batch's texts.
const BYTES: usize = 1 << 20;
/// The longest text, as over HTTP.
const TEXT: usize = 1 << 20;
/// The longest line: JSON may write a byte as six.
const LINE: usize = 8 << 20;

/// How far the input has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Lines, over all files.
    pub(super) lines: u64,
    /// Bytes, over all files.
    pub(super) bytes: u64,
    /// The hash of those bytes.
    pub(super) hash: String,
}

/// One input as the journal names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    /// As it was given; `-` is standard input.
    pub(super) path: String,
    /// Its length; unknown for what is no plain file.
    pub(super) bytes: Option<u64>,
}

/// A line that asks for a vector.
pub(super) struct Line {
    /// Its number, counted over all inputs, from 1.
    pub(super) number: u64,
    /// The id it gives itself; without one, its number.
    pub(super) id: Value,
    /// Its text, or why it has none.
    pub(super) text: Result<Arc<str>, String>,
}

/// Lines that travel together, and where the next batch begins.
pub(super) struct Batch {
    pub(super) lines: Vec<Line>,
    pub(super) end: Place,
}

/// The inputs, opened.
pub(super) struct InputReader {
    readers: std::vec::IntoIter<Box<dyn BufRead + Send>>,
    current: Option<Box<dyn BufRead + Send>>,
    sources: Vec<Source>,
    format: Option<InputFormat>,
    place: Place,
    hash: blake3::Hasher,
}

/// A line as it lies in the file.
enum Raw {
    Whole(Vec<u8>),
    TooLong,
}

impl InputReader {
    /// Opens every input, so that a missing one is told before any work is done.
    pub(super) fn open(files: &[PathBuf], format: Option<InputFormat>) -> anyhow::Result<Self> {
        let standard = [PathBuf::from("-")];
        let files = if files.is_empty() { &standard } else { files };
        let (mut readers, mut sources) = (Vec::new(), Vec::new());
        for path in files {
            let (reader, bytes): (Box<dyn BufRead + Send>, _) = if path == Path::new("-") {
                (Box::new(BufReader::new(io::stdin())), None)
            } else {
                let file = File::open(path)
                    .map_err(|error| ReportedError(format!("{}: {error}", path.display())))?;
                let about = file.metadata()?;
                if about.is_dir() {
                    bail!(ReportedError(format!("{}: a directory; name the files in it", path.display())));
                }
                (Box::new(BufReader::with_capacity(1 << 18, file)), about.is_file().then_some(about.len()))
            };
            readers.push(reader);
            sources.push(Source { path: path.display().to_string(), bytes });
        }
        let format = format.or_else(|| by_name(files));
        let readers = readers.into_iter();
        let hash = blake3::Hasher::new();
        Ok(Self { readers, current: None, sources, format, place: Place::default(), hash })
    }

    pub(super) fn sources(&self) -> Vec<Source> {
        self.sources.clone()
    }

    /// `None` when an input's length is unknown.
    pub(super) fn total_bytes(&self) -> Option<u64> {
        self.sources.iter().map(|source| source.bytes).sum()
    }

    /// Reads up to `place` again and proves that what was read there has not changed.
    fn skip_to(&mut self, place: &Place) -> anyhow::Result<()> {
        while self.place.bytes < place.bytes && self.raw()?.is_some() {}
        if self.place.lines > 0 {
            self.place.hash = self.hash.finalize().to_string();
        }
        if self.place != *place {
            bail!(ReportedError("the input has changed since the run that is being resumed; put it back, or start over with --overwrite".into()));
        }
        Ok(())
    }

    fn batch(&mut self) -> anyhow::Result<Option<Batch>> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < LINES && bytes < BYTES {
            let Some(raw) = self.raw().context("reading the input")? else { break };
            if let Some(line) = self.line(&raw) {
                bytes += line.text.as_ref().map_or(0, |text| text.len());
                lines.push(line);
            }
        }
        if lines.is_empty() {
            return Ok(None);
        }
        self.place.hash = self.hash.finalize().to_string();
        Ok(Some(Batch { lines, end: self.place.clone() }))
    }

    /// What a line asks for; `None` for an empty line between JSON objects.
    fn line(&mut self, raw: &Raw) -> Option<Line> {
        let number = self.place.lines;
        let failed = |why: &str| Some(Line { number, id: number.into(), text: Err(why.into()) });
        let Raw::Whole(bytes) = raw else {
            return failed("the line is longer than 8 MiB");
        };
        let Ok(text) = std::str::from_utf8(bytes) else {
            return failed("the line is not UTF-8");
        };
        let text = if number == 1 { text.trim_start_matches('\u{feff}') } else { text };
        let first = if text.trim_start().starts_with('{') { InputFormat::Jsonl } else { InputFormat::Text };
        match self.format.get_or_insert(first) {
            InputFormat::Jsonl if text.trim().is_empty() => None,
            InputFormat::Jsonl => match object(text) {
                Ok((id, text)) => {
                    Some(Line { number, id: id.unwrap_or_else(|| number.into()), text: whole(&text) })
                }
                Err(why) => failed(&why),
            },
            InputFormat::Text => Some(Line { number, id: number.into(), text: whole(text) }),
        }
    }

    /// The next line of any input, without its end.
    fn raw(&mut self) -> io::Result<Option<Raw>> {
        let (mut bytes, mut length) = (Vec::new(), 0);
        loop {
            if self.current.is_none() {
                self.current = self.readers.next();
            }
            let Some(reader) = &mut self.current else { return Ok(None) };
            let available = match reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                available => available?,
            };
            let end_of_file = available.is_empty();
            let end_of_line = available.iter().position(|byte| *byte == b'\n');
            let taken = end_of_line.map_or(available.len(), |at| at + 1);
            self.hash.update(&available[..taken]);
            if length <= LINE {
                bytes.extend_from_slice(&available[..end_of_line.unwrap_or(taken)]);
            }
            reader.consume(taken);
            (length, self.place.bytes) = (length + taken, self.place.bytes + taken as u64);
            if end_of_file {
                self.current = None;
            }
            // The last line of a file may lack its end; the first of the next file does not belong to it.
            if end_of_line.is_some() || (end_of_file && length > 0) {
                self.place.lines += 1;
                bytes.pop_if(|last| *last == b'\r');
                return Ok(Some(if length <= LINE { Raw::Whole(bytes) } else { Raw::TooLong }));
            }
        }
    }
}

/// Batches from `place` on, read on a thread of their own: standard input may make anybody wait.
pub(super) fn read(mut lines: InputReader, place: Place) -> mpsc::Receiver<anyhow::Result<Batch>> {
    let (sender, receiver) = mpsc::channel(2);
    std::thread::spawn(move || {
        let mut next = match lines.skip_to(&place) {
            Ok(()) => lines.batch(),
            Err(error) => Err(error),
        };
        while let Some(batch) = next.transpose() {
            let failed = batch.is_err();
            if sender.blocking_send(batch).is_err() || failed {
                return;
            }
            next = lines.batch();
        }
    });
    receiver
}

/// What the names of files say of what is in them.
fn by_name(files: &[PathBuf]) -> Option<InputFormat> {
    let extension = files.first()?.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "jsonl" | "ndjson" => Some(InputFormat::Jsonl),
        "txt" => Some(InputFormat::Text),
        _ => None,
    }
}

fn object(line: &str) -> Result<(Option<Value>, String), String> {
    #[derive(Deserialize)]
    struct Object {
        id: Option<Value>,
        text: String,
    }
    let object: Object = serde_json::from_str(line)
        .map_err(|error| format!("not an object {{\"id\"?, \"text\"}}: {error}"))?;
    match object.id {
        Some(id) if !(id.is_string() || id.is_number()) => Err("'id' must be a string or a number".into()),
        id => Ok((id, object.text)),
    }
}

fn whole(text: &str) -> Result<Arc<str>, String> {
    if text.trim().is_empty() {
        return Err("the text is blank".into());
    }
    if text.len() > TEXT {
        return Err(format!("the text has {} bytes; at most {TEXT} are possible", text.len()));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static [u8], format: Option<InputFormat>) -> InputReader {
        let reader: Box<dyn BufRead + Send> = Box::new(BufReader::with_capacity(7, text));
        InputReader {
            readers: vec![reader].into_iter(),
            current: None,
            sources: Vec::new(),
            format,
            place: Place::default(),
            hash: blake3::Hasher::new(),
        }
    }

    fn told(mut lines: InputReader) -> Vec<(u64, String, Result<String, String>)> {
        let batch = lines.batch().unwrap();
        let lines = batch.into_iter().flat_map(|batch| batch.lines);
        lines.map(|line| (line.number, line.id.to_string(), line.text.map(|text| text.to_string()))).collect()
    }

    #[test]
    fn json_lines_keep_their_ids_and_fail_alone() {
        let read =
            told(lines(b"{\"id\":\"a\",\"text\":\"one\"}\r\n\n{\"text\":\"two\"}\n{\"id\":7}\nno\n", None));
        assert_eq!(read[0], (1, "\"a\"".into(), Ok("one".into())));
        assert_eq!(read[1], (3, "3".into(), Ok("two".into())));
        assert!(read[2].2.as_ref().unwrap_err().contains("text"), "{read:?}");
        assert!(read[3].2.is_err() && read.len() == 4);
    }

    #[test]
    fn plain_lines_are_texts_and_a_blank_one_is_told() {
        let read = told(lines("\u{feff}eins\n\nzwei {}\n\u{e9}".as_bytes(), None));
        assert_eq!(read[0].2, Ok("eins".into()));
        assert_eq!(read[1].2, Err("the text is blank".into()));
        assert_eq!((read[3].0, read[3].2.clone()), (4, Ok("\u{e9}".into())), "the last line needs no end");
        assert!(told(lines(b"a\n\xff\n", None))[1].2.is_err());
    }

    #[test]
    fn a_changed_beginning_is_noticed() {
        let mut first = lines(b"a\nb\n", Some(InputFormat::Text));
        let place = first.batch().unwrap().unwrap().end;
        assert!(lines(b"a\nb\nc\n", None).skip_to(&place).is_ok());
        for changed in [&b"a\nB\nc\n"[..], b"a\n", b"ab\n\nc"] {
            assert!(lines(changed, None).skip_to(&place).is_err());
        }
        assert!(lines(b"", None).skip_to(&Place::default()).is_ok());
    }
}
