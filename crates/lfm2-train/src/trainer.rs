//! [`Trainer`]: a run of a text model, from its options to its checkpoint.

use std::path::Path;

use lfm2_generate::Cancel;
use lfm2_hub::{Checkpoint, ModelSource, OpenOptions};
use lfm2_nn::{Cache, Decoder, Input, Want};
use lfm2_text::{LoadOptions, TextModel};

use crate::data::{
    Batches, Document, MicroBatch, Pair, PairSource, Share, Source, SourceReport, pack,
};
use crate::file::write_text;
use crate::language::{Language, LanguageBatch, Stream, Teaching};
use crate::objective::ValidationSet;
use crate::optim::Gradients;
use crate::options::{Activations, Method, TrainOptions};
use crate::pairs::{PairBatches, pack_pairs, references};
use crate::prepare::{Data, Prepared, prepare, sha256};
use crate::progress::TrainProgress;
use crate::run::{Resume, identity};
use crate::run_loop::{RunFolder, RunLoop};
use crate::teacher::{TeachOptions, TeacherIdentity, TeacherStore, write_store};
use crate::variables::Parameters;
use crate::workers::Workers;
use crate::{Error, Result, export, loss};

/// A training run: its model, its data and its folder.
///
/// The folder holds `run.json` (all settings and the data's hashes), `config.json` (the model),
/// `metrics.jsonl` (one line per step and validation), `loss.svg`, `report.html` and the saved state.
#[derive(Debug)]
pub struct Trainer {
    options: TrainOptions,
    prepared: Prepared,
    reports: Vec<SourceReport>,
    run: RunLoop<Language>,
}

impl Trainer {
    /// Prepares a run in the folder `run`, or continues the one that is there. Relative paths of
    /// `options` start at `base`; `threads` 0 means one per core and does not change any result.
    ///
    /// # Errors
    /// Of options, data and base checkpoint; [`Error::RunMismatch`] when the folder's run had other
    /// settings or data and `resume` does not force it; [`Error::RunFolder`] when it has a state
    /// and `resume` forbids that, or a teacher's output belongs to something else.
    pub fn open(
        options: TrainOptions,
        base: &Path,
        run: &Path,
        resume: Resume,
        threads: usize,
    ) -> Result<Self> {
        options.validate()?;
        let folder = RunFolder::open(run, resume)?;
        let mut prepared = prepare(&options, base)?;
        let reports = prepared.data.reports();
        let tokenizer = sha256(&prepared.tokenizer.to_json()?);
        let identity = identity(&options, &hashes(&options, &reports), &tokenizer)?;
        folder.check(&identity)?;
        let config = format!("{:#}\n", prepared.config_json);
        write_text(&run.join("config.json"), &config)?;

        let data = std::mem::replace(&mut prepared.data, Data::Documents(Vec::new()));
        let (stream, validation) = match data {
            Data::Documents(sources) => {
                let store = teaching(&options, base, &sources, &tokenizer)?;
                documents(&options, sources, store)?
            }
            Data::Pairs(sources) => {
                // Named after everything that makes the run, so that a run that was forced on other
                // data does not compare with the answers of these.
                let key = sha256(&identity.to_string());
                let file = format!("reference-{}.safetensors", key.get(..16).unwrap_or(&key));
                pairs(&options, &prepared, sources, &run.join(file), threads)?
            }
        };
        let objective = Language::new(
            prepared.config.clone(),
            prepared.frozen.clone(),
            &prepared.parameters,
            stream,
            validation,
            (options.balance, options.activations),
        )?;
        let parameters = prepared.parameters.clone();
        let run = RunLoop::open(
            &folder,
            identity,
            options.pace(),
            parameters,
            objective,
            threads,
        )?;
        Ok(Self {
            options,
            prepared,
            reports,
            run,
        })
    }

    /// The model in its present state.
    pub fn model(&self) -> &TextModel {
        self.run.objective().model()
    }

    /// The trainable parameters.
    pub fn parameters(&self) -> &Parameters {
        self.run.parameters()
    }

    /// The last finished step.
    pub fn step(&self) -> u64 {
        self.run.step()
    }

