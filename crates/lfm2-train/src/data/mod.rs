//! From data files to packed micro-batches.
//!
//! [`Source::read`] turns a file into tokenised [`Document`]s once; [`Batches`] mixes the documents
//! of several sources by token share and packs them. Models and losses are not known here.

mod chat;
mod file;
mod mixture;
mod packing;
mod pairs;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lfm2_generate::ChatTemplate;
use lfm2_hub::{Bos, SpecialTokens, Tokenizer};
use serde::{Deserialize, Serialize};

pub(crate) use chat::answers;
pub use file::{DataFile, JsonLine};
pub use mixture::{Batches, Share};
pub use packing::{MicroBatch, pack};
pub use pairs::{Pair, PairSource};

use crate::curriculum::{Curriculum, Unsolved};
use crate::file::read_json;
use crate::loss::Target;
use crate::rng::Rng;
use crate::{Error, Result};

/// A tokenised training text: a story, a conversation, or a piece of a longer one.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    tokens: Vec<u32>,
    weights: Vec<f32>,
    /// Where its first token is in the order of all training tokens, once that is known.
    place: u64,
    /// How hard it is, from 0 to 1; 0 where nobody says.
    difficulty: f64,
}

impl Document {
    /// A document whose tokens count in the loss with `weights`; 0 is not predicted. The first token
    /// never is: nothing comes before it.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when the lengths differ.
    pub fn new(tokens: Vec<u32>, weights: Vec<f32>) -> Result<Self> {
        if tokens.len() != weights.len() {
            let detail = format!("expected {} weights, found {}", tokens.len(), weights.len());
            return Err(Error::option("document", detail));
        }
        Ok(Self {
            tokens,
            weights,
            place: 0,
            difficulty: 0.0,
        })
    }

    /// The token ids.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How much each token counts in the loss as the target of the one before it.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// How many tokens are to be predicted.
    pub fn scored(&self) -> usize {
        self.weights.iter().skip(1).filter(|&&w| w != 0.0).count()
    }

    /// The target of token `i`: the token after it where that is scored.
    fn target(&self, i: usize) -> Target {
        match (self.tokens.get(i + 1), self.weights.get(i + 1)) {
            (Some(&id), Some(&weight)) if weight != 0.0 => Target { id, weight },
            _ => Target::UNSCORED,
        }
    }

    /// Pieces of at most `max` tokens. Each piece begins with the last token of the one before, so
    /// that every token is predicted exactly once.
    pub(crate) fn cut(self, max: usize) -> Vec<Self> {
        if self.len() <= max {
            return vec![self];
        }
        let starts = (0..self.len() - 1).step_by(max - 1);
        let piece = |start: usize| {
            let end = (start + max).min(self.len());
            Self {
                tokens: self.tokens[start..end].to_vec(),
                weights: self.weights[start..end].to_vec(),
                place: self.place,
                difficulty: self.difficulty,
            }
        };
        starts.map(piece).collect()
    }
}

/// The form of a data file. All forms may be compressed with gzip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Plain text; documents are separated by empty lines.
    Text,
    /// JSON lines of `{"messages": [{"role", "content"}, ..]}`.
    Chat,
    /// JSON lines of `{"prompt", "chosen", ..}`, read as a conversation of one turn.
    Preference,
}

/// Which tokens of a conversation are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// What the assistant says, with the token that ends the turn.
    #[default]
    Assistant,
    /// Only the assistant's last turn.
    LastTurn,
    /// Every token. Text is always scored whole.
    All,
}

/// One data file and its part in the training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceOptions {
    /// The file; relative paths start at the folder of the run's configuration.
    pub path: PathBuf,
    /// The file's form.
    pub format: Format,
    /// Which tokens are predicted.
    #[serde(default)]
    pub score: Score,
    /// How much a token of the assistant counts in the loss, beside 1 for any other. A short answer
    /// behind a long prompt would otherwise hardly be learnt where the prompt is scored as well.
    #[serde(default = "one")]
    pub answer_weight: f32,
    /// Its part of all tokens.
    #[serde(default)]
    pub share: Share,
    /// How many documents, chosen by the seed, are kept out for validation.
    #[serde(default)]
    pub holdout: usize,
    /// The order in which documents are met; at random without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curriculum: Option<CurriculumOptions>,
}

