//! Word error rates: how far transcripts are from what was said.

use lfm2_audio::{AudioModel, GenerationOptions};
use lfm2_generate::Cancel;
use serde::Serialize;

use crate::speech::{SpokenRow, SpokenRows};
use crate::{Error, Result};

/// The fewest changes that make one text of another, word by word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WordEdits {
    /// Words that are others.
    pub replaced: usize,
    /// Words that nobody said.
    pub added: usize,
    /// Words that are not there.
    pub missing: usize,
}

impl WordEdits {
    /// What `found` has wrong of `expected`. Upper case and punctuation do not count.
    pub fn between(expected: &str, found: &str) -> Self {
        let (expected, found) = (words(expected), words(found));
        // The best way to every word of `found` with the words of `expected` so far.
        let added = |n| Self {
            added: n,
            ..Self::default()
        };
        let mut row: Vec<Self> = (0..=found.len()).map(added).collect();
        for word in &expected {
            let mut next = Vec::with_capacity(row.len());
            for (i, above) in row.iter().enumerate() {
                let mut best = Self {
                    missing: above.missing + 1,
                    ..*above
                };
                let before = i.checked_sub(1);
                if let Some((i, corner)) = before.and_then(|i| Some((i, *row.get(i)?))) {
                    let wrong = usize::from(found.get(i) != Some(word));
                    let kept = Self {
                        replaced: corner.replaced + wrong,
                        ..corner
                    };
                    best = kept.or_better(best);
                }
                if let Some(left) = next.last() {
                    let left: Self = *left;
                    best = best.or_better(Self {
                        added: left.added + 1,
                        ..left
                    });
                }
                next.push(best);
            }
            row = next;
        }
        row.last().copied().unwrap_or_default()
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.replaced + self.added + self.missing
    }

    fn or_better(self, other: Self) -> Self {
        if other.total() < self.total() {
            other
        } else {
            self
        }
    }
}

/// The words of a text, in small letters and without punctuation.
fn words(text: &str) -> Vec<String> {
    let kept = |c: &char| c.is_alphanumeric() || *c == '\'';
    let word = |word: &str| {
        word.chars()
            .filter(kept)
            .flat_map(char::to_lowercase)
            .collect()
    };
    let words = text.split_whitespace().map(word);
    words.filter(|word: &String| !word.is_empty()).collect()
}

/// What a model wrote for one clip.
#[derive(Debug)]
#[non_exhaustive]
pub struct Transcribed<'a> {
    /// The clip and what is said in it.
    pub row: &'a SpokenRow,
    /// What the model wrote.
    pub output: &'a str,
    /// What is wrong with that.
    pub edits: WordEdits,
}

/// Tokens that nobody says in a second, and some to begin with: a model that runs into a loop is wrong about one
/// clip and is asked about the next.
const MOST_TOKENS: usize = 24;
const MOST_TOKENS_PER_SECOND: f64 = 16.0;

/// How a model transcribed the clips of a manifest.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WerReport {
    /// Clips.
    pub clips: usize,
    /// Clips without a mistake.
    pub right_clips: usize,
    /// Words that were said.
    pub words: usize,
    /// Mistakes.
    pub edits: WordEdits,
    /// Mistakes by words that were said.
    pub word_error_rate: f64,
    /// Seconds of sound.
    pub seconds: f64,
}

/// Transcribes every clip on its own, taking the likeliest words. `done` is told of each.
///
/// # Errors
/// [`Error::Cancelled`] with the number of finished clips; errors of files and of the model.
pub fn word_error_rate(
    model: &AudioModel,
    rows: &SpokenRows,
    limit: usize,
    cancel: &Cancel,
    mut done: impl FnMut(&Transcribed<'_>),
) -> Result<WerReport> {
    let mut report = WerReport::default();
    for row in rows.rows().iter().take(limit) {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled {
                step: report.clips as u64,
            });
        }
        let clip = rows.clip(row)?;
        let most = MOST_TOKENS + (MOST_TOKENS_PER_SECOND * clip.seconds()) as usize;
        let options = GenerationOptions::greedy().with_max_new_tokens(most);
        let output = model.transcribe(&clip, &options)?;
        let output = output.finish()?.text;
        let edits = WordEdits::between(&row.text, &output);
        report.clips += 1;
        report.right_clips += usize::from(edits.total() == 0);
        report.words += words(&row.text).len();
        report.edits.replaced += edits.replaced;
        report.edits.added += edits.added;
        report.edits.missing += edits.missing;
        report.seconds += clip.seconds();
        done(&Transcribed {
            row,
            output: output.trim(),
            edits,
        });
    }
    report.word_error_rate = report.edits.total() as f64 / report.words.max(1) as f64;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn edits(expected: &str, found: &str) -> [usize; 3] {
        let edits = WordEdits::between(expected, found);
        [edits.replaced, edits.added, edits.missing]
    }

    #[test]
    fn mistakes_are_told_apart() {
        assert_eq!(edits("one two three", "one two three"), [0, 0, 0]);
        assert_eq!(edits("one two three", "one six three"), [1, 0, 0]);
        assert_eq!(edits("one two three", "one three"), [0, 0, 1]);
        assert_eq!(edits("one two three", "one two two three"), [0, 1, 0]);
        assert_eq!(edits("one two", ""), [0, 0, 2]);
        assert_eq!(edits("", "one two"), [0, 2, 0]);
        // One missing and one more would be as few.
        assert_eq!(edits("nine nine one", "nine one five"), [2, 0, 0]);
    }

    #[test]
    fn case_and_punctuation_are_no_mistakes() {
        assert_eq!(
            edits("it's ten past nine", "It's ten, past nine. "),
            [0, 0, 0]
        );
        assert_eq!(edits("- one", "one"), [0, 0, 0]);
    }

    /// All ways, one after the other.
    fn fewest(a: &[u8], b: &[u8]) -> usize {
        match (a, b) {
            ([], rest) | (rest, []) => rest.len(),
            ([x, a @ ..], [y, b @ ..]) => {
                let whole = |rest: &[u8], first: u8| [&[first], rest].concat();
                let kept = fewest(a, b) + usize::from(x != y);
                kept.min(fewest(a, &whole(b, *y)) + 1)
                    .min(fewest(&whole(a, *x), b) + 1)
            }
        }
    }

    #[test]
    fn there_are_no_fewer_mistakes_by_any_other_way() {
        let mut rng = Rng::new(4);
        for _ in 0..200 {
            let mut some = || {
                (0..rng.below(6))
                    .map(|_| b'a' + rng.below(3) as u8)
                    .collect()
            };
            let (a, b): (Vec<u8>, Vec<u8>) = (some(), some());
            let text = |word: &[u8]| {
                let letters = word.iter().map(|b| char::from(*b).to_string());
                letters.collect::<Vec<_>>().join(" ")
            };
            let found = WordEdits::between(&text(&a), &text(&b)).total();
            assert_eq!(found, fewest(&a, &b), "{a:?} {b:?}");
        }
    }
}
