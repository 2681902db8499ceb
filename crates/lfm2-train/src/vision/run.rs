//! [`VisionRun`]: from a configuration file to a vision-language model's folder.

use std::path::Path;
use std::sync::Arc;

use candle_core::DType;
use lfm2_generate::{Cancel, ChatTemplate};
use lfm2_hub::{Checkpoint, Limits, ModelSource, OpenOptions, TensorSource, Tokenizer};
use lfm2_text::LoadOptions;
use lfm2_vl::{ImageSettings, VlConfig, VlModel, VlOptions};
use serde_json::{Value, json};

use super::export;
use super::feed::{PictureFeed, PictureReader, Source, conversation};
use super::options::{PictureData, ShapeData, VisionBase, VisionOptions};
use super::rows::Rows;
use super::seen::SeenWords;
use super::start;
use crate::bpe;
use crate::file::write_text;
use crate::mixed::Mixed;
use crate::prepare::{TEXT_FILES, sha256, text_files};
use crate::progress::TrainProgress;
use crate::rng::Rng;
use crate::run::{Resume, identity};
use crate::run_loop::{RunFolder, RunLoop};
use crate::shapes::Scene;
use crate::variables::{Init, Parameters};
use crate::{Error, Result};

/// The tokens of pictures that are not cut into tiles.
const IMAGE_TOKENS: [&str; 3] = ["<image>", "<|image_start|>", "<|image_end|>"];

/// Pictures whose words the tokenizer is trained on.
const WORDS_OF: usize = 4000;

/// A chat template in the family's form, with pictures, and with the assistant's words marked.
const CHAT_TEMPLATE: &str = include_str!("../assets/vision_template.jinja");

/// What a model's folder says besides its weights.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) config: VlConfig,
    pub(super) config_json: Value,
    pub(super) settings: ImageSettings,
    pub(super) tokenizer: Tokenizer,
    /// Files of the folder by name: processor, tokenizer, template.
    pub(super) files: Vec<(String, String)>,
}

/// A run that trains a vision-language model: its pictures, its model and its folder, as
/// [`Trainer`](crate::Trainer) is for language models.
#[derive(Debug)]
pub struct VisionRun {
    options: VisionOptions,
    run: RunLoop<Mixed<VlModel, PictureFeed>>,
    facts: Facts,
}

impl VisionRun {
    /// Prepares a run in the folder `run`, or continues the one that is there. Relative paths of
    /// `options` start at `base`; `threads` 0 means one per core and does not change any result.
    ///
    /// # Errors
    /// Of options and base checkpoint; [`Error::RunMismatch`] when the folder's run had other settings
    /// and `resume` does not force it; [`Error::RunFolder`] when it has a state and `resume` forbids
    /// that.
    pub fn open(
        options: VisionOptions,
        base: &Path,
        run: &Path,
        resume: Resume,
        threads: usize,
    ) -> Result<Self> {
        options.validate()?;
        let folder = RunFolder::open(run, resume)?;
        let source = match &options.data {
            PictureData::Shapes(data) => Source::Shapes(data.clone()),
            PictureData::Rows(data) => {
                let holdout = options.validation_pictures;
                Source::Rows(Rows::read(data, base, holdout, options.seed)?)
            }
        };
        let (facts, template, parameters) = match &options.base {
            VisionBase::Fresh {
                config,
                processor,
                vocab_size,
                init,
            } => fresh(
                (config, processor),
                &source,
                (*vocab_size, *init),
                options.seed,
            )?,
            VisionBase::Checkpoint(path) => from_checkpoint(&base.join(path))?,
        };
        let hashes = match &source {
            Source::Shapes(_) => Vec::new(),
            Source::Rows(rows) => vec![rows.hash()],
        };
        let parameters = parameters.with_rates(|name| options.rates.of(name));
        let identity = identity(&options, &hashes, &sha256(&facts.tokenizer.to_json()?))?;
        let config_text = format!("{:#}\n", facts.config_json);
        write_text(&run.join("config.json"), &config_text)?;

        let model = learnt(&facts, &parameters)?;
        let reader = PictureReader {
            processor: match &options.views {
                Value::Null => model.processor().clone(),
                views => model.processor().overridden(views)?,
            },
            tokens: model.image_tokens().clone(),
            tokenizer: facts.tokenizer.clone(),
            template: ChatTemplate::new(&template)?,
            seen: match options.hints > 0.0 {
                true => Some(SeenWords::new(&facts.tokenizer)?),
                false => None,
            },
        };
        let feed = PictureFeed::new(&options, source, reader);
        let validation = feed.validation(options.validation_pictures)?;
        let objective = Mixed::new(model, feed, validation).with_hints(options.hints);
        let pace = options.pace();
        Ok(Self {
            run: RunLoop::open(&folder, identity, pace, parameters, objective, threads)?,
            facts,
            options,
        })
    }

    /// What is optimised.
    pub fn objective(&self) -> &Mixed<VlModel, PictureFeed> {
        self.run.objective()
    }

    /// The model in its present state.
    pub fn model(&self) -> &VlModel {
        self.objective().front()
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
        let vocab_size = self.facts.config.text.vocab_size;
        self.run.train(&[], vocab_size, progress, cancel)
    }