/// Documents in an order by how hard they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurriculumOptions {
    /// A JSON file with one number from 0 to 1 per document of the source, as [`score`](crate::score)
    /// writes it.
    pub scores: PathBuf,
    /// How difficulty becomes an order.
    #[serde(default)]
    pub order: Curriculum,
    /// What happens to documents that no model solves.
    #[serde(default)]
    pub unsolved: Unsolved,
}

impl CurriculumOptions {
    /// The difficulties of `count` documents.
    fn read(&self, folder: &Path, count: usize) -> Result<Vec<f64>> {
        self.order.validate()?;
        let path = folder.join(&self.scores);
        let scores: Vec<f64> = read_json(&path)?;
        if scores.len() != count {
            let detail = format!(
                "expected a number for each of {count} documents, found {}",
                scores.len()
            );
            return Err(Error::run_folder(path, detail));
        }
        match scores.iter().find(|score| !(0.0..=1.0).contains(*score)) {
            Some(bad) => Err(Error::run_folder(
                path,
                format!("expected numbers from 0 to 1, found {bad}"),
            )),
            None => Ok(scores),
        }
    }
}

fn one() -> f32 {
    1.0
}

/// What reading a source came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SourceReport {
    /// Documents used, before cutting.
    pub documents: usize,
    /// Documents left out since nothing in them is scored; pairs left out since an answer is empty,
    /// both are the same, or they do not fit into a micro-batch.
    pub skipped: usize,
    /// Documents longer than a micro-batch, used in pieces.
    pub cut: usize,
    /// Tokens.
    pub tokens: usize,
    /// Tokens to be predicted.
    pub scored: usize,
    /// SHA-256 of the file as stored.
    pub sha256: String,
}

/// A tokenised source.
#[derive(Debug, Clone)]
pub struct Source {
    /// Documents to learn from.
    pub training: Vec<Document>,
    /// Documents kept out.
    pub validation: Vec<Document>,
    /// Counts.
    pub report: SourceReport,
    /// The order in which training documents are met; at random without it.
    pub curriculum: Option<(Curriculum, Unsolved)>,
}

/// What turns text and conversations into tokens.
#[derive(Debug, Clone, Copy)]
pub struct Encoder<'a> {
    /// Text to ids.
    pub tokenizer: &'a Tokenizer,
    /// Conversations to text.
    pub template: &'a ChatTemplate,
    /// Ends a text document.
    pub eos: u32,
    /// The longest document; longer ones are cut.
    pub max_tokens: usize,
}

impl Source {
    /// Reads and tokenises one file. `folder` is where relative paths start.
    ///
    /// # Errors
    /// [`Error::Data`] with the line of the first broken row, [`Error::EmptyData`] when there is no
    /// document or nothing is scored, and errors of the file or the template.
    pub fn read(
        options: &SourceOptions,
        folder: &Path,
        encoder: &Encoder<'_>,
        seed: u64,
    ) -> Result<Self> {
        if encoder.max_tokens < 2 {
            let detail = format!("expected at least 2, found {}", encoder.max_tokens);
            return Err(Error::option("micro_batch_tokens", detail));
        }
        if !(options.answer_weight.is_finite() && options.answer_weight > 0.0) {
            let detail = format!("expected a number above 0, found {}", options.answer_weight);
            return Err(Error::option("answer_weight", detail));
        }
        let path = folder.join(&options.path);
        let file = DataFile::read(&path)?;
        let mut documents = documents(&file, options, encoder)?;
        if let Some(curriculum) = &options.curriculum {
            let scores = curriculum.read(folder, documents.len())?;
            let pairs = documents.iter_mut().zip(scores);
            pairs.for_each(|(document, score)| document.difficulty = score);
        }
        let mut source = Self::split(documents, options, &path, encoder, seed)?;
        source.report.sha256 = file.sha256().to_string();
        Ok(source)
    }

