//! [`RetrievalRun`]: from a configuration file to a retrieval model's folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use lfm2_colbert::{ColbertNetwork, DenseSpec, RetrievalSettings, TextReader};
use lfm2_generate::Cancel;
use lfm2_hub::{TensorSource, Tokenizer};
use lfm2_nn::{Bias, Weights};
use lfm2_text::{TensorRole, TextConfig};
use serde_json::{Value, json};

use super::disguise::Words;
use super::export::{self, DENSE, Facts};
use super::objective::{PassagePool, RetrievalObjective};
use super::options::RetrievalOptions;
use super::passages::{Passage, passages};
use super::tokenizer;
use crate::bpe;
use crate::data::{DataFile, SourceReport};
use crate::file::write_text;
use crate::prepare::sha256;
use crate::progress::TrainProgress;
use crate::rng::Rng;
use crate::run::Resume;
use crate::run_loop::{RunFolder, RunLoop};
use crate::variables::Parameters;
use crate::{Error, Result};

/// A run that trains a retrieval model: its data, its model and its folder, as
/// [`Trainer`](crate::Trainer) is for language models.
#[derive(Debug)]
pub struct RetrievalRun {
    options: RetrievalOptions,
    run: RunLoop<RetrievalObjective>,
    facts: Facts,
}

impl RetrievalRun {
    /// Prepares a run in the folder `run`, or continues the one that is there. Relative paths of
    /// `options` start at `base`; `threads` 0 means one per core and does not change any result.
    ///
    /// # Errors
    /// Of options and data; [`Error::RunMismatch`] when the folder's run had other settings or data
    /// and `resume` does not force it; [`Error::RunFolder`] when it has a state and `resume` forbids
    /// that.
    pub fn open(
        options: RetrievalOptions,
        base: &Path,
        run: &Path,
        resume: Resume,
        threads: usize,
    ) -> Result<Self> {
        options.validate()?;
        let folder = RunFolder::open(run, resume)?;
        let texts = Texts::read(&options, base)?;
        let settings_file = Path::new("base.settings");
        let settings = RetrievalSettings::from_json(&options.base.settings, settings_file)?;
        let prefixes = [&settings.query_prefix, &settings.document_prefix];
        let prefixes = prefixes.into_iter().map(String::as_str);
        let prefixes: Vec<&str> = prefixes.filter(|prefix| !prefix.is_empty()).collect();
        let counts = tokenizer::count(texts.training.iter().flat_map(DataFile::blocks));
        let tokenizer = tokenizer::train(&counts, options.base.vocab_size, &prefixes)?;
        let identity = texts.identity(&options, &tokenizer)?;
        let (config, config_json) = trunk_config(&options, &tokenizer)?;
        let config_text = format!("{config_json:#}\n");
        write_text(&run.join("config.json"), &config_text)?;

        let (parameters, network) = fresh_network(&options, &config)?;
        let pools = texts.pools(&options);
        let reports = reports(&texts.training, &pools);
        let shares = options.data.iter().map(|source| source.share);
        let sources = pools.into_iter().zip(shares).collect();
        let reading = settings.with_document_length(options.document_tokens);
        let objective = RetrievalObjective::new(
            network,
            TextReader::new(tokenizer.clone(), reading, Some(bpe::EOS))?,
            PassagePool::new(sources, Words::new(&counts))?,
            options.clone(),
            texts.validation(&options),
        )?;
        let pace = options.pace();
        Ok(Self {
            run: RunLoop::open(&folder, identity, pace, parameters, objective, threads)?,
            facts: Facts {
                config,
                config_json,
                tokenizer,
                reports,
            },
            options,
        })
    }

    /// The last finished step.
    pub fn step(&self) -> u64 {
        self.run.step()
    }

    /// The trainable parameters.
    pub fn parameters(&self) -> &Parameters {
        self.run.parameters()
    }

    /// Trains until the last step, saving and validating as the options say.
    ///
    /// # Errors
    /// [`Error::NonFinite`] and [`Error::Cancelled`], both after saving the last good state; errors
    /// of files and tensors.
    pub fn train(&mut self, progress: &dyn TrainProgress, cancel: &Cancel) -> Result<()> {
        let (reports, size) = (&self.facts.reports, self.facts.config.vocab_size);
        self.run.train(reports, size, progress, cancel)
    }

