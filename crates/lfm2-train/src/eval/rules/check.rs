//! Whether an answer keeps a rule.

use serde_json::Value;

use super::Rule;

impl Rule {
    /// Whether `output` keeps the rule. An answer of blanks keeps none.
    pub fn holds(&self, output: &str) -> bool {
        let text = output.trim();
        if text.is_empty() {
            return false;
        }
        let lines = || text.lines().map(str::trim);
        match self {
            Self::Words { at_least, at_most } => {
                within(text.split_whitespace().count(), *at_least, *at_most)
            }
            Self::Sentences { at_least, at_most } => within(sentences(text), *at_least, *at_most),
            Self::Paragraphs { count } => paragraphs(text).len() == *count,
            Self::Bullets { count } => lines().filter(|line| is_bullet(line)).count() == *count,
            Self::Numbered { count } => numbered(lines()) == Some(*count),
            Self::Contains { texts } => {
                let lower = text.to_lowercase();
                texts
                    .iter()
                    .all(|part| lower.contains(&part.to_lowercase()))
            }
            Self::Avoids { texts } => texts.iter().all(|word| times(text, word) == 0),
            Self::Times {
                text: word,
                at_least,
                at_most,
            } => within(times(text, word), *at_least, *at_most),
            Self::Letter {
                letter,
                at_least,
                at_most,
            } => {
                let is_it = |c: &char| c.to_lowercase().eq(letter.to_lowercase());
                within(text.chars().filter(is_it).count(), *at_least, *at_most)
            }
            Self::StartsWith { text: first } => {
                text.to_lowercase().starts_with(&first.to_lowercase())
            }
            Self::EndsWith { text: last } => text.to_lowercase().ends_with(&last.to_lowercase()),
            Self::OneOf { texts } => {
                let bare = text.trim_end_matches('.').to_lowercase();
                let mut all = texts.iter().map(|t| t.trim_end_matches('.').to_lowercase());
                all.any(|t| t == bare)
            }
            Self::NoCommas => !text.contains(','),
            Self::LowerCase => !text.chars().any(char::is_uppercase),
            Self::UpperCase => !text.chars().any(char::is_lowercase),
            Self::CapitalWords { at_least, at_most } => {
                let count = words(text).filter(|word| is_capital(word)).count();
                within(count, *at_least, *at_most)
            }
            Self::Json => serde_json::from_str::<Value>(without_fence(text)).is_ok(),
            Self::Quoted => text.len() > 1 && text.starts_with('"') && text.ends_with('"'),
            Self::Title => lines().any(|line| enclosed(line, "<<", ">>") > 0),
            Self::Placeholders { at_least } => {
                lines().map(|line| enclosed(line, "[", "]")).sum::<usize>() >= *at_least
            }
            Self::Highlights { at_least } => lines().map(highlights).sum::<usize>() >= *at_least,
            Self::Postscript { text: first } => {
                let last = paragraphs(text).pop().unwrap_or_default();
                let last_line = last.lines().next_back().unwrap_or_default().trim();
                [last.as_str(), last_line]
                    .iter()
                    .any(|part| part.starts_with(first.as_str()))
            }
            Self::Parts { between, count } => parts(text, between) == Some(*count),
        }
    }
}

/// The forms of an answer in which a rule may hold as well: as it is, without its first line, its last
/// line or both, each also without asterisks.
pub(super) fn loose_forms(output: &str) -> Vec<String> {
    let lines: Vec<&str> = output.trim().lines().collect();
    let inner = |from: usize, to: usize| lines.get(from..to).unwrap_or_default().join("\n");
    let end = lines.len();
    let mut forms = vec![
        output.to_owned(),
        inner(1, end),
        inner(0, end.saturating_sub(1)),
        inner(1, end.saturating_sub(1)),
    ];
    let bare: Vec<String> = forms.iter().map(|form| form.replace('*', "")).collect();
    forms.extend(bare);
    forms
}

fn within(count: usize, at_least: Option<usize>, at_most: Option<usize>) -> bool {
    at_least.is_none_or(|least| count >= least) && at_most.is_none_or(|most| count <= most)
}