    /// Trains until the last step, saving and validating as the options say.
    ///
    /// # Errors
    /// [`Error::NonFinite`] and [`Error::Cancelled`], both after saving the last good state; errors
    /// of files and tensors.
    pub fn train(&mut self, progress: &dyn TrainProgress, cancel: &Cancel) -> Result<()> {
        let vocab_size = self.prepared.config.vocab_size;
        self.run.train(&self.reports, vocab_size, progress, cancel)
    }

    /// Writes a complete checkpoint folder: config, weights, tokenizer, template and model card, and
    /// adapters in the format of PEFT where only those were trained.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn export(&self, folder: &Path) -> Result<()> {
        export::export(
            folder,
            &self.options,
            &self.prepared,
            self.run.parameters(),
            &self.reports,
            self.run.metrics(),
        )
    }
}

/// The hash of every data file, by its name in the options.
fn hashes(options: &TrainOptions, reports: &[SourceReport]) -> Vec<(String, String)> {
    let names = options.data.iter().map(|s| s.path.display().to_string());
    names
        .zip(reports.iter().map(|r| r.sha256.clone()))
        .collect()
}

/// What a teacher's output for these documents belongs to.
fn teacher_identity(
    options: &TrainOptions,
    sources: &[Source],
    tokenizer: &str,
) -> TeacherIdentity {
    let reports: Vec<SourceReport> = sources.iter().map(|s| s.report.clone()).collect();
    let documents = sources.iter().flat_map(|s| &s.training);
    TeacherIdentity {
        tokenizer_sha256: tokenizer.to_string(),
        data_sha256: hashes(options, &reports),
        max_tokens: options.micro_batch_tokens,
        seed: options.seed,
        tokens: documents.map(|d| d.len() as u64).sum(),
    }
}

fn teaching(
    options: &TrainOptions,
    base: &Path,
    sources: &[Source],
    tokenizer: &str,
) -> Result<Option<Teaching>> {
    let Method::Distill {
        teacher,
        share,
        loss,
    } = &options.objective
    else {
        return Ok(None);
    };
    let identity = teacher_identity(options, sources, tokenizer);
    Ok(Some(Teaching {
        store: TeacherStore::open(&base.join(teacher), &identity)?,
        share: *share,
        loss: *loss,
    }))
}

type Validation = Vec<ValidationSet<LanguageBatch>>;

fn source_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// The stream of documents, and those kept out of every source, packed.
fn documents(
    options: &TrainOptions,
    mut sources: Vec<Source>,
    teaching: Option<Teaching>,
) -> Result<(Stream, Validation)> {
    let mut validation = Validation::new();
    for (source, read) in options.data.iter().zip(&mut sources) {
        let kept_out = std::mem::take(&mut read.validation);
        let batches = pack(&kept_out, options.micro_batch_tokens);
        if !batches.is_empty() {
            let batches = batches.into_iter();
            let batches = batches.map(|batch| LanguageBatch::Documents(batch, None));
            validation.push((source_name(&source.path), batches.collect()));
        }
    }
    let shares = options.data.iter().map(|source| source.share);
    let batches = Batches::new(
        sources.into_iter().zip(shares).collect(),
        options.micro_batch_tokens,
        options.micro_batches,
        options.steps,
        options.seed,
    )?;
    Ok((Stream::Documents(batches, teaching), validation))
}

