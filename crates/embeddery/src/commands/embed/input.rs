//! Reads texts, one a line, from files in order or from standard input. The position in the input includes the hash of all
//! bytes before it, so that a resumed run can check that the skipped input is unchanged.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use embeddery_core::without_byte_order_mark;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::mpsc;

use super::super::ReportedError;
use crate::cli::InputFormat;

/// Maximum lines in a batch: enough to keep a model busy, few enough that an interruption loses little work.
const MAX_BATCH_LINES: usize = 256;
/// Bytes of texts after which a batch is full.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// Maximum bytes of a text, the same as over HTTP.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// Maximum bytes of a line. JSON may escape one byte as six.
const MAX_LINE_BYTES: usize = 8 << 20;

/// A position in the concatenated inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Lines before it.
    pub(super) lines: u64,
    /// Bytes before it.
    pub(super) bytes: u64,
    /// The hash of these bytes.
    pub(super) hash: String,
}

/// An input, as the journal records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    /// The path on the command line; `-` is standard input.
    pub(super) path: String,
    /// The length in bytes; `None` if the input is not a regular file.
    pub(super) bytes: Option<u64>,
}

/// An input line to be embedded.
pub(super) struct Line {
    /// The line number, counted over all inputs from 1.
    pub(super) number: u64,
    /// The id as it is written in the line, so that a number keeps its digits, or else the line number.
    pub(super) id: Box<RawValue>,
    /// The text, or the reason why the line has none.
    pub(super) text: Result<Arc<str>, String>,
}

/// Lines that are embedded together.
pub(super) struct Batch {
    pub(super) lines: Vec<Line>,
    /// The position after the last line.
    pub(super) end: Position,
}

/// Reads the lines of all inputs.
pub(super) struct InputReader {
    readers: std::vec::IntoIter<Box<dyn BufRead + Send>>,
    current: Option<Box<dyn BufRead + Send>>,
    /// Whether no line of `current` has been read.
    is_start_of_file: bool,
    sources: Vec<Source>,
    format: Option<InputFormat>,
    position: Position,
    hash: blake3::Hasher,
}

/// The bytes of a line.
enum RawLine {
    Complete(Vec<u8>),
    TooLong,
}

impl InputReader {
    /// Opens all inputs, so that a missing one is reported before any work is done.
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
                let metadata = file.metadata()?;
                if metadata.is_dir() {
                    bail!(ReportedError(format!("{}: is a directory; name the files in it", path.display())));
                }
                (
                    Box::new(BufReader::with_capacity(1 << 18, file)),
                    metadata.is_file().then_some(metadata.len()),
                )
            };
            readers.push(reader);
            sources.push(Source { path: path.display().to_string(), bytes });
        }
        let format = format.or_else(|| format_from_name(files));
        let readers = readers.into_iter();
        let hash = blake3::Hasher::new();
        Ok(Self {
            readers,
            current: None,
            is_start_of_file: true,
            sources,
            format,
            position: Position::default(),
            hash,
        })
    }

    pub(super) fn sources(&self) -> Vec<Source> {
        self.sources.clone()
    }

    /// The length of all inputs; `None` if the length of one is unknown.
    pub(super) fn total_bytes(&self) -> Option<u64> {
        self.sources.iter().map(|source| source.bytes).sum()
    }

    /// Skips to `position`, and checks that the input before it is unchanged.
    fn skip_to(&mut self, position: &Position) -> anyhow::Result<()> {
        while self.position.bytes < position.bytes && self.next_raw_line()?.is_some() {}
        if self.position.lines > 0 {
            self.position.hash = self.hash.finalize().to_string();
        }
        if self.position != *position {
            bail!(ReportedError(
                "the input has changed since the interrupted run; restore it, or start over with --overwrite"
                    .into()
            ));
        }
        Ok(())
    }

    fn next_batch(&mut self) -> anyhow::Result<Option<Batch>> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < MAX_BATCH_LINES && bytes < MAX_BATCH_BYTES {
            let Some(raw) = self.next_raw_line().context("reading the input")? else { break };
            if let Some(line) = self.parse_line(&raw) {
                bytes += line.text.as_ref().map_or(0, |text| text.len());
                lines.push(line);
            }
        }
        if lines.is_empty() {
            return Ok(None);
        }
        self.position.hash = self.hash.finalize().to_string();
        Ok(Some(Batch { lines, end: self.position.clone() }))
    }

    /// Parses a line; `None` for an empty line between JSON objects.
    fn parse_line(&mut self, raw: &RawLine) -> Option<Line> {
        let number = self.position.lines;
        let failed = |reason: &str| Some(Line { number, id: id_of(number), text: Err(reason.into()) });
        let RawLine::Complete(bytes) = raw else {
            return failed("the line is longer than 8 MiB");
        };
        let Ok(text) = std::str::from_utf8(bytes) else {
            return failed("the line is not UTF-8");
        };
        let first = if text.trim_start().starts_with('{') { InputFormat::Jsonl } else { InputFormat::Text };
        match self.format.get_or_insert(first) {
            InputFormat::Jsonl if text.trim().is_empty() => None,
            InputFormat::Jsonl => match parse_object(text) {
                Ok((id, text)) => {
                    Some(Line { number, id: id.unwrap_or_else(|| id_of(number)), text: check_text(&text) })
                }
                Err(reason) => failed(&reason),
            },
            InputFormat::Text => Some(Line { number, id: id_of(number), text: check_text(text) }),
        }
    }

    /// The next line of the inputs, without its line ending, and without a byte order mark at the start of a file.
    fn next_raw_line(&mut self) -> io::Result<Option<RawLine>> {
        let (mut bytes, mut length) = (Vec::new(), 0);
        loop {
            if self.current.is_none() {
                self.current = self.readers.next();
                self.is_start_of_file = true;
            }
            let Some(reader) = &mut self.current else { return Ok(None) };
            let available = match reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                available => available?,
            };
            let end_of_file = available.is_empty();
            let end_of_line = available.iter().position(|byte| *byte == b'\n');
            let consumed = end_of_line.map_or(available.len(), |at| at + 1);
            self.hash.update(&available[..consumed]);
            if length <= MAX_LINE_BYTES {
                bytes.extend_from_slice(&available[..end_of_line.unwrap_or(consumed)]);
            }
            reader.consume(consumed);
            length += consumed;
            self.position.bytes += consumed as u64;
            if end_of_file {
                self.current = None;
            }
            // The last line of a file may lack a line ending. It is not joined with the first line of the next file.
            if end_of_line.is_some() || (end_of_file && length > 0) {
                if std::mem::take(&mut self.is_start_of_file) {
                    let mark = bytes.len() - without_byte_order_mark(&bytes).len();
                    drop(bytes.drain(..mark));
                    // A file with nothing but the mark has no line.
                    if bytes.is_empty() && end_of_line.is_none() {
                        length = 0;
                        continue;
                    }
                }
                self.position.lines += 1;
                bytes.pop_if(|last| *last == b'\r');
                let complete = length <= MAX_LINE_BYTES;
                return Ok(Some(if complete { RawLine::Complete(bytes) } else { RawLine::TooLong }));
            }
        }
    }
}

