//! How hard the documents of a source are for reference models.

use std::path::{Path, PathBuf};

use lfm2_generate::Cancel;
use lfm2_hub::{Checkpoint, ModelSource, OpenOptions};
use lfm2_nn::{Cache, Decoder, Input, Want};
use lfm2_text::{LoadOptions, TextModel};

use crate::curriculum::difficulty_by_loss;
use crate::data::{DataFile, Document, Encoder, MicroBatch, documents};
use crate::options::TrainOptions;
use crate::prepare::{prepare_text, sha256};
use crate::workers::Workers;
use crate::{Error, Result, bpe, loss};

/// The difficulty of every document of source `source` of a run, from 0 to 1: its place among all by
/// the mean loss per scored token of the checkpoints `models`. Documents in which nothing is scored
/// count as easy; they are not trained on.
///
/// Relative paths of `options` start at `base`; `progress` is told how many documents of how many are
/// done.
///
/// # Errors
/// [`Error::InvalidOption`] when there is no such source or model, or a model has another tokenizer;
/// [`Error::Cancelled`]; errors of data, models and files.
pub fn score(
    options: &TrainOptions,
    base: &Path,
    source: usize,
    models: &[PathBuf],
    (threads, cancel): (usize, &Cancel),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<f64>> {
    options.validate()?;
    let Some(source) = options.data.get(source) else {
        let detail = format!(
            "expected one of {} sources, found {source}",
            options.data.len()
        );
        return Err(Error::option("source", detail));
    };
    let prepared = prepare_text(options, base)?;
    let encoder = Encoder {
        tokenizer: &prepared.tokenizer,
        template: &prepared.template,
        eos: *prepared.config.eos_token_ids.first().unwrap_or(&bpe::EOS),
        max_tokens: options.micro_batch_tokens,
    };
    let file = DataFile::read(&base.join(&source.path))?;
    let documents = documents(&file, source, &encoder)?;
    let tokenizer = sha256(&prepared.tokenizer.to_json()?);
    let workers = Workers::new(threads)?;
    let of = (documents.len() * models.len()) as u64;
    let mut done = 0;
    let mut losses = Vec::new();
    for path in models {
        let checkpoint = Checkpoint::open(&ModelSource::from_path(path), &OpenOptions::default())?;
        if sha256(&checkpoint.tokenizer()?.to_json()?) != tokenizer {
            let detail = format!("{}: another tokenizer than the run's", path.display());
            return Err(Error::option("models", detail));
        }
        let model = TextModel::from_checkpoint(&checkpoint, &LoadOptions::default())?;
        let mut of_model = Vec::with_capacity(documents.len());
        for group in documents.chunks(16 * workers.count()) {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled { step: done });
            }
            let work = |document: &Document| mean_loss(&model, document, encoder.max_tokens);
            workers.for_each_in_order(group, work, |loss| of_model.push(loss))?;
            done += group.len() as u64;
            progress(done, of);
        }
        losses.push(of_model);
    }
    difficulty_by_loss(&losses)
}

/// The mean loss per scored token; 0 where nothing is scored. A longer document is read in pieces.
fn mean_loss(model: &TextModel, document: &Document, max_tokens: usize) -> Result<f64> {
    let (mut sum, mut weight) = (0.0, 0.0);
    for piece in document.clone().cut(max_tokens) {
        if piece.scored() == 0 {
            continue;
        }
        let mut batch = MicroBatch::default();
        batch.push(&piece);
        let ids = batch.ids(model.device())?;
        let mut cache = Cache::stateless(1);
        let logits = model.forward(Input::Ids(&ids), &batch.step(), &mut cache, Want::AllLogits)?;
        let loss = loss::next_token(&logits.detach(), batch.targets(), 1.0)?;
        sum += f64::from(loss.to_scalar::<f32>()?);
        weight += batch.weight();
    }
    Ok(if weight > 0.0 { sum / weight } else { 0.0 })
}
