//! Splits a text query into words, in the same way for every store. A query has no operators.

use unicode_segmentation::UnicodeSegmentation as _;

/// Maximum number of words that are searched for. Further words are ignored.
const MAX_QUERY_TERMS: usize = 64;

/// Returns the words to search for, each once, in lower case.
pub(crate) fn query_terms(query: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in query.unicode_words() {
        // `unicode_words` keeps "3.14" and "don't" whole. The full-text indexes split them, so they are split here too.
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
    fn operators_are_plain_words() {
        assert_eq!(
            super::query_terms("Foxes AND \"lazy\" OR (dogs*) don't -- ; '"),
            ["foxes", "and", "lazy", "or", "dogs", "don", "t"]
        );
        assert!(super::query_terms("*** \" '").is_empty());
    }
}
