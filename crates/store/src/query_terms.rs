//! The words of a text query, the same for every store: what a person types is never a query language.

use unicode_segmentation::UnicodeSegmentation as _;

/// More words than these say nothing more.
const MAX_QUERY_TERMS: usize = 64;

/// The words to look for, each once, in lower case.
pub(crate) fn query_terms(query: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in query.unicode_words() {
        // Word joiners of identifiers and numbers, "3.14" or "don't", are boundaries in an index.
        for part in word.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()) {
            let part = part.to_lowercase();
            if words.len() < MAX_QUERY_TERMS && !words.contains(&part) {
                words.push(part);
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    #[test]
    fn operators_are_words() {
        assert_eq!(
            super::query_terms("Foxes AND \"lazy\" OR (dogs*) don't -- ; '"),
            ["foxes", "and", "lazy", "or", "dogs", "don", "t"]
        );
        assert!(super::query_terms("*** \" '").is_empty());
    }
}
