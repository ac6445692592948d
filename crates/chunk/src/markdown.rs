//! The structure of a Markdown text: where it may be split, and the headings above each part.
//!
//! Headings are those of CommonMark. Only tables are read beyond CommonMark, and only as places to split. Other extensions
//! would change the text of headings: they read `$5` as mathematics, `{user}` as an attribute and `"a"` as quotation
//! marks to replace.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use crate::{
    ChunkError,
    boundaries::{Boundary, Level, STRUCTURE},
    progress::Progress,
};

const SOFT_BREAK: Level = STRUCTURE;
const INLINE: Level = STRUCTURE + 1;
/// The innermost blocks. Each enclosing block is one level stronger.
const BLOCK: Level = STRUCTURE + 2;
/// The nesting of blocks that levels distinguish.
const MAX_NESTING: Level = 16;
const RULE: Level = BLOCK + MAX_NESTING + 1;
const HEADING: Level = RULE + 1;

/// Maximum length of a heading in bytes. Every chunk of a section has a copy of its headings.
const MAX_HEADING_BYTES: usize = 512;

/// Maximum headings of a path: the levels of a text without nested quotes and lists.
const MAX_PATH: usize = 6;

/// The structure of a Markdown text.
pub(crate) struct Structure {
    pub(crate) boundaries: Vec<Boundary>,
    headings: Vec<Heading>,
}

struct Heading {
    /// Byte offset of the heading's first character.
    start: usize,
    /// The number of block quotes, lists and list items around the heading.
    nesting: usize,
    /// Byte offset at which the innermost of them ends.
    scope_end: usize,
    level: HeadingLevel,
    /// The heading's text without markup, up to [`MAX_HEADING_BYTES`].
    text: String,
    /// Whether the text was longer.
    is_shortened: bool,
}

impl Structure {
    /// Parses `text`. A `#` inside a code block is not a heading.
    pub(crate) fn parse(text: &str, progress: &Progress<'_>) -> Result<Self, ChunkError> {
        let body = front_matter_end(text);
        let mut structure = Self { boundaries: Vec::new(), headings: Vec::new() };
        structure.add(body, BLOCK + MAX_NESTING);
        // The ends of the open block quotes, lists and list items.
        let mut containers: Vec<usize> = Vec::new();
        let mut in_heading = false;
        for (event, range) in Parser::new_ext(&text[body..], Options::ENABLE_TABLES).into_offset_iter() {
            progress.step()?;
            let range = body + range.start..body + range.end;
            let nesting = Level::try_from(containers.len()).unwrap_or(Level::MAX);
            match &event {
                Event::Start(Tag::Heading { level, .. }) => {
                    in_heading = true;
                    let (scope_end, at) = match containers.last() {
                        Some(&end) => (end, block_level(nesting)),
                        None => (usize::MAX, HEADING + heading_rank(*level)),
                    };
                    structure.add(range.start, at);
                    structure.headings.push(Heading {
                        start: range.start,
                        nesting: containers.len(),
                        scope_end,
                        level: *level,
                        text: String::new(),
                        is_shortened: false,
                    });
                }
                Event::End(TagEnd::Heading(_)) => in_heading = false,
                Event::Start(Tag::BlockQuote(_) | Tag::Item | Tag::List(_)) => {
                    structure.add_both(range.clone(), block_level(nesting));
                    // A block ends with the one around it.
                    let end = containers.last().map_or(range.end, |outer| range.end.min(*outer));
                    containers.push(end);
                }
                Event::End(TagEnd::BlockQuote(_) | TagEnd::Item | TagEnd::List(_)) => {
                    containers.pop();
                }
                Event::Start(
                    Tag::Paragraph
                    | Tag::CodeBlock(_)
                    | Tag::HtmlBlock
                    | Tag::Table(_)
                    | Tag::TableHead
                    | Tag::TableRow,
                )
                | Event::Html(_) => {
                    // Rows are inside of their table.
                    let inner =
                        matches!(event, Event::Start(Tag::TableHead | Tag::TableRow) | Event::Html(_));
                    structure.add_both(range, block_level(nesting.saturating_add(inner.into())));
                }
                Event::Rule => structure.add_both(range, RULE),
                Event::SoftBreak | Event::HardBreak if in_heading => structure.add_to_heading(" "),
                Event::SoftBreak => structure.add_both(range, SOFT_BREAK),
                Event::Text(words) | Event::Code(words) | Event::InlineHtml(words) if in_heading => {
                    structure.add_to_heading(words);
                }
                Event::Start(_)
                | Event::Text(_)
                | Event::Code(_)
                | Event::InlineHtml(_)
                | Event::HardBreak
                    if !in_heading =>
                {
                    structure.add_both(range, INLINE);
                }
                _ => {}
            }
        }
        Ok(structure)
    }

