//! The words of a text query, the same for every store: what a person types is never a query language.

use unicode_segmentation::UnicodeSegmentation as _;

/// More words than these say nothing more.
const MOST_WORDS: usize = 64;

/// The words to look for, each once, in lower case.
pub(crate) fn words(query: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in query.unicode_words() {
        // Word joiners of identifiers and numbers, "3.14" or "don't", are boundaries in an index.
        for part in word.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()) {
            let part = part.to_lowercase();
            if words.len() < MOST_WORDS && !words.contains(&part) {
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
            super::words("Foxes AND \"lazy\" OR (dogs*) don't -- ; '"),
            ["foxes", "and", "lazy", "or", "dogs", "don", "t"]
        );
        assert!(super::words("*** \" '").is_empty());
    }
}