    /// Writes a complete model folder, in the layout of published retrieval models.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn export(&self, folder: &Path) -> Result<()> {
        let (parameters, metrics) = (self.run.parameters(), self.run.metrics());
        export::export(folder, &self.options, &self.facts, parameters, metrics)
    }
}

/// The data files of a run.
struct Texts {
    training: Vec<DataFile>,
    measured: Vec<DataFile>,
}

impl Texts {
    fn read(options: &RetrievalOptions, base: &Path) -> Result<Self> {
        let read = |path: &PathBuf| DataFile::read(&base.join(path));
        let training = options.data.iter().map(|source| read(&source.path));
        Ok(Self {
            training: training.collect::<Result<_>>()?,
            measured: options.validation.iter().map(read).collect::<Result<_>>()?,
        })
    }

    /// What makes the run the run it is.
    fn identity(&self, options: &RetrievalOptions, tokenizer: &Tokenizer) -> Result<Value> {
        let paths = options.data.iter().map(|source| &source.path);
        let paths = paths.chain(&options.validation);
        let files = self.training.iter().chain(&self.measured);
        let hash = |(path, file): (&PathBuf, &DataFile)| {
            (path.display().to_string(), json!(file.sha256()))
        };
        let hashes: serde_json::Map<_, _> = paths.zip(files).map(hash).collect();
        Ok(json!({
            "options": options,
            "data_sha256": hashes,
            "tokenizer_sha256": sha256(&tokenizer.to_json()?),
        }))
    }

    /// The passages of each training text.
    fn pools(&self, options: &RetrievalOptions) -> Vec<Vec<Passage>> {
        let cut = |(i, file)| cut(file, options, &format!("passages {i}"));
        self.training.iter().enumerate().map(cut).collect()
    }

    /// The passages of each text that is kept out, by its name.
    fn validation(&self, options: &RetrievalOptions) -> Vec<(String, Vec<Passage>)> {
        let named = |(path, file): (&PathBuf, &DataFile)| {
            let name = path.file_name().unwrap_or(path.as_os_str());
            let name = name.to_string_lossy().into_owned();
            let passages = cut(file, options, &name);
            (name, passages)
        };
        options
            .validation
            .iter()
            .zip(&self.measured)
            .map(named)
            .collect()
    }
}

fn cut(file: &DataFile, options: &RetrievalOptions, label: &str) -> Vec<Passage> {
    let mut rng = Rng::labelled(options.seed, label);
    passages(file, options.passage_words, &mut rng)
}

/// The trunk's config with the facts of its tokenizer.
fn trunk_config(options: &RetrievalOptions, tokenizer: &Tokenizer) -> Result<(TextConfig, Value)> {
    let mut json = options.base.config.clone();
    let Some(keys) = json.as_object_mut() else {
        let detail = "expected an object, found something else";
        return Err(Error::option("base.config", detail));
    };
    for (key, value) in bpe::config_facts(tokenizer) {
        keys.insert(key.into(), value);
    }
    Ok((TextConfig::from_json(&json)?, json))
}

/// New weights and the network over them.
fn fresh_network(
    options: &RetrievalOptions,
    config: &TextConfig,
) -> Result<(Parameters, ColbertNetwork)> {
    let dense = [DenseSpec {
        prefix: format!("{DENSE}.linear"),
        input: config.hidden_size,
        output: options.base.dimensions,
        bias: Bias::Without,
    }];
    let specs = ColbertNetwork::tensors(config, &dense);
    let (layers, init) = (config.layers.len(), options.base.init);
    let parameters = Parameters::init(specs, layers, init, options.seed)?;
    let factor = options.base.embedding_std / init.std;
    for parameter in parameters.iter() {
        if parameter.role() == TensorRole::Embedding {
            parameter.set(&(parameter.tensor().detach() * factor)?)?;
        }
    }
    let source: Arc<dyn TensorSource> = Arc::new(parameters.clone());
    let weights = Weights::new(source, DType::F32, &Device::Cpu);
    let network = ColbertNetwork::load(config.clone(), &dense, &weights)?;
    Ok((parameters, network))
}

fn reports(files: &[DataFile], pools: &[Vec<Passage>]) -> Vec<SourceReport> {
    let report = |(file, passages): (&DataFile, &Vec<Passage>)| SourceReport {
        documents: passages.len(),
        sha256: file.sha256().to_string(),
        ..SourceReport::default()
    };
    files.iter().zip(pools).map(report).collect()
}