    fn add(&mut self, offset: usize, level: Level) {
        self.boundaries.push(Boundary { offset, level });
    }

    fn add_both(&mut self, range: std::ops::Range<usize>, level: Level) {
        self.add(range.start, level);
        self.add(range.end, level);
    }

    fn add_to_heading(&mut self, text: &str) {
        let Some(heading) = self.headings.last_mut().filter(|heading| !heading.is_shortened) else { return };
        let space = MAX_HEADING_BYTES - heading.text.len();
        heading.text.push_str(&text[..text.floor_char_boundary(space)]);
        // Nothing is added to a heading that is shortened.
        heading.is_shortened = text.len() > space;
    }

    /// Returns the heading path at each of `offsets`, outermost heading first: the innermost [`MAX_PATH`] headings. Offsets
    /// must ascend.
    pub(crate) fn paths_at(
        &self,
        offsets: impl Iterator<Item = usize>,
        progress: &Progress<'_>,
    ) -> Result<Vec<Vec<String>>, ChunkError> {
        // Their scopes lie in each other, and within a block their levels descend. So the last ones close first.
        let mut open: Vec<&Heading> = Vec::new();
        let mut remaining = self.headings.iter().peekable();
        let mut paths = Vec::new();
        for offset in offsets {
            while let Some(heading) = remaining.next_if(|heading| heading.start <= offset) {
                progress.step()?;
                // A heading in a quote does not close those outside of the quote.
                while open.pop_if(|last| last.is_closed_by(heading)).is_some() {}
                open.push(heading);
            }
            while open.pop_if(|last| last.scope_end <= offset).is_some() {}
            let innermost = &open[open.len().saturating_sub(MAX_PATH)..];
            progress.steps(1 + innermost.len())?;
            paths.push(innermost.iter().map(|heading| heading.text.trim().to_owned()).collect());
        }
        Ok(paths)
    }
}

impl Heading {
    /// Whether the section of this heading ends at a later heading.
    fn is_closed_by(&self, later: &Self) -> bool {
        self.scope_end <= later.start || (self.nesting >= later.nesting && self.level >= later.level)
    }
}

/// The level of a block with this number of blocks around it.
fn block_level(nesting: Level) -> Level {
    BLOCK + MAX_NESTING - nesting.min(MAX_NESTING)
}

/// The rank of a heading: 5 for the strongest.
fn heading_rank(level: HeadingLevel) -> Level {
    match level {
        HeadingLevel::H1 => 5,
        HeadingLevel::H2 => 4,
        HeadingLevel::H3 => 3,
        HeadingLevel::H4 => 2,
        HeadingLevel::H5 => 1,
        HeadingLevel::H6 => 0,
    }
}