    /// Writes a complete model folder, in the layout of published vision-language models.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn export(&self, folder: &Path) -> Result<()> {
        let (parameters, metrics) = (self.run.parameters(), self.run.metrics());
        export::export(folder, &self.options, &self.facts, parameters, metrics)
    }
}

/// The model over the parameters. It keeps no views: what it makes of them changes with every step.
fn learnt(facts: &Facts, parameters: &Parameters) -> Result<VlModel> {
    let source: Arc<dyn TensorSource> = Arc::new(parameters.clone());
    let load = LoadOptions::default().with_dtype(DType::F32);
    let options = VlOptions::from(load).with_view_cache_bytes(0);
    let parts = (
        facts.config.clone(),
        facts.settings.clone(),
        facts.tokenizer.clone(),
    );
    Ok(VlModel::from_tensors(parts, source, &options)?)
}

type Start = (Facts, String, Parameters);

fn fresh(
    (config, processor): (&Value, &Value),
    source: &Source,
    (vocab_size, init): (usize, Init),
    seed: u64,
) -> Result<Start> {
    let tokenizer = tokenizer(&words(source, seed), vocab_size)?;
    let config_json = filled_in(config, &tokenizer)?;
    let processor_json = json!({
        "image_processor": processor,
        "processor_class": "Lfm2VlProcessor",
    });
    let config = VlConfig::from_json(&config_json, &Limits::default())?;
    let settings = ImageSettings::from_files(&config_json, None, Some(&processor_json))?;
    let layers = config.text.layers.len();
    let parameters = Parameters::init(config.tensors(), layers, init, seed)?;
    start::begin(&parameters, &config)?;
    let mut files = bpe::tokenizer_files(&tokenizer, CHAT_TEMPLATE)?;
    files.push((
        "processor_config.json".to_string(),
        format!("{processor_json:#}\n"),
    ));
    let facts = Facts {
        config,
        config_json,
        settings,
        tokenizer,
        files,
    };
    Ok((facts, CHAT_TEMPLATE.to_string(), parameters))
}

/// The config with the facts of its tokenizer.
fn filled_in(config: &Value, tokenizer: &Tokenizer) -> Result<Value> {
    const KEY: &str = "base.fresh.config";
    let mut json = config.clone();
    let image = tokenizer.id_of(IMAGE_TOKENS[0]);
    let Some(keys) = json.as_object_mut() else {
        return Err(Error::option(
            KEY,
            "expected an object, found something else",
        ));
    };
    keys.insert("image_token_id".into(), json!(image));
    let text = keys.get_mut("text_config").and_then(Value::as_object_mut);
    let Some(text) = text else {
        let detail = "expected an object, found something else";
        return Err(Error::option(format!("{KEY}.text_config"), detail));
    };
    for (key, value) in bpe::config_facts(tokenizer) {
        text.insert(key.into(), value);
    }
    Ok(json)
}

/// What is said about pictures, and by whom.
fn words(source: &Source, seed: u64) -> Vec<String> {
    let names = || ["user\n", "assistant\n"].map(String::from);
    let mut texts = Vec::new();
    match source {
        Source::Rows(rows) => {
            for text in rows.texts() {
                texts.push(text);
                texts.extend(names());
            }
        }
        Source::Shapes(_) => {
            // Of any shapes, whatever this run asks: another may go on from it and ask more.
            let data = ShapeData::default();
            let mut rng = Rng::labelled(seed, "words");
            for _ in 0..WORDS_OF {
                let scene = Scene::random(&data.scenes, &mut rng);
                for question in conversation(&scene, &data.conversations, &mut rng) {
                    texts.extend([question.text, question.answer]);
                    texts.extend(names());
                }
            }
        }
    }
    texts
}

/// A tokenizer for such texts, with the tokens of pictures.
fn tokenizer(texts: &[String], vocab_size: usize) -> Result<Tokenizer> {
    let words = vocab_size.saturating_sub(IMAGE_TOKENS.len());
    let trained = bpe::train_tokenizer(texts.iter().map(String::as_str), words)?;
    bpe::with_added(&trained, &IMAGE_TOKENS, bpe::Added::Special)
}

fn from_checkpoint(path: &Path) -> Result<Start> {
    let source = ModelSource::Dir(path.to_path_buf());
    let checkpoint = Checkpoint::open(&source, &OpenOptions::default())?;
    let info = checkpoint.info();
    let config_json = checkpoint.config().clone();
    let config = VlConfig::from_json(&config_json, info.limits())?;
    let settings = ImageSettings::from_files(
        &config_json,
        info.json("preprocessor_config.json")?.as_ref(),
        info.json("processor_config.json")?.as_ref(),
    )?;
    let parameters = Parameters::from_source(config.tensors(), &*checkpoint.tensors())?;
    let Some(template) = checkpoint.chat_template()? else {
        let detail = "the checkpoint has no chat template";
        return Err(Error::run_folder(path, detail));
    };
    let mut files = text_files(path, &TEXT_FILES)?;
    let processors = ["preprocessor_config.json", "processor_config.json"];
    files.extend(text_files(path, &processors)?);
    files.push(("chat_template.jinja".to_string(), template.clone()));
    let facts = Facts {
        tokenizer: checkpoint.tokenizer()?,
        config,
        config_json,
        settings,
        files,
    };
    Ok((facts, template, parameters))
}
