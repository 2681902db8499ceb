//! Pairs of conversations that differ in their answer.

use std::path::Path;

use super::{
    DataFile, Document, Encoder, Format, Score, SourceOptions, SourceReport, chat, kept_out,
};
use crate::{Error, Result};

/// A prompt with a better and a worse answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The prompt with the better answer.
    pub better: Document,
    /// The prompt with the worse one.
    pub worse: Document,
}

impl Pair {
    /// The number of tokens of both.
    pub fn tokens(&self) -> usize {
        self.better.len() + self.worse.len()
    }
}

/// A file of pairs.
#[derive(Debug, Clone)]
pub struct PairSource {
    /// Pairs to learn from.
    pub training: Vec<Pair>,
    /// Pairs kept out.
    pub validation: Vec<Pair>,
    /// Counts.
    pub report: SourceReport,
}

impl PairSource {
    /// Reads and tokenises one file of [`Format::Preference`]. Of every conversation the last answer is
    /// scored, each of its tokens alike. Pairs that cannot be learnt from are left out and counted.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for another format or settings that have no meaning for pairs;
    /// [`Error::Data`] with the line of the first broken row; [`Error::EmptyData`] when no pair is left.
    pub fn read(
        options: &SourceOptions,
        folder: &Path,
        encoder: &Encoder<'_>,
        seed: u64,
    ) -> Result<Self> {
        if options.format != Format::Preference {
            let detail = format!("expected preference for pairs, found {:?}", options.format);
            return Err(Error::option("data.format", detail));
        }
        if options.answer_weight != 1.0 {
            let detail = format!("expected 1 for pairs, found {}", options.answer_weight);
            return Err(Error::option("answer_weight", detail));
        }
        let options = SourceOptions {
            score: Score::LastTurn,
            ..options.clone()
        };
        let path = folder.join(&options.path);
        let file = DataFile::read(&path)?;
        let all = chat::pairs(&file, &options, encoder)?;
        let found = all.len();
        let pairs = all
            .into_iter()
            .map(|(better, worse)| Pair { better, worse })
            .filter(|pair| is_usable(pair, encoder.max_tokens));
        let used: Vec<Pair> = pairs.collect();
        if used.is_empty() {
            let detail = format!("none of the {found} pairs can be learnt from");
            return Err(Error::EmptyData { path, detail });
        }
        if options.holdout >= used.len() {
            let (pairs, holdout) = (used.len(), options.holdout);
            let detail = format!("expected fewer than the {pairs} pairs, found {holdout}");
            return Err(Error::option("holdout", detail));
        }
        let scored = |pair: &Pair| pair.better.scored() + pair.worse.scored();
        let report = SourceReport {
            documents: used.len(),
            skipped: found - used.len(),
            cut: 0,
            tokens: used.iter().map(Pair::tokens).sum(),
            scored: used.iter().map(scored).sum(),
            sha256: file.sha256().to_string(),
        };
        let out = kept_out(used.len(), options.holdout, seed);
        let mut source = Self {
            training: Vec::new(),
            validation: Vec::new(),
            report,
        };
        for (i, pair) in used.into_iter().enumerate() {
            let part = if out.contains(&i) {
                &mut source.validation
            } else {
                &mut source.training
            };
            part.push(pair);
        }
        Ok(source)
    }
}

/// Whether both answers have something to score, differ, and fit into a micro-batch together.
fn is_usable(pair: &Pair, max_tokens: usize) -> bool {
    let (better, worse) = (&pair.better, &pair.worse);
    let scored = better.scored() > 0 && worse.scored() > 0;
    scored && better.tokens() != worse.tokens() && pair.tokens() <= max_tokens
}