/// Where a block of metadata at the start of the text ends: lines between `---` and `---` or `...`. CommonMark would read
/// its last line as a heading.
fn front_matter_end(text: &str) -> usize {
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next().filter(|first| first.trim_end() == "---") else { return 0 };
    let mut end = first.len();
    for (index, line) in lines.enumerate() {
        let content = line.trim_end();
        if index == 0 && content.is_empty() {
            return 0;
        }
        end += line.len();
        if content == "---" || content == "..." {
            return end;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Structure {
        Structure::parse(text, &Progress::new(&|| false)).unwrap()
    }

    fn paths(structure: &Structure, offsets: impl Iterator<Item = usize>) -> Vec<Vec<String>> {
        structure.paths_at(offsets, &Progress::new(&|| false)).unwrap()
    }

    /// The heading path at the last byte of the text.
    fn last_path(text: &str) -> Vec<String> {
        paths(&parse(text), std::iter::once(text.len() - 1)).remove(0)
    }

    #[test]
    fn an_offset_has_the_headings_of_its_sections() {
        let text = "before\n\n# One *big* `x`\n\na\n\n### Deep\n\nb\n\n## Two\n\n```sh\n# no heading\n```\n\nLast\n====\n\nc";
        let structure = parse(text);
        let offset = |words: &str| text.find(words).unwrap_or_default();
        let offsets = ["before", "# One", "a\n\n#", "b\n\n#", "## Two", "# no", "c"].into_iter().map(offset);
        let paths = paths(&structure, offsets);
        let expected: [&[&str]; 6] = [
            &[],
            &["One big x"],
            &["One big x"],
            &["One big x", "Deep"],
            &["One big x", "Two"],
            &["One big x", "Two"],
        ];
        assert_eq!(paths[..6], expected);
        assert_eq!(last_path(text), ["Last"]);
    }

    #[test]
    fn the_text_of_a_heading_is_that_of_commonmark() {
        for (heading, expected) in [
            ("# Costs $5 or $6 a month", "Costs $5 or $6 a month"),
            ("# Hello {user}", "Hello {user}"),
            ("# Title {#id .class}", "Title {#id .class}"),
            ("# The \"best\" -- it's said...", "The \"best\" -- it's said..."),
            ("# ~~old~~ new^2^ H~2~O", "~~old~~ new^2^ H~2~O"),
            ("# A note[^1] and [ ] box", "A note[^1] and [ ] box"),
            ("# Vec<T> and <b>bold</b>", "Vec<T> and <b>bold</b>"),
            ("# See [the *guide*](https://a.example) &amp; \\# more ##", "See the guide & # more"),
            ("First line\nsecond line\n===", "First line second line"),
            ("First line  \nsecond\\\nthird\n---", "First line second third"),
            ("## `$x` in `{y}`", "$x in {y}"),
            ("# [[wiki|link]] ||spoiler||", "[[wiki|link]] ||spoiler||"),
        ] {
            assert_eq!(last_path(&format!("{heading}\n\ntext")), [expected], "{heading}");
        }
        assert_eq!(last_path("#hash is no heading\n\ntext"), [""; 0]);
    }

    #[test]
    fn a_heading_in_a_quote_or_an_item_ends_with_it() {
        let text = "# One\n\n> # Quoted\n> two\n> lines\n\nafter\n\n- # Item\n\n  in it\n\n## Two\n\nlast";
        let structure = parse(text);
        let offset = |words: &str| text.find(words).unwrap_or_default();
        let paths = paths(&structure, ["two", "after", "in it", "last"].into_iter().map(offset));
        let expected: [&[&str]; 4] = [&["One", "Quoted"], &["One"], &["One", "Item"], &["One", "Two"]];
        assert_eq!(paths, expected);
        assert_eq!(last_path("# One\n\n> # Quoted\n> text"), ["One", "Quoted"]);
        assert_eq!(last_path("> Quoted\n> title\n> ===\n> text"), ["Quoted title"]);
    }

    #[test]
    fn front_matter_is_no_heading() {
        assert_eq!(last_path("---\ntitle: A\n---\n\n# B\n\ntext"), ["B"]);
        assert_eq!(last_path("---\n\nTitle\n---\n\ntext"), ["Title"], "a rule and a heading");
    }

    #[test]
    fn a_long_heading_is_shortened() {
        let path = last_path(&format!("# {}\n\ntext", "ä".repeat(100_000)));
        assert_eq!(path, ["ä".repeat(MAX_HEADING_BYTES / 2)]);
        let parts = "`ab` ".repeat(1_000);
        assert_eq!(last_path(&format!("# {parts}\n\ntext"))[0].len(), MAX_HEADING_BYTES);
        assert_eq!(last_path(&format!("# {}狐 狐 *a*\n\ntext", "x".repeat(510))), ["x".repeat(510)]);
    }

    /// A heading in each of `depth` nested quotes, with the text after them.
    fn nested(depth: usize) -> String {
        (0..depth).map(|quotes| format!("{}# h{quotes}\n", "> ".repeat(quotes))).collect::<String>()
            + "\nafter"
    }

    #[test]
    fn a_path_has_the_innermost_headings() {
        let text = nested(10);
        let (structure, inner) = (parse(&text), text.find("h9").unwrap());
        let paths = paths(&structure, [inner, text.len() - 1].into_iter());
        assert_eq!(paths, [vec!["h4", "h5", "h6", "h7", "h8", "h9"], vec!["h0"]]);
    }

    #[test]
    fn the_work_for_paths_is_linear() {
        let steps = |depth| {
            let text = nested(depth);
            let (structure, checks) = (parse(&text), std::cell::Cell::new(0));
            let count = || {
                checks.set(checks.get() + 1);
                false
            };
            let paths = structure.paths_at(0..text.len(), &Progress::new(&count)).unwrap();
            assert!(paths.iter().all(|path| path.len() <= MAX_PATH));
            let steps = checks.get() * crate::STEPS_PER_CHECK;
            assert!(steps <= 8 * text.len() + crate::STEPS_PER_CHECK, "{steps}");
            steps
        };
        assert!(steps(300) > 0);
        let text = nested(300);
        assert_eq!(parse(&text).paths_at(0..text.len(), &Progress::new(&|| true)), Err(ChunkError::Stopped));
    }
}