/// Reads the batches after `start` on a separate thread, because a read of standard input may block.
pub(super) fn read(mut reader: InputReader, start: Position) -> mpsc::Receiver<anyhow::Result<Batch>> {
    let (sender, receiver) = mpsc::channel(2);
    std::thread::spawn(move || {
        let mut next = match reader.skip_to(&start) {
            Ok(()) => reader.next_batch(),
            Err(error) => Err(error),
        };
        while let Some(batch) = next.transpose() {
            let failed = batch.is_err();
            if sender.blocking_send(batch).is_err() || failed {
                return;
            }
            next = reader.next_batch();
        }
    });
    receiver
}

/// The format that the extension of the first file implies.
fn format_from_name(files: &[PathBuf]) -> Option<InputFormat> {
    let extension = files.first()?.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "jsonl" | "ndjson" => Some(InputFormat::Jsonl),
        "txt" => Some(InputFormat::Text),
        _ => None,
    }
}

/// A line number as an id.
fn id_of(number: u64) -> Box<RawValue> {
    // A number is always JSON.
    to_raw_value(&number).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn parse_object(line: &str) -> Result<(Option<Box<RawValue>>, String), String> {
    #[derive(Deserialize)]
    struct Object {
        id: Option<Box<RawValue>>,
        text: String,
    }
    let object: Object = serde_json::from_str(line)
        .map_err(|error| format!("the line is not an object {{\"id\"?, \"text\"}}: {error}"))?;
    let id = object.id.map(check_id).transpose()?;
    Ok((id, object.text))
}

/// Checks an id. A number stays as it is written, because a parser may round it.
fn check_id(id: Box<RawValue>) -> Result<Box<RawValue>, String> {
    let wrong = |_| "'id' must be a string or a number".to_owned();
    match id.get().as_bytes() {
        [b'-' | b'0'..=b'9', ..] => Ok(id),
        _ => serde_json::from_str::<String>(id.get()).and_then(|text| to_raw_value(&text)).map_err(wrong),
    }
}

fn check_text(text: &str) -> Result<Arc<str>, String> {
    if text.trim().is_empty() {
        return Err("the text is blank".into());
    }
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!("the text has {} bytes; the maximum is {MAX_TEXT_BYTES}", text.len()));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(text: &'static [u8], format: Option<InputFormat>) -> InputReader {
        reader_of_files(&[text], format)
    }

    fn reader_of_files(files: &[&'static [u8]], format: Option<InputFormat>) -> InputReader {
        let open = |text: &&'static [u8]| -> Box<dyn BufRead + Send> {
            Box::new(BufReader::with_capacity(7, *text))
        };
        InputReader {
            readers: files.iter().map(open).collect::<Vec<_>>().into_iter(),
            current: None,
            is_start_of_file: true,
            sources: Vec::new(),
            format,
            position: Position::default(),
            hash: blake3::Hasher::new(),
        }
    }

    fn first_batch(mut reader: InputReader) -> Vec<(u64, String, Result<String, String>)> {
        let batch = reader.next_batch().unwrap();
        let lines = batch.into_iter().flat_map(|batch| batch.lines);
        lines.map(|line| (line.number, line.id.to_string(), line.text.map(|text| text.to_string()))).collect()
    }

    #[test]
    fn json_lines_keep_their_ids_and_fail_alone() {
        let read = first_batch(reader(
            b"{\"id\":\"a\",\"text\":\"one\"}\r\n\n{\"text\":\"two\"}\n{\"id\":7}\nno\n",
            None,
        ));
        assert_eq!(read[0], (1, "\"a\"".into(), Ok("one".into())));
        assert_eq!(read[1], (3, "3".into(), Ok("two".into())));
        assert!(read[2].2.as_ref().unwrap_err().contains("text"), "{read:?}");
        assert!(read[3].2.is_err() && read.len() == 4);
    }

    #[test]
    fn an_id_that_is_a_number_keeps_its_digits() {
        let read = first_batch(reader(
            b"{\"id\":18446744073709551617,\"text\":\"a\"}\n{\"id\": 1.50,\"text\":\"b\"}\n{\"id\":-1e400,\"text\":\"c\"}\n{\"id\":true,\"text\":\"d\"}\n{\"id\":\"\\u00e4\",\"text\":\"e\"}\n",
            None,
        ));
        let ids: Vec<&str> = read.iter().map(|line| line.1.as_str()).collect();
        assert_eq!(ids, ["18446744073709551617", "1.50", "-1e400", "4", "\"\u{e4}\""]);
        assert!(read[3].2.as_ref().unwrap_err().contains("'id'"));
    }

    #[test]
    fn plain_lines_are_texts_and_a_blank_line_is_an_error() {
        let read = first_batch(reader("\u{feff}eins\n\nzwei {}\n\u{e9}".as_bytes(), None));
        assert_eq!(read[0].2, Ok("eins".into()));
        assert_eq!(read[1].2, Err("the text is blank".into()));
        assert_eq!(
            (read[3].0, read[3].2.clone()),
            (4, Ok("\u{e9}".into())),
            "the last line needs no line ending"
        );
        assert!(first_batch(reader(b"a\n\xff\n", None))[1].2.is_err());
    }

    #[test]
    fn one_byte_order_mark_is_dropped_at_the_start_of_each_file() {
        let texts = |files: &[&'static str], format| {
            let files: Vec<&[u8]> = files.iter().map(|file| file.as_bytes()).collect();
            let read = first_batch(reader_of_files(&files, format));
            read.into_iter().map(|(number, id, text)| (number, id, text.unwrap())).collect::<Vec<_>>()
        };
        let files =
            ["\u{feff}{\"id\":1,\"text\":\"a\"}\n", "\u{feff}", "\u{feff}{\"id\":2,\"text\":\"\u{feff}b\"}"];
        let expected = [(1, "1".to_owned(), "a".to_owned()), (2, "2".to_owned(), "\u{feff}b".to_owned())];
        assert_eq!(texts(&files, None), expected);
        let plain = texts(&["\u{feff}\u{feff}x\n\u{feff}y", "\u{feff}z\r\n"], Some(InputFormat::Text));
        let plain: Vec<&str> = plain.iter().map(|(_, _, text)| text.as_str()).collect();
        assert_eq!(plain, ["\u{feff}x", "\u{feff}y", "z"], "exactly one, and only at the start");
        // A resumed run skips the same lines.
        let files: Vec<&[u8]> = files.iter().map(|file| file.as_bytes()).collect();
        let end = reader_of_files(&files, None).next_batch().unwrap().unwrap().end;
        assert!(reader_of_files(&files, None).skip_to(&end).is_ok());
    }

    #[test]
    fn a_change_in_the_skipped_input_is_an_error() {
        let mut first = reader(b"a\nb\n", Some(InputFormat::Text));
        let position = first.next_batch().unwrap().unwrap().end;
        assert!(reader(b"a\nb\nc\n", None).skip_to(&position).is_ok());
        for changed in [&b"a\nB\nc\n"[..], b"a\n", b"ab\n\nc"] {
            assert!(reader(changed, None).skip_to(&position).is_err());
        }
        assert!(reader(b"", None).skip_to(&Position::default()).is_ok());
    }
}
