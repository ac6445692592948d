//! Under which headings each place of a Markdown text stands.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// A text's headings, in order.
pub(crate) struct Headings(Vec<Heading>);

struct Heading {
    /// Where it begins.
    at: usize,
    level: HeadingLevel,
    /// Its words, without marks.
    text: String,
}

impl Headings {
    /// Finds a text's headings; a `#` in a code block is none.
    pub(crate) fn of(text: &str) -> Self {
        let mut found: Vec<Heading> = Vec::new();
        let mut inside = false;
        for (event, range) in Parser::new_ext(text, Options::all()).into_offset_iter() {
            match event {
                Event::Start(Tag::Heading { level, .. }) => {
                    inside = true;
                    found.push(Heading { at: range.start, level, text: String::new() });
                }
                Event::End(TagEnd::Heading(_)) => inside = false,
                Event::Text(words) | Event::Code(words) if inside => {
                    if let Some(heading) = found.last_mut() {
                        heading.text.push_str(&words);
                    }
                }
                _ => {}
            }
        }
        Self(found)
    }

    /// The headings of the sections that hold each of these places, outermost first. Places ascend.
    pub(crate) fn path_at(&self, places: impl Iterator<Item = usize>) -> Vec<Vec<String>> {
        let mut open: Vec<&Heading> = Vec::new();
        let mut coming = self.0.iter().peekable();
        let paths = places.map(|place| {
            while let Some(heading) = coming.next_if(|heading| heading.at <= place) {
                open.retain(|outer| outer.level < heading.level);
                open.push(heading);
            }
            open.iter().map(|heading| heading.text.trim().to_owned()).collect()
        });
        paths.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_the_headings_of_its_sections() {
        let text = "before\n\n# One *big* `x`\n\na\n\n### Deep\n\nb\n\n## Two\n\n```sh\n# no heading\n```\n\nLast\n====\n\nc";
        let headings = Headings::of(text);
        let place = |words: &str| text.find(words).unwrap_or_default();
        let paths = headings
            .path_at(["before", "# One", "a\n\n#", "b\n\n#", "## Two", "# no", "c"].into_iter().map(place));
        let expected: [&[&str]; 6] = [
            &[],
            &["One big x"],
            &["One big x"],
            &["One big x", "Deep"],
            &["One big x", "Two"],
            &["One big x", "Two"],
        ];
        assert_eq!(paths[..6], expected);
        assert_eq!(headings.path_at(std::iter::once(text.len() - 1)), [["Last"]]);
    }
}