    fn split(
        documents: Vec<Document>,
        options: &SourceOptions,
        path: &Path,
        encoder: &Encoder<'_>,
        seed: u64,
    ) -> Result<Self> {
        let found = documents.len();
        let used: Vec<Document> = documents.into_iter().filter(|d| d.scored() > 0).collect();
        let empty = |detail: &str| Error::EmptyData {
            path: path.to_path_buf(),
            detail: detail.to_string(),
        };
        if found == 0 {
            return Err(empty("there is no document in this file"));
        }
        if used.is_empty() {
            return Err(empty("nothing in this file is scored"));
        }
        if options.holdout >= used.len() {
            let detail = format!(
                "expected fewer than the {} documents, found {}",
                used.len(),
                options.holdout
            );
            return Err(Error::option("holdout", detail));
        }
        let report = SourceReport {
            documents: used.len(),
            skipped: found - used.len(),
            cut: used.iter().filter(|d| d.len() > encoder.max_tokens).count(),
            tokens: used.iter().map(Document::len).sum(),
            scored: used.iter().map(Document::scored).sum(),
            sha256: String::new(),
        };
        let kept_out = kept_out(used.len(), options.holdout, seed);
        let (mut training, mut validation) = (Vec::new(), Vec::new());
        for (i, document) in used.into_iter().enumerate() {
            let part = if kept_out.contains(&i) {
                &mut validation
            } else {
                &mut training
            };
            // A piece without anything scored teaches nothing.
            part.extend(
                document
                    .cut(encoder.max_tokens)
                    .into_iter()
                    .filter(|d| d.scored() > 0),
            );
        }
        Ok(Self {
            training,
            validation,
            report,
            curriculum: options.curriculum.as_ref().map(|c| (c.order, c.unsolved)),
        })
    }
}

/// All documents of a file in their order, those included in which nothing is scored.
pub(crate) fn documents(
    file: &DataFile,
    options: &SourceOptions,
    encoder: &Encoder<'_>,
) -> Result<Vec<Document>> {
    match options.format {
        Format::Text => text_documents(file, encoder),
        Format::Chat => chat::conversations(file, options, encoder),
        Format::Preference => chat::preferences(file, options, encoder),
    }
}

/// Which of `count` items are kept out for validation.
fn kept_out(count: usize, holdout: usize, seed: u64) -> BTreeSet<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    Rng::labelled(seed, "holdout").shuffle(&mut order);
    order.into_iter().take(holdout).collect()
}

/// Numbers the training tokens of all sources in order, document by document, and returns how many
/// there are. What a teacher says of them is kept in this order.
pub(crate) fn number(sources: &mut [Source]) -> u64 {
    let mut place = 0;
    for document in sources.iter_mut().flat_map(|source| &mut source.training) {
        document.place = place;
        place += document.len() as u64;
    }
    place
}

/// Every block of non-empty lines as beginning token, text, end token.
fn text_documents(file: &DataFile, encoder: &Encoder<'_>) -> Result<Vec<Document>> {
    let blocks = file.blocks();
    let documents = blocks.map(|text| {
        let mut tokens = encoder
            .tokenizer
            .encode(text, SpecialTokens::Literal, Bos::Add)?;
        tokens.push(encoder.eos);
        let weights = vec![1.0; tokens.len()];
        Document::new(tokens, weights)
    });
    documents.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_of_a_cut_document_is_predicted_exactly_once() {
        for (len, max) in [(10, 4), (10, 3), (7, 7), (8, 7), (9, 2)] {
            let tokens: Vec<u32> = (0..len).collect();
            let whole = Document::new(tokens.clone(), vec![1.0; tokens.len()]).unwrap();
            let pieces = whole.cut(max);
            let targets = pieces
                .iter()
                .flat_map(|p| (0..p.len()).map(|i| p.target(i)));
            let predicted: Vec<u32> = targets
                .filter(|t| *t != Target::UNSCORED)
                .map(|t| t.id)
                .collect();
            assert_eq!(predicted, tokens[1..], "{len} tokens in pieces of {max}");
            assert!(pieces.iter().all(|p| p.len() <= max && p.len() > 1));
        }
    }

    #[test]
    fn the_first_token_is_never_scored() {
        let document = Document::new(vec![1, 5], vec![1.0, 0.0]).unwrap();
        assert_eq!(document.scored(), 0);
        assert!(Document::new(vec![1], vec![]).is_err());
    }
}
