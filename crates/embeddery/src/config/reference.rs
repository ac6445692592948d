//! The reference of the keys for readers: the defaults with their variables, and the tables of the documentation.

use std::fmt::Write as _;

use embeddery_core::ProviderKind;

use super::{
    ConfigError,
    key::{Key, Usage},
    keys::{self, DEFAULTS, KEYS},
    load,
    tree::{Node, Source, Value},
};

/// The column of the variables, to the right of the keys that they set.
const VARIABLE_COLUMN: usize = 65;

/// The line of the defaults file that is replaced by the keys that a reload applies.
const LIVE_KEYS: &str = "# {keys that a reload applies}";

/// The defaults file, each key with the variables that set it.
pub(crate) fn commented_defaults() -> Result<String, ConfigError> {
    let defaults = load::defaults()?;
    let mut lines: Vec<String> = DEFAULTS.lines().map(str::to_owned).collect();
    for key in KEYS.iter().filter(|key| key.usage == Usage::Read && !key.variables.is_empty()) {
        let Some(Source::Default { line }) = defaults.get(&key.names()).map(|node| node.source) else {
            continue;
        };
        if let Some(text) = line.checked_sub(1).and_then(|line| lines.get_mut(line)) {
            let mark = if text.contains(" # ") { "" } else { "# " };
            *text = format!("{text:<VARIABLE_COLUMN$}  {mark}{}", key.variables.join(", "));
        }
    }
    let lines = lines.into_iter().map(|line| if line == LIVE_KEYS { live_keys() } else { line });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// The keys that a reload applies, as lines of comments.
fn live_keys() -> String {
    let with = |live| move |key: &&Key| key.live == Some(live) && !matches!(key.usage, Usage::Alias(_));
    let mut lines = vec!["#".to_owned()];
    for (index, key) in KEYS.iter().filter(with(true)).enumerate() {
        let names = key.names();
        let except: Vec<&str> = KEYS
            .iter()
            .filter(with(false))
            .filter(|other| other.name_after(&names).is_some())
            .map(|other| &other.path[key.path.len() + 1..])
            .collect();
        let except = if except.is_empty() { String::new() } else { format!(" (not {})", except.join(", ")) };
        let text = format!("{}{}{except}", if index == 0 { "" } else { ", " }, key.path);
        for word in text.split_inclusive(' ') {
            match lines.last_mut() {
                Some(line) if line.len() + word.len() < 118 => *line += if line == "#" { " " } else { "" },
                _ => lines.push("# ".to_owned()),
            }
            if let Some(line) = lines.last_mut() {
                *line += word;
            }
        }
    }
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

/// Every key in a Markdown table, and what else the environment sets, and what has no effect.
pub(crate) fn key_tables() -> Result<String, ConfigError> {
    let mut rows = Vec::new();
    default_rows(&mut Vec::new(), &load::defaults()?, &mut rows);
    for key in KEYS.iter().filter(|key| key.usage == Usage::Read && !is_unused(key)) {
        let names = key.names();
        let is_section = KEYS.iter().any(|other| other.name_after(&names).is_some());
        let has_default =
            rows.iter().any(|(row, _)| row == key.path || row.starts_with(&format!("{}.", key.path)));
        if !is_section && !has_default {
            rows.push((key.path.to_owned(), String::new()));
        }
    }

    let mut page =
        String::from("## Keys\n\n| key | default | variable | a change holds |\n|---|---|---|---|\n");
    for (key, default) in rows {
        let names: Vec<&str> = key.split('.').collect();
        let row = keys::find(&names);
        let variables = row.map(|row| code(row.variables)).unwrap_or_default();
        let secret = if row.is_some_and(|row| row.secret) { " (secret)" } else { "" };
        let holds = if keys::is_live(&names) { "after a reload" } else { "after a restart" };
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let _ = writeln!(page, "| `{key}`{secret} | {default} | {variables} | {holds} |");
    }
    page += "\n## Variables without a key\n\n| variable | |\n|---|---|\n";
    for key in KEYS.iter().filter(|key| key.usage == Usage::EnvironmentOnly) {
        let _ = writeln!(page, "| {} | {} |", code(key.variables), if key.secret { "secret" } else { "" });
    }
    page += "\n## Accepted without effect\n\n| setting | why, or what it is another name of |\n|---|---|\n";
    for key in KEYS {
        let setting = if key.path.is_empty() { code(key.variables) } else { format!("`{}`", key.path) };
        let why = match key.usage {
            Usage::Ignored(reason) => reason.to_owned(),
            Usage::IgnoredList(reason) => format!("as a list: {reason}"),
            Usage::Alias(target) => format!("`{target}`"),
            Usage::Read if is_unused(key) => "no model uses it".to_owned(),
            Usage::Read | Usage::EnvironmentOnly => continue,
        };
        let _ = writeln!(page, "| {setting} | {why} |");
    }
    Ok(page)
}

/// Whether no provider's models use the key.
fn is_unused(key: &Key) -> bool {
    key.unused_by.len() == ProviderKind::ALL.len()
}

fn code(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Keys and values of the defaults, in their order.
fn default_rows(path: &mut Vec<String>, node: &Node, rows: &mut Vec<(String, String)>) {
    if node.entries().is_empty() || path.len() == 1 && path[0] == "worker_pools" {
        rows.push((path.join("."), shown(node)));
        return;
    }
    for (name, node) in node.entries() {
        path.push(name.clone());
        default_rows(path, node, rows);
        path.pop();
    }
}

fn shown(node: &Node) -> String {
    match &node.value {
        Value::Null => String::new(),
        Value::Scalar { text, plain: true } => text.clone(),
        Value::Scalar { text, .. } if text.is_empty() => "\"\"".into(),
        Value::Scalar { text, .. } => text.clone(),
        Value::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(name, node)| format!("{name}: {}", shown(node)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_shown_with_their_variables() {
        let shown = commented_defaults().unwrap();
        let line =
            |key: &str| shown.lines().find(|line| line.trim_start().starts_with(key)).unwrap().to_owned();
        assert!(line("listen:").ends_with("# EMBEDDINGS_LISTEN"));
        assert!(line("ttl_seconds:").ends_with(" EMBEDDINGS_CACHE_TTL_SECONDS"));
        assert!(shown.contains("retry (not max_wait_seconds)") && !shown.contains(LIVE_KEYS));
        assert!(shown.lines().all(|line| line.len() <= 140), "{shown}");
    }

    #[test]
    fn every_key_is_in_a_table() {
        let tables = key_tables().unwrap();
        for row in [
            "| `listen` | `127.0.0.1:8000` | `EMBEDDINGS_LISTEN` | after a restart |",
            "| `limits.burst` | `10` |  | after a reload |",
            "| `redis.url` (secret) |  | `EMBEDDINGS_REDIS_URL`, `REDIS_URL` | after a restart |",
            "| `HF_TOKEN`, `HUGGINGFACE_API_KEY` | secret |",
            "| `log_level` | `log.level` |",
            "| `batching` | batches form by themselves |",
        ] {
            assert!(tables.contains(row), "{row}: {tables}");
        }
    }
}