/// The stream of pairs, with the log-probabilities of the model before the run.
fn pairs(
    options: &TrainOptions,
    prepared: &Prepared,
    sources: Vec<PairSource>,
    reference: &Path,
    threads: usize,
) -> Result<(Stream, Validation)> {
    let Method::Preference { loss } = options.objective else {
        return Err(Error::option(
            "objective.kind",
            "expected preference for pairs",
        ));
    };
    if options.data.iter().any(|s| s.share != Share::default()) {
        let detail = "expected none for pairs, which are all drawn alike";
        return Err(Error::option("share", detail));
    }
    let mut all: Vec<Pair> = Vec::new();
    let mut kept_out: Vec<(String, usize)> = Vec::new();
    let mut training = Vec::new();
    for (source, read) in options.data.iter().zip(sources) {
        kept_out.push((source_name(&source.path), read.validation.len()));
        all.extend(read.validation);
        training.extend(read.training);
    }
    all.extend(training);
    let before = Language::new(
        prepared.config.clone(),
        prepared.frozen.clone(),
        &prepared.parameters,
        Stream::Pairs(PairBatches::new(Vec::new(), Vec::new(), loss, (0, 0), 0)),
        Vec::new(),
        (None, Activations::Keep),
    )?;
    let max_tokens = options.micro_batch_tokens;
    let workers = Workers::new(threads)?;
    let found = references(
        reference,
        before.model(),
        &all,
        (loss, max_tokens),
        &workers,
    )?;
    let mut validation = Validation::new();
    let mut rest = (all.as_slice(), found.as_slice());
    for (name, count) in kept_out {
        let (these, after) = rest.0.split_at(count);
        let (references, left) = rest.1.split_at(count);
        rest = (after, left);
        let batches = pack_pairs(these, references, max_tokens);
        if !batches.is_empty() {
            let batches = batches.into_iter().map(LanguageBatch::Pairs).collect();
            validation.push((name, batches));
        }
    }
    let batches = PairBatches::new(
        rest.0.to_vec(),
        rest.1.to_vec(),
        loss,
        (max_tokens, options.micro_batches),
        options.seed,
    );
    Ok((Stream::Pairs(batches), validation))
}

/// Asks a teacher about the training documents of a run and keeps its answers in the folder `out`, for
/// [`Method::Distill`]. The tokenizer and the data are those of `options`; its objective does not
/// matter. `progress` is told how many tokens of how many are done.
///
/// # Errors
/// [`Error::InvalidOption`] when the teacher's tokenizer is another one; [`Error::RunFolder`] when the
/// folder holds a teacher's output already; [`Error::Cancelled`]; errors of data, model and files.
pub fn teach(
    options: &TrainOptions,
    base: &Path,
    (teacher, out): (&Path, &Path),
    settings: &TeachOptions,
    (threads, cancel): (usize, &Cancel),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let options = TrainOptions {
        objective: Method::NextToken,
        ..options.clone()
    };
    options.validate()?;
    let prepared = prepare(&options, base)?;
    let Data::Documents(sources) = &prepared.data else {
        return Err(Error::option("data", "expected documents, found pairs"));
    };
    let tokenizer = sha256(&prepared.tokenizer.to_json()?);
    let checkpoint = Checkpoint::open(&ModelSource::from_path(teacher), &OpenOptions::default())?;
    let found = sha256(&checkpoint.tokenizer()?.to_json()?);
    if found != tokenizer {
        let detail = format!("expected the run's tokenizer {tokenizer}, found {found}");
        return Err(Error::option("teacher", detail));
    }
    let model = TextModel::from_checkpoint(&checkpoint, &LoadOptions::default())?;
    let identity = teacher_identity(&options, sources, &tokenizer);
    let of = identity.tokens;
    let documents: Vec<&Document> = sources.iter().flat_map(|s| &s.training).collect();
    write_store(
        &model,
        &documents,
        identity,
        settings,
        (out, &Workers::new(threads)?),
        (&mut |done| progress(done, of), cancel),
    )
}

/// The loss of one micro-batch, its weighted sum over scored tokens divided by `divisor`.
///
/// # Errors
/// When the model fails, for example at an id outside its vocabulary.
pub fn batch_loss(
    model: &dyn Decoder,
    batch: &MicroBatch,
    divisor: f64,
) -> candle_core::Result<candle_core::Tensor> {
    let ids = batch.ids(model.device())?;
    let mut cache = Cache::stateless(batch.documents());
    let logits = model.forward(Input::Ids(&ids), &batch.step(), &mut cache, Want::AllLogits)?;
    loss::next_token(&logits, batch.targets(), divisor)
}

/// [`batch_loss`] and its gradient with respect to every parameter the model was built over; zero
/// for a parameter that took no part.
///
/// # Errors
/// As [`batch_loss`].
pub fn batch_gradients(
    model: &dyn Decoder,
    parameters: &Parameters,
    batch: &MicroBatch,
    divisor: f64,
) -> candle_core::Result<(f64, Gradients)> {
    let loss = batch_loss(model, batch, divisor)?;
    let gradients = Gradients::of(&loss.backward()?, parameters)?;
    Ok((f64::from(loss.to_scalar::<f32>()?), gradients))
}