/// Words without the marks around them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text
        .split_whitespace()
        .map(|word| word.trim_matches(is_mark));
    words.filter(|word| !word.is_empty())
}

fn is_mark(c: char) -> bool {
    !c.is_alphanumeric()
}

/// How often `sought`, one word or several, occurs with no letter or digit before and behind it.
fn times(text: &str, sought: &str) -> usize {
    let (text, sought) = (text.to_lowercase(), sought.to_lowercase());
    let is_part = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let found = text.match_indices(&sought).filter(|(place, _)| {
        let (before, behind) = text.split_at(*place);
        let behind = behind.get(sought.len()..).unwrap_or_default();
        !is_part(before.chars().next_back()) && !is_part(behind.chars().next())
    });
    found.count()
}

fn sentences(text: &str) -> usize {
    let words: Vec<&str> = text.split_whitespace().collect();
    let closing = |c: char| matches!(c, '"' | '\'' | ')' | '*' | '”' | '’');
    let ends = |word: &&&str| word.trim_end_matches(closing).ends_with(['.', '!', '?']);
    let ended = words.iter().filter(ends).count();
    let open = words.last().is_some_and(|word| !ends(&word));
    ended + usize::from(open)
}

fn paragraphs(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        match (line.trim().is_empty(), open) {
            (true, _) => open = false,
            (false, false) => {
                found.push(line.to_owned());
                open = true;
            }
            (false, true) => {
                if let Some(last) = found.last_mut() {
                    last.push('\n');
                    last.push_str(line);
                }
            }
        }
    }
    found
}

fn is_bullet(line: &str) -> bool {
    ["- ", "* ", "• "].iter().any(|mark| line.starts_with(mark))
}

/// How many lines are numbered from 1 in order; nothing where numbers are missing or repeated.
fn numbered<'a>(lines: impl Iterator<Item = &'a str>) -> Option<usize> {
    let mut count = 0;
    for line in lines {
        let digits = line.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = line.split_at(digits);
        if number.is_empty() || !behind.starts_with(". ") {
            continue;
        }
        count += 1;
        if number.parse() != Ok(count) {
            return None;
        }
    }
    Some(count)
}

fn is_capital(word: &str) -> bool {
    word.chars().any(char::is_uppercase) && !word.chars().any(char::is_lowercase)
}

/// The inside of a block of code, where the whole text is one.
fn without_fence(text: &str) -> &str {
    let inside = || {
        let (_, behind) = text.strip_prefix("```")?.split_once('\n')?;
        behind.trim_end().strip_suffix("```")
    };
    inside().unwrap_or(text)
}

/// How many parts of a line that are not empty stand between two marks.
fn enclosed(line: &str, open: &str, close: &str) -> usize {
    let mut count = 0;
    let mut rest = line;
    while let Some((_, behind)) = rest.split_once(open) {
        let Some((inside, after)) = behind.split_once(close) else {
            break;
        };
        count += usize::from(!inside.trim().is_empty());
        rest = after;
    }
    count
}

/// Parts of a line between one or two asterisks that touch them; a bullet is none.
fn highlights(line: &str) -> usize {
    let line = line.strip_prefix("* ").unwrap_or(line).replace("**", "*");
    let marks: Vec<&str> = line.split('*').collect();
    let inside = marks.iter().skip(1).step_by(2);
    let closed = (marks.len() - 1) / 2;
    inside
        .take(closed)
        .filter(|part| !part.is_empty() && part.trim() == **part)
        .count()
}

/// How many parts a text has with lines of `between` alone between them; nothing where one is empty.
fn parts(text: &str, between: &str) -> Option<usize> {
    let mut found = vec![String::new()];
    for line in text.lines() {
        if line.trim() == between {
            found.push(String::new());
        } else if let Some(last) = found.last_mut() {
            last.push_str(line.trim());
        }
    }
    let whole = found.iter().all(|part| !part.is_empty());
    whole.then_some(found.len())
}
