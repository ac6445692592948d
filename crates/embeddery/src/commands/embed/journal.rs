//! The journal beside the output: first the plan of the run, then one entry for each batch that is on the disk. A resumed
//! run continues after the last complete entry, and fails if its plan differs.

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
    input::{Position, Source},
};
use crate::cli;

/// The version of the journal's format. A journal of another version is refused.
const VERSION: u32 = 1;

/// The plan of a run: two runs with equal plans write the same output.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    version: u32,
    model: String,
    /// The space of the model's vectors and the precision.
    identity: String,
    dimensions: Option<usize>,
    input_type: Option<String>,
    input_format: Option<String>,
    inputs: Vec<Source>,
}

/// The progress of a run, up to the last batch on the disk. The field names are the format of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The position in the input.
    #[serde(rename = "place")]
    pub(super) position: Position,
    /// Lines to be embedded.
    pub(super) asked: u64,
    /// Lines that failed.
    pub(super) failed: u64,
    /// Lines that were truncated to the model's limit.
    pub(super) truncated: u64,
    /// Dimensions of a vector, once known.
    pub(super) dim: Option<usize>,
    /// The space of the vectors, once known.
    pub(super) space: Option<String>,
    /// Length of the output in bytes.
    pub(super) output: u64,
    /// Length of the error file in bytes.
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

    /// The first difference between this plan and the plan of the journal.
    fn difference(&self, journaled: &Self) -> Option<String> {
        let changed = |what: &str, was: &str, is: &str| Some(format!("{what} was {was} and is {is}"));
        if self.model != journaled.model {
            return changed("the model", &journaled.model, &self.model);
        }
        if self.identity != journaled.identity {
            return changed("the model's identity", &journaled.identity, &self.identity);
        }
        for (was, is) in journaled.inputs.iter().zip(&self.inputs) {
            if was != is {
                let length = |source: &Source| {
                    let bytes = source.bytes.map_or_else(String::new, |bytes| format!(" ({bytes} bytes)"));
                    format!("{}{bytes}", source.path)
                };
                return changed("an input", &length(was), &length(is));
            }
        }
        (self != journaled).then(|| "the command has other inputs or options".into())
    }
}

/// An open and locked journal. The lock keeps other processes from writing the same output.
pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Opens or creates the journal. Returns its last entry, unless it is new or `overwrite` is set.
    pub(super) fn open(path: &Path, plan: &Plan, overwrite: bool) -> anyhow::Result<(Self, Option<Entry>)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        if file.try_lock().is_err() {
            bail!("{} is locked: another `embeddery embed` is writing this output", path.display());
        }
        let mut journal = Self { file };
        let last = if overwrite { None } else { journal.read(path, plan)? };
        // The journal is rewritten with the last entry only, which also removes a partial line after a crash.
        journal.file.set_len(0)?;
        journal.file.rewind()?;
        journal.append(plan)?;
        if let Some(entry) = &last {
            journal.append(entry)?;
        }
        Ok((journal, last))
    }

    fn read(&self, path: &Path, plan: &Plan) -> anyhow::Result<Option<Entry>> {
        let mut lines = BufReader::new(&self.file).split(b'\n');
        let Some(first) = lines.next().transpose()? else { return Ok(None) };
        let start_over = "start over with --overwrite";
        match parse::<Plan>(&first) {
            Some(journaled) => {
                if let Some(difference) = plan.difference(&journaled) {
                    bail!(ReportedError(format!(
                        "{} belongs to a different run: {difference}; repeat the original command, or {start_over}",
                        path.display()
                    )));
                }
            }
            // The plan is incomplete, so no batch was written.
            None if lines.next().is_none() => return Ok(None),
            None => bail!(ReportedError(format!("{} is damaged; {start_over}", path.display()))),
        }
        let mut last = Entry::default();
        for line in lines {
            let Some(entry) = parse(&line?) else { break };
            last = entry;
        }
        Ok(Some(last))
    }

    /// Appends a line and waits until it is on the disk.
    pub(super) fn append(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.file.write_all(&text)?;
        self.file.sync_data()
    }
}

/// `None` for an incomplete line.
fn parse<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
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
    fn a_run_resumes_after_the_last_complete_entry_and_refuses_another_plan() {
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
