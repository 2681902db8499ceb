//! Measuring how well a model predicts a text.

use candle_core::{DType, Device};
use lfm2_generate::Cancel;
use lfm2_hub::{Bos, SpecialTokens, Tokenizer};
use lfm2_nn::{CacheSpec, Decoder, Input, Want};
use serde::{Deserialize, Serialize};

use super::RowLog;
use crate::data::{DataFile, Document, MicroBatch, pack};
use crate::{Error, Result, loss};

/// How to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PerplexityOptions {
    /// Tokens a text is read in at once; longer texts are cut into pieces that know nothing of each other
    /// but one token.
    pub context: usize,
    /// Tokens of several texts that are read together.
    pub batch_tokens: usize,
}

impl Default for PerplexityOptions {
    fn default() -> Self {
        Self {
            context: 2048,
            batch_tokens: 2048,
        }
    }
}

/// How well a text was predicted.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PerplexityReport {
    /// `exp` of the mean loss.
    pub perplexity: f64,
    /// Mean loss per predicted token, in nats.
    pub loss: f64,
    /// Loss per byte of text, in bits: what models with other vocabularies can be compared by.
    pub bits_per_byte: f64,
    /// Predicted tokens: all but the first of every text.
    pub tokens: usize,
    /// Bytes of text.
    pub bytes: usize,
    /// Texts.
    pub documents: usize,
}

/// What was predicted in one pass.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BatchLoss {
    /// The sum of the losses, in nats.
    pub sum: f64,
    /// Predicted tokens.
    pub tokens: usize,
}

/// Reads the blocks of `data` between empty lines, each behind its own beginning token, and measures how
/// likely the model finds their tokens, going on behind the passes in `log`. `progress` is told how many
/// predicted tokens are done, of how many, and their mean loss.
///
/// # Errors
/// [`Error::InvalidOption`] for a context below 2, [`Error::EmptyData`] when there is nothing to predict,
/// [`Error::Cancelled`], and errors of tokenizer and model.
pub fn perplexity(
    model: &dyn Decoder,
    tokenizer: &Tokenizer,
    data: &DataFile,
    options: PerplexityOptions,
    (log, cancel): (&mut RowLog<BatchLoss>, &Cancel),
    mut progress: impl FnMut(usize, usize, f64),
) -> Result<PerplexityReport> {
    if options.context < 2 || options.batch_tokens < options.context {
        let detail = format!(
            "expected at least 2 tokens and a batch of at least as many, found {} and {}",
            options.context, options.batch_tokens
        );
        return Err(Error::option("context", detail));
    }
    let mut documents = Vec::new();
    let (mut texts, mut bytes) = (0, 0);
    for text in data.blocks() {
        texts += 1;
        bytes += text.len();
        let tokens = tokenizer.encode(text, SpecialTokens::Literal, Bos::Add)?;
        let weights = vec![1.0; tokens.len()];
        documents.extend(Document::new(tokens, weights)?.cut(options.context));
    }
    documents.retain(|document| document.scored() > 0);
    let total: usize = documents.iter().map(Document::scored).sum();
    if total == 0 {
        return Err(Error::EmptyData {
            path: data.path().to_path_buf(),
            detail: "there is no token to predict in this file".into(),
        });
    }
    let batches = pack(&documents, options.batch_tokens);
    for batch in batches.iter().skip(log.rows().len()) {
        if cancel.is_cancelled() {
            let step = log.rows().len() as u64;
            return Err(Error::Cancelled { step });
        }
        log.push(BatchLoss {
            sum: batch_loss(model, batch)?,
            tokens: batch.scored(),
        })?;
        let (sum, done) = added(log.rows());
        progress(done, total, sum / done as f64);
    }
    let (sum, _) = added(log.rows());
    let loss = sum / total as f64;
    Ok(PerplexityReport {
        perplexity: loss::perplexity(loss),
        loss,
        bits_per_byte: sum / std::f64::consts::LN_2 / bytes as f64,
        tokens: total,
        bytes,
        documents: texts,
    })
}

/// The loss and the tokens of all passes.
fn added(passes: &[BatchLoss]) -> (f64, usize) {
    let add = |(sum, tokens), pass: &BatchLoss| (sum + pass.sum, tokens + pass.tokens);
    passes.iter().fold((0.0, 0), add)
}

/// The summed loss of a batch.
fn batch_loss(model: &dyn Decoder, batch: &MicroBatch) -> Result<f64> {
    let step = batch.step();
    let longest = step.segments().iter().map(|s| s.len).max().unwrap_or(0);
    let spec = CacheSpec::rows(step.segments().len()).with_capacity(longest);
    let mut cache = model.new_cache(spec);
    let ids = batch.ids(model.device())?;
    let logits = model.forward(Input::Ids(&ids), &step, &mut cache, Want::AllLogits)?;
    let logits = logits.to_device(&Device::Cpu)?;
    let loss = loss::next_token(&logits, batch.targets(), 1.0)?;
    Ok(f64::from(loss.to_dtype(DType::F32)?.to_scalar::<f32>()?))
}
