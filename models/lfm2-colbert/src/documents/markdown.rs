//! As much of Markdown as it takes to keep headings with what stands below them.

use std::ops::Range;

/// The deepest level of headings.
const LEVELS: usize = 6;

/// What divides a text: where its parts are and what they are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outline {
    /// The title of the front matter, else the first heading of the first level.
    pub(crate) title: Option<String>,
    /// The parts, in order. Heading lines and front matter belong to none.
    pub(crate) sections: Vec<Section>,
}

/// The text below one heading, up to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    /// The headings above, outermost first, without the title.
    pub(crate) heading: String,
    /// Where the text is.
    pub(crate) bytes: Range<usize>,
}

impl Outline {
    /// The outline of a text that has no headings.
    pub(crate) fn plain(text: &str) -> Self {
        let heading = String::new();
        let bytes = 0..text.len();
        Self {
            title: None,
            sections: vec![Section { heading, bytes }],
        }
    }

    /// The outline of a Markdown text.
    pub(crate) fn markdown(text: &str) -> Self {
        let (mut title, body) = front_matter(text);
        let mut headings: [Option<String>; LEVELS] = Default::default();
        let mut sections = Vec::new();
        let mut fence: Option<Fence> = None;
        let mut start = body;
        let mut at = body;
        for line in text.get(body..).unwrap_or_default().split_inclusive('\n') {
            let next = at + line.len();
            if let Some(open) = &fence {
                if open.is_closed_by(line) {
                    fence = None;
                }
            } else if let Some(open) = Fence::opened_by(line) {
                fence = Some(open);
            } else if let Some((level, heading)) = heading(line) {
                push(&mut sections, &headings, title.as_deref(), text, start..at);
                start = next;
                if level == 1 && title.is_none() {
                    title = Some(heading.to_owned());
                }
                for slot in headings.iter_mut().skip(level - 1) {
                    *slot = None;
                }
                if let Some(slot) = headings.get_mut(level - 1) {
                    *slot = Some(heading.to_owned());
                }
            }
            at = next;
        }
        push(&mut sections, &headings, title.as_deref(), text, start..at);
        Self { title, sections }
    }
}

/// Keeps a section that says something.
fn push(
    sections: &mut Vec<Section>,
    headings: &[Option<String>],
    title: Option<&str>,
    text: &str,
    bytes: Range<usize>,
) {
    let body = text.get(bytes.clone()).unwrap_or_default();
    if body.trim().is_empty() {
        return;
    }
    let path = headings.iter().flatten().map(String::as_str);
    let path: Vec<&str> = path.filter(|heading| Some(*heading) != title).collect();
    let heading = path.join(" > ");
    sections.push(Section { heading, bytes });
}

/// The title in the front matter, and where the text after it begins.
fn front_matter(text: &str) -> (Option<String>, usize) {
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next().filter(|line| line.trim_end() == "---") else {
        return (None, 0);
    };
    let mut title = None;
    let mut at = first.len();
    for line in lines {
        at += line.len();
        if matches!(line.trim_end(), "---" | "...") {
            return (title, at);
        }
        if let Some(value) = line.strip_prefix("title:") {
            let value = value.trim().trim_matches(['"', '\'']);
            title = Some(value.to_owned()).filter(|value| !value.is_empty());
        }
    }
    // Without an end it is a horizontal rule.
    (None, 0)
}

/// The level and the text of a heading line.
fn heading(line: &str) -> Option<(usize, &str)> {
    let indent = line.len() - line.trim_start_matches(' ').len();
    let line = line.trim();
    let text = line.trim_start_matches('#');
    let level = line.len() - text.len();
    if indent > 3
        || level == 0
        || level > LEVELS
        || !(text.is_empty() || text.starts_with([' ', '\t']))
    {
        return None;
    }
    let text = text.trim();
    // Closing marks are decoration.
    let bare = text.trim_end_matches('#');
    let text = match bare.ends_with([' ', '\t']) || bare.is_empty() {
        true => bare.trim_end(),
        false => text,
    };
    Some((level, text))
}

/// The marks around a block of code, in which `#` starts no heading.
struct Fence {
    mark: char,
    length: usize,
}

impl Fence {
    fn opened_by(line: &str) -> Option<Self> {
        let line = line.trim_start();
        let mark = line
            .chars()
            .next()
            .filter(|mark| matches!(mark, '`' | '~'))?;
        let rest = line.trim_start_matches(mark);
        let length = line.len() - rest.len();
        let inline = mark == '`' && rest.contains('`');
        (length >= 3 && !inline).then_some(Self { mark, length })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let line = line.trim();
        line.len() >= self.length && line.chars().all(|c| c == self.mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The title, and heading and text of every section.
    fn outline(text: &str) -> (Option<String>, Vec<(String, &str)>) {
        let outline = Outline::markdown(text);
        let sections = outline.sections.into_iter();
        let sections = sections
            .map(|s| (s.heading, text[s.bytes].trim()))
            .collect();
        (outline.title, sections)
    }

    #[test]
    fn headings_stand_above_their_text() {
        let text = "intro\n# Guide #\nfirst\n## One\na\n### Deep ###\nb\n## C#\nc\n";
        let (title, sections) = outline(text);
        assert_eq!(title.as_deref(), Some("Guide"));
        let expected = [
            ("", "intro"),
            ("", "first"),
            ("One", "a"),
            ("One > Deep", "b"),
            ("C#", "c"),
        ];
        let expected = expected.map(|(heading, text)| (heading.to_owned(), text));
        assert_eq!(sections, expected);
    }

    #[test]
    fn front_matter_gives_the_title_and_is_no_text() {
        let (title, sections) = outline("---\ntitle: \"A: b\"\ntags: [x]\n---\n# H\ntext\n");
        assert_eq!(title.as_deref(), Some("A: b"));
        assert_eq!(sections, [("H".to_owned(), "text")]);
        // A rule at the start is none.
        let (title, sections) = outline("---\ntext\n");
        assert_eq!((title, sections.len()), (None, 1));
    }

    #[test]
    fn code_has_no_headings() {
        let text =
            "# T\n```sh\n# comment\n~~~\n```\n## H\n    # indented\n#hashtag\n```inline``` # x\n";
        let (_, sections) = outline(text);
        assert_eq!(sections.len(), 2);
        assert!(sections[0].1.contains("# comment") && sections[1].1.contains("#hashtag"));
        // A block that is never closed swallows the rest.
        assert_eq!(outline("```\n# a\n").1.len(), 1);
    }

    #[test]
    fn nothing_and_headings_alone_have_no_sections() {
        assert_eq!(outline("").1, []);
        assert_eq!(outline("# A\n\n## B\n").1, []);
        assert_eq!(outline("# A\r\ntext\r\n").0.as_deref(), Some("A"));
        assert_eq!(outline("####### seven\n").1.len(), 1);
        assert_eq!(outline("#\nx\n").1.len(), 1);
    }
}
