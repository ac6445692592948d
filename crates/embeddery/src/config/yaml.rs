//! From YAML to the tree, with the place of every value.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Spanned, options::NonFiniteFloatPolicy};

use super::tree::{Node, Source, Value};

/// Reads YAML. `source` makes a source of a line and a column. The error says where the text breaks.
pub(super) fn parse(yaml: &str, source: fn(usize, usize) -> Source) -> Result<Node, String> {
    if yaml.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Node::empty_map(source(0, 0)));
    }
    // A plain scalar is text until a type is asked for: the revision 12e4567 and the name .inf are valid.
    let options = serde_saphyr::options! { non_finite_float_policy: NonFiniteFloatPolicy::PassThrough };
    let parsed: Spanned<YamlValue> =
        serde_saphyr::from_str_with_options(yaml, options).map_err(|error| match error.location() {
            Some(at) => format!(", line {} column {}: {}", at.line(), at.column(), error.without_snippet()),
            None => format!(": {}", error.without_snippet()),
        })?;
    Ok(to_node(parsed, yaml, source))
}

/// A value as the reader of YAML gives it. What a plain scalar is, stands in the text at its place.
enum YamlValue {
    Null,
    Quoted(String),
    Plain,
    List(Vec<Spanned<YamlValue>>),
    Map(Vec<(Spanned<String>, Spanned<YamlValue>)>),
}

fn to_node(parsed: Spanned<YamlValue>, yaml: &str, source: fn(usize, usize) -> Source) -> Node {
    let value = match parsed.value {
        YamlValue::Null => Value::Null,
        YamlValue::Quoted(text) => Value::Scalar { text, plain: false },
        YamlValue::Plain => Value::Scalar { text: written(&parsed.defined, yaml).to_owned(), plain: true },
        YamlValue::List(items) => {
            Value::List(items.into_iter().map(|item| to_node(item, yaml, source)).collect())
        }
        YamlValue::Map(entries) => {
            let entry = |(name, value): (Spanned<String>, Spanned<YamlValue>)| {
                let at = source(line(&name.referenced), column(&name.referenced));
                (name.value, Node { source: at, ..to_node(value, yaml, source) })
            };
            Value::Map(entries.into_iter().map(entry).collect())
        }
    };
    Node { value, source: source(line(&parsed.referenced), column(&parsed.referenced)) }
}

/// The text at a place.
fn written<'a>(at: &serde_saphyr::Location, yaml: &'a str) -> &'a str {
    let span = at.span();
    let place = || {
        let from = usize::try_from(span.byte_offset()?).ok()?;
        yaml.get(from..from + usize::try_from(span.byte_len()?).ok()?)
    };
    place().unwrap_or_default().trim()
}

fn line(at: &serde_saphyr::Location) -> usize {
    usize::try_from(at.line()).unwrap_or_default()
}

fn column(at: &serde_saphyr::Location) -> usize {
    usize::try_from(at.column()).unwrap_or_default()
}

impl<'de> Deserialize<'de> for YamlValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = YamlValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<YamlValue, E> {
        Ok(YamlValue::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain)
    }

    fn visit_i64<E>(self, _: i64) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain)
    }

    fn visit_u64<E>(self, _: u64) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain)
    }

    fn visit_f64<E>(self, _: f64) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain)
    }

    fn visit_str<E>(self, text: &str) -> Result<YamlValue, E> {
        Ok(YamlValue::Quoted(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<YamlValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(YamlValue::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<YamlValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(YamlValue::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Node {
        super::parse(yaml, |line, column| Source::File { line, column }).unwrap()
    }

    #[test]
    fn scalars_keep_their_text_and_their_place() {
        let tree = parse("a: 0123\nä: {b: 1e10, c: '5', d: yes}\nlist: [7, x]\n");
        let text = |path: &[&str]| tree.get(path).unwrap().text().unwrap().to_owned();
        assert_eq!(
            (text(&["a"]), text(&["ä", "b"]), text(&["ä", "c"])),
            ("0123".into(), "1e10".into(), "5".into())
        );
        assert_eq!(
            (text(&["ä", "d"]), text(&["list", "0"]), text(&["list", "1"])),
            ("yes".into(), "7".into(), "x".into())
        );
        assert_eq!(tree.get(&["ä"]).unwrap().source, Source::File { line: 2, column: 1 });
    }

    #[test]
    fn texts_that_look_like_infinite_numbers_stay_texts() {
        let tree = parse("a: 12e4567\nb: .inf\nc: 9e99999\n");
        for (key, text) in [("a", "12e4567"), ("b", ".inf"), ("c", "9e99999")] {
            assert_eq!(tree.get(&[key]).unwrap().text(), Some(text));
        }
    }

    #[test]
    fn an_anchor_is_what_it_stands_for() {
        let tree = parse("a: &x 0017\nb: *x\nc: ~\n");
        assert_eq!(tree.get(&["b"]).unwrap().text(), Some("0017"));
        assert_eq!(tree.get(&["b"]).unwrap().source, Source::File { line: 2, column: 1 });
        assert!(matches!(tree.get(&["c"]).unwrap().value, Value::Null));
    }
}
