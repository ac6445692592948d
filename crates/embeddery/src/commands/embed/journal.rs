//! What a run has done, beside its output: first what was asked for, then one entry for each batch that is safely
//! written. A resumed run believes the last whole entry, and refuses when it is asked for something else.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Seek as _, Write as _},
    path::Path,
};

use anyhow::{Context as _, bail};
use embeddery_core::EmbeddingIdentity;
use embeddery_gateway::ResolvedModel;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    super::ReportedError,
    input::{Place, Source},
};
use crate::cli;

/// The form of the journal; another one is refused.
const VERSION: u32 = 1;

/// What was asked for: two runs that agree in this make the same file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    version: u32,
    model: String,
    /// Which vectors the model's are, and in which precision it computes.
    identity: String,
    dimensions: Option<usize>,
    input_type: Option<String>,
    input_format: Option<String>,
    inputs: Vec<Source>,
}

/// What is safely written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// How far the input has been read.
    pub(super) place: Place,
    /// Lines that asked for a vector.
    pub(super) asked: u64,
    /// Those that got none.
    pub(super) failed: u64,
    /// Those that were cut to the model's limit.
    pub(super) truncated: u64,
    /// Numbers of a vector, once known.
    pub(super) dim: Option<usize>,
    /// The space of the vectors, once known.
    pub(super) space: Option<String>,
    /// Bytes of the output.
    pub(super) output: u64,
    /// Bytes of the file of errors.
    pub(super) errors: u64,
}

impl Plan {
    pub(super) fn new(
        options: &cli::Embed,
        model: &ResolvedModel,
        identity: Option<EmbeddingIdentity>,
        inputs: Vec<Source>,
    ) -> Self {
        let identity = identity.map_or_else(String::new, |known| {
            format!("{} {}", known.space, known.precision.unwrap_or_default())
        });
        Self {
            version: VERSION,
            model: format!("{}:{}", model.provider, model.model),
            identity: identity.trim_end().to_owned(),
            dimensions: options.dimensions.map(Into::into),
            input_type: options.input_type.map(|kind| format!("{kind:?}").to_lowercase()),
            input_format: options.input_format.map(|format| format!("{format:?}").to_lowercase()),
            inputs,
        }
    }

    /// What differs between this plan and the one that a journal was begun with.
    fn differs(&self, begun: &Self) -> Option<String> {
        let other = |what: &str, was: &str, is: &str| Some(format!("{what} was {was} and is {is}"));
        if self.model != begun.model {
            return other("the model", &begun.model, &self.model);
        }
        if self.identity != begun.identity {
            return other("the model's identity", &begun.identity, &self.identity);
        }
        for (was, is) in begun.inputs.iter().zip(&self.inputs) {
            if was != is {
                let length = |source: &Source| {
                    let bytes = source.bytes.map_or_else(String::new, |bytes| format!(" ({bytes} bytes)"));
                    format!("{}{bytes}", source.path)
                };
                return other("an input", &length(was), &length(is));
            }
        }
        (self != begun).then(|| "the command has other inputs or options".into())
    }
}

/// The journal, open and locked: nobody else writes this output.
pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Opens or makes it. With what it says when it was begun before; `overwrite` forgets that.
    pub(super) fn open(path: &Path, plan: &Plan, overwrite: bool) -> anyhow::Result<(Self, Option<Entry>)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        if file.try_lock().is_err() {
            bail!("{} is locked: another `embeddery embed` is writing this output", path.display());
        }
        let mut journal = Self { file };
        let found = if overwrite { None } else { journal.read(path, plan)? };
        // What a crash left half written goes, and what is kept is short.
        journal.file.set_len(0)?;
        journal.file.rewind()?;
        journal.append(plan)?;
        if let Some(entry) = &found {
            journal.append(entry)?;
        }
        Ok((journal, found))
    }

    fn read(&self, path: &Path, plan: &Plan) -> anyhow::Result<Option<Entry>> {
        let mut lines = BufReader::new(&self.file).split(b'\n');
        let Some(first) = lines.next().transpose()? else { return Ok(None) };
        let start_over = "start over with --overwrite";
        match whole::<Plan>(&first) {
            Some(begun) => {
                if let Some(difference) = plan.differs(&begun) {
                    bail!(ReportedError(format!(
                        "{} was begun by another run: {difference}; run what was begun, or {start_over}",
                        path.display()
                    )));
                }
            }
            // Its first line was never whole: nothing has been done.
            None if lines.next().is_none() => return Ok(None),
            None => bail!(ReportedError(format!("{} cannot be read; {start_over}", path.display()))),
        }
        let mut last = Entry::default();
        for line in lines {
            let Some(entry) = whole(&line?) else { break };
            last = entry;
        }
        Ok(Some(last))
    }

    /// Adds a line and waits until the disk has it.
    pub(super) fn append(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.file.write_all(&text)?;
        self.file.sync_data()
    }
}

fn whole<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(model: &str) -> Plan {
        Plan {
            version: VERSION,
            model: model.into(),
            identity: "space f32".into(),
            dimensions: None,
            input_type: None,
            input_format: None,
            inputs: vec![Source { path: "in.txt".into(), bytes: Some(3) }],
        }
    }

    #[test]
    fn the_last_whole_entry_is_believed_and_another_plan_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.journal");
        let entry = |asked| Entry { asked, ..Entry::default() };
        let (mut journal, found) = Journal::open(&path, &plan("m"), false).unwrap();
        assert_eq!(found, None);
        assert!(Journal::open(&path, &plan("m"), false).is_err(), "locked");
        journal.append(&entry(1)).unwrap();
        journal.append(&entry(2)).unwrap();
        journal.file.write_all(b"{\"place\":").unwrap();
        drop(journal);
        let (journal, found) = Journal::open(&path, &plan("m"), false).unwrap();
        assert_eq!(found, Some(entry(2)));
        drop(journal);
        let refused = Journal::open(&path, &plan("n"), false).err().unwrap().to_string();
        assert!(refused.contains("the model was m and is n") && refused.contains("--overwrite"), "{refused}");
        assert_eq!(Journal::open(&path, &plan("n"), true).unwrap().1, None);
    }
}
