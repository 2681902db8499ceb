//! From options to everything a run needs before its first step.

use std::path::Path;

use lfm2_generate::ChatTemplate;
use lfm2_hub::{Checkpoint, ModelSource, OpenOptions, Tokenizer};
use lfm2_text::TextConfig;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::bpe::{self, CHAT_TEMPLATE};
use crate::data::{self, DataFile, Encoder, Format, JsonLine, PairSource, Source, SourceReport};
use crate::lora::LoraSource;
use crate::options::{Base, Method, TrainOptions};
use crate::variables::{Init, Parameters};
use crate::{Error, Result};

/// Model facts, text side and data of a run.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) config: TextConfig,
    pub(crate) config_json: Value,
    pub(crate) parameters: Parameters,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: ChatTemplate,
    /// The text files of the exported checkpoint, by name.
    pub(crate) text_files: Vec<(String, String)>,
    pub(crate) data: Data,
    /// What adapters are added to, if only those are trained.
    pub(crate) frozen: Option<LoraSource>,
}

/// What a run learns from.
#[derive(Debug)]
pub(crate) enum Data {
    Documents(Vec<Source>),
    Pairs(Vec<PairSource>),
}

impl Data {
    pub(crate) fn reports(&self) -> Vec<SourceReport> {
        match self {
            Self::Documents(sources) => sources.iter().map(|s| s.report.clone()).collect(),
            Self::Pairs(sources) => sources.iter().map(|s| s.report.clone()).collect(),
        }
    }
}

/// Reads data, makes or opens the tokenizer and the weights.
pub(crate) fn prepare(options: &TrainOptions, folder: &Path) -> Result<Prepared> {
    let base = prepare_text(options, folder)?;
    let encoder = Encoder {
        tokenizer: &base.tokenizer,
        template: &base.template,
        eos: *base.config.eos_token_ids.first().unwrap_or(&bpe::EOS),
        max_tokens: options.micro_batch_tokens,
    };
    let (sources, seed) = (options.data.iter(), options.seed);
    let data = match options.objective {
        Method::NextToken | Method::Distill { .. } => {
            let sources = sources.map(|source| Source::read(source, folder, &encoder, seed));
            let mut sources = sources.collect::<Result<Vec<_>>>()?;
            data::number(&mut sources);
            Data::Documents(sources)
        }
        Method::Preference { .. } => {
            let sources = sources.map(|source| PairSource::read(source, folder, &encoder, seed));
            Data::Pairs(sources.collect::<Result<_>>()?)
        }
    };
    Ok(Prepared { data, ..base })
}

/// Makes or opens the tokenizer and the weights, without documents.
pub(crate) fn prepare_text(options: &TrainOptions, folder: &Path) -> Result<Prepared> {
    match &options.base {
        Base::Fresh {
            config,
            vocab_size,
            init,
            chat_template,
        } => {
            let template = match chat_template {
                Some(file) => {
                    let path = folder.join(file);
                    std::fs::read_to_string(&path).map_err(|e| Error::io(path, e))?
                }
                None => CHAT_TEMPLATE.to_string(),
            };
            let tokenizer = bpe::train_tokenizer(
                texts(options, folder)?.iter().map(String::as_str),
                *vocab_size,
            )?;
            fresh(config, tokenizer, &template, *init, options.seed)
        }
        Base::Checkpoint(path) => from_checkpoint(options, &folder.join(path)),
    }
}

/// SHA-256 of a text, in hexadecimal.
pub(crate) fn sha256(text: &str) -> String {
    Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn fresh(
    config: &Value,
    tokenizer: Tokenizer,
    template: &str,
    init: Init,
    seed: u64,
) -> Result<Prepared> {
    let mut config_json = config.clone();
    let Some(keys) = config_json.as_object_mut() else {
        return Err(Error::option(
            "base.fresh.config",
            "expected an object, found something else",
        ));
    };
    for (key, value) in bpe::config_facts(&tokenizer) {
        keys.entry(key).or_insert(value);
    }
    let config = TextConfig::from_json(&config_json)?;
    if config.vocab_size < tokenizer.vocab_size() {
        let detail = format!(
            "expected at least the tokenizer's {}, found {}",
            tokenizer.vocab_size(),
            config.vocab_size
        );
        return Err(Error::option("base.fresh.config.vocab_size", detail));
    }
    let parameters = Parameters::init(config.tensors(), config.layers.len(), init, seed)?;
    let text_files = bpe::tokenizer_files(&tokenizer, template)?;
    let template = ChatTemplate::new(template)?;
    Ok(Prepared {
        config,
        config_json,
        parameters,
        tokenizer,
        template,
        text_files,
        data: Data::Documents(Vec::new()),
        frozen: None,
    })
}

fn from_checkpoint(options: &TrainOptions, path: &Path) -> Result<Prepared> {
    let checkpoint = Checkpoint::open(
        &ModelSource::Dir(path.to_path_buf()),
        &OpenOptions::default(),
    )?;
    let config_json = checkpoint.config().clone();
    let config = TextConfig::from_json(&config_json)?;
    let (specs, tensors) = (config.tensors(), checkpoint.tensors());
    let (parameters, frozen) = match &options.lora {
        None => (Parameters::from_source(specs, &*tensors)?, None),
        Some(lora) => (
            lora.init(&specs, options.seed)?,
            Some(LoraSource::frozen(&specs, &*tensors, lora)?),
        ),
    };
    let Some(template) = checkpoint.chat_template()? else {
        return Err(Error::run_folder(
            path,
            "the checkpoint has no chat template",
        ));
    };
    let tokenizer = checkpoint.tokenizer()?;
    let mut text_files = text_files(path, &TEXT_FILES)?;
    text_files.push(("chat_template.jinja".to_string(), template.clone()));
    let template = ChatTemplate::new(&template)?;
    Ok(Prepared {
        config,
        config_json,
        parameters,
        tokenizer,
        template,
        text_files,
        data: Data::Documents(Vec::new()),
        frozen,
    })
}

/// The files of the text side of a checkpoint, but its template.
pub(crate) const TEXT_FILES: [&str; 4] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
];

/// Those of the files `names` that are in a folder, with their contents.
pub(crate) fn text_files(folder: &Path, names: &[&str]) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for name in names {
        match std::fs::read_to_string(folder.join(name)) {
            Ok(text) => files.push(((*name).to_string(), text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(folder.join(name), e)),
        }
    }
    Ok(files)
}

/// All text of the data, to train a tokenizer on: documents, and every string of JSON rows.
fn texts(options: &TrainOptions, folder: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for source in &options.data {
        let file = DataFile::read(&folder.join(&source.path))?;
        match source.format {
            Format::Text => texts.extend(file.blocks().map(str::to_string)),
            Format::Chat | Format::Preference => {
                for JsonLine { row, .. } in file.json_lines::<Value>()? {
                    collect_strings(&row, &mut texts);
                }
            }
        }
    }
    Ok(texts)
}

fn collect_strings(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect_strings(item, into)),
        Value::Object(entries) => entries
            .values()
            .for_each(|entry| collect_strings(entry, into)),
        _ => {}
    }
}
