//! Metrics as JSON. They are parsed from the text that Prometheus gets, so the two cannot differ.

use std::collections::BTreeMap;

use prometheus_client::{encoding::prometheus_text, registry::Registry};
use serde::Serialize;
use utoipa::ToSchema;

/// One series.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Sample {
    /// The family, with `_total` where it is a counter.
    pub(crate) name: String,
    pub(crate) value: f64,
    /// Its labels, beside name and value.
    #[serde(flatten)]
    pub(crate) labels: BTreeMap<String, String>,
}

/// The current values of all series of the registry.
pub(crate) fn samples(registry: &Registry) -> Vec<Sample> {
    let mut text = String::new();
    if prometheus_text::encode(&mut text, registry).is_err() {
        return Vec::new();
    }
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some(Sample { name: series.to_owned(), value, labels: BTreeMap::new() });
    };
    Some(Sample { name: name.to_owned(), value, labels: pairs(labels.strip_suffix('}')?)? })
}

/// `a="x",b="y"`, with `\"`, `\\` and `\n` inside values.
fn pairs(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let (mut value, mut characters) = (String::new(), rest.char_indices());
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.to_owned(), value);
        text = rest[end + 1..].trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_read_with_its_labels() {
        let read = sample(r#"a_total{provider="openai",model="say \"x\", y\\"} 3"#).unwrap();
        assert_eq!((read.name.as_str(), read.value), ("a_total", 3.0));
        assert_eq!(read.labels["model"], r#"say "x", y\"#);
        assert_eq!(sample("up 1").unwrap().labels.len(), 0);
    }
}
