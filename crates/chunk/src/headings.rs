//! Finds the headings of a Markdown text and the heading path at a byte offset.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// The headings of a text, in order.
pub(crate) struct Headings(Vec<Heading>);

struct Heading {
    /// Byte offset of the heading's first character.
    start: usize,
    level: HeadingLevel,
    /// The heading's text without markup.
    text: String,
}

impl Headings {
    /// Parses the headings of `text`. A `#` inside a code block is not a heading.
    pub(crate) fn parse(text: &str) -> Self {
        let mut headings: Vec<Heading> = Vec::new();
        let mut in_heading = false;
        for (event, range) in Parser::new_ext(text, Options::all()).into_offset_iter() {
            match event {
                Event::Start(Tag::Heading { level, .. }) => {
                    in_heading = true;
                    headings.push(Heading { start: range.start, level, text: String::new() });
                }
                Event::End(TagEnd::Heading(_)) => in_heading = false,
                Event::Text(words) | Event::Code(words) if in_heading => {
                    if let Some(heading) = headings.last_mut() {
                        heading.text.push_str(&words);
                    }
                }
                _ => {}
            }
        }
        Self(headings)
    }

    /// Returns the heading path at each of `offsets`, outermost heading first. Offsets must ascend.
    pub(crate) fn path_at(&self, offsets: impl Iterator<Item = usize>) -> Vec<Vec<String>> {
        let mut open: Vec<&Heading> = Vec::new();
        let mut remaining = self.0.iter().peekable();
        let paths = offsets.map(|offset| {
            while let Some(heading) = remaining.next_if(|heading| heading.start <= offset) {
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
    fn an_offset_has_the_headings_of_its_sections() {
        let text = "before\n\n# One *big* `x`\n\na\n\n### Deep\n\nb\n\n## Two\n\n```sh\n# no heading\n```\n\nLast\n====\n\nc";
        let headings = Headings::parse(text);
        let offset = |words: &str| text.find(words).unwrap_or_default();
        let paths = headings
            .path_at(["before", "# One", "a\n\n#", "b\n\n#", "## Two", "# no", "c"].into_iter().map(offset));
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
