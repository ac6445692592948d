//! The known name that an unknown one resembles, for "did you mean" in error messages.

/// Names that resemble each other less (Jaro-Winkler) are not suggested.
const MIN_SIMILARITY: f64 = 0.75;

/// Known names that resemble `wanted`, the nearest first. Case does not matter, nor what stands before a slash.
pub fn nearest_names<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(f64, &str)> = known
        .into_iter()
        .map(|name| {
            let lower = name.to_lowercase();
            let short = lower.rsplit('/').next().unwrap_or(&lower);
            (strsim::jaro_winkler(&wanted, &lower).max(strsim::jaro_winkler(&wanted, short)), name)
        })
        .filter(|(similarity, _)| *similarity > MIN_SIMILARITY)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().map(|(_, name)| name).collect()
}

/// The known name that resembles `wanted` most; `None` when none does.
pub fn nearest_name<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_names(wanted, known).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_comes_first_and_nothing_comes_from_afar() {
        let known = ["max_inputs", "max_connections", "listen"];
        assert_eq!(nearest_name("max_input", known), Some("max_inputs"));
        assert_eq!(nearest_names("max_conections", known)[0], "max_connections");
        assert_eq!(nearest_name("zebra", known), None);
        let models = ["sentence-transformers/all-MiniLM-L6-v2", "BAAI/bge-small-en-v1.5"];
        assert_eq!(nearest_names("all-minilm-l6", models), ["sentence-transformers/all-MiniLM-L6-v2"]);
    }
}
