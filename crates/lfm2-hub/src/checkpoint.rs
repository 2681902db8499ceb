//! [`Checkpoint`]: a model's config, tensors, tokenizer and chat template behind one door.
//!
//! What the config means is up to the models; here it is only JSON.

mod side;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::fetch::{chosen_fetch, fetch_gguf, fetch_parts};
use crate::files::{Folder, read_capped};
use crate::gguf::GgufFile;
use crate::json::{Numbers, parse_json, read_json};
use crate::{
    Error, Limits, ModelSource, OpenOptions, Parts, Result, SafetensorsSource, TensorSource,
    Tokenizer,
};
use side::{FolderFiles, More, Remote, memory_json};

pub(crate) const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// The files of a checkpoint that are read whole, in the order in which they are fetched.
pub(crate) const SIDE_FILES: [&str; 5] = [
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    CHAT_TEMPLATE,
];

/// Everything of a checkpoint but its weights.
#[derive(Debug)]
pub struct CheckpointInfo {
    origin: String,
    config: Value,
    generation_config: Option<Value>,
    tokenizer_config: Option<Value>,
    text: TextFiles,
    limits: Limits,
}

/// Where tokenizer and template are; they are read when asked for.
#[derive(Debug)]
enum TextFiles {
    Folder(FolderFiles),
    Gguf(Arc<GgufFile>),
    Memory {
        tokenizer: Option<Cow<'static, [u8]>>,
        chat_template: Option<Cow<'static, str>>,
        more: More,
    },
}

/// An opened checkpoint. Weights are read tensor by tensor, when they are asked for.
///
/// ```no_run
/// use lfm2_hub::{Checkpoint, OpenOptions};
///
/// # fn main() -> lfm2_hub::Result<()> {
/// let checkpoint = Checkpoint::open(&"LiquidAI/LFM2-350M".parse()?, &OpenOptions::default())?;
/// println!("{} tensors in {}", checkpoint.tensors().names().len(), checkpoint.origin());
/// # Ok(())
/// # }
/// ```
pub struct Checkpoint {
    info: CheckpointInfo,
    tensors: Arc<dyn TensorSource>,
}

/// The contents of checkpoint files that are in memory already, such as compiled into a program.
#[derive(Debug, Clone, Default)]
pub struct MemoryFiles {
    /// `config.json`.
    pub config: Cow<'static, [u8]>,
    /// `model.safetensors`.
    pub weights: Cow<'static, [u8]>,
    /// `generation_config.json`.
    pub generation_config: Option<Cow<'static, [u8]>>,
    /// `tokenizer.json`.
    pub tokenizer: Option<Cow<'static, [u8]>>,
    /// The text of the chat template.
    pub chat_template: Option<Cow<'static, str>>,
    /// Everything else by its name: `tokenizer_config.json`, `modules.json`, `1_Dense/model.safetensors`.
    pub more: More,
}

impl Checkpoint {
    /// Opens the checkpoint at `source`; for a Hub source, downloads what is missing.
    ///
    /// # Errors
    /// [`Error::NotFound`] for something that is not there, [`Error::InvalidFile`],
    /// [`Error::Unsupported`] or [`Error::Limit`] for files that break their rules, [`Error::Io`]
    /// and [`Error::Network`].
    pub fn open(source: &ModelSource, options: &OpenOptions) -> Result<Self> {
        let info = CheckpointInfo::locate(source, options, Parts::All)?;
        let tensors: Arc<dyn TensorSource> = match &info.text {
            TextFiles::Gguf(file) => file.tensors(),
            TextFiles::Folder(files) => Arc::new(SafetensorsSource::open_folder(
                &files.folder,
                options.mapping,
                &options.limits,
            )?),
            TextFiles::Memory { .. } => {
                return Err(Error::InvalidInput(format!("{source} has no weights")));
            }
        };
        Ok(Self { info, tensors })
    }

    /// A checkpoint whose files are in memory; `name` stands for the folder in messages.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], without the network.
    pub fn from_memory(name: &str, files: MemoryFiles, limits: &Limits) -> Result<Self> {
        let parse = |file: &str, bytes: &[u8], numbers| {
            parse_json(
                &Path::new(name).join(file),
                bytes,
                numbers,
                limits.json_depth,
            )
        };
        let config = parse(CONFIG, &files.config, Numbers::Exact)?;
        let generation_config = files
            .generation_config
            .map(|bytes| parse(GENERATION_CONFIG, &bytes, Numbers::Exact))
            .transpose()?;
        let tensors = SafetensorsSource::from_bytes(name, files.weights, limits)?;
        let tokenizer_config =
            memory_json(name, &files.more, TOKENIZER_CONFIG, Numbers::Float, limits)?;
        let text = TextFiles::Memory {
            tokenizer: files.tokenizer,
            chat_template: files.chat_template,
            more: files.more,
        };
        let (origin, limits) = (name.to_owned(), limits.clone());
        let info = CheckpointInfo {
            origin,
            config,
            generation_config,
            tokenizer_config,
            text,
            limits,
        };
        Ok(Self {
            info,
            tensors: Arc::new(tensors),
        })
    }

    /// A checkpoint that is a GGUF file in memory; `name` stands for its path in messages.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], without the network.
    pub fn from_memory_gguf(
        name: &str,
        bytes: impl Into<Cow<'static, [u8]>>,
        limits: &Limits,
    ) -> Result<Self> {
        let file = GgufFile::from_bytes(name, bytes, limits)?;
        let tensors = file.tensors();
        let info = CheckpointInfo::from_gguf(name.to_owned(), file, limits);
        Ok(Self { info, tensors })
    }

    /// Everything but the weights.
    pub fn info(&self) -> &CheckpointInfo {
        &self.info
    }

    /// All tensors.
    pub fn tensors(&self) -> Arc<dyn TensorSource> {
        Arc::clone(&self.tensors)
    }

    /// The model config, as in `config.json`.
    pub fn config(&self) -> &Value {
        self.info.config()
    }

    /// The generation config, when the checkpoint has one.
    pub fn generation_config(&self) -> Option<&Value> {
        self.info.generation_config()
    }

    /// The tokenizer config, when the checkpoint has one.
    pub fn tokenizer_config(&self) -> Option<&Value> {
        self.info.tokenizer_config()
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// As [`CheckpointInfo::tokenizer`].
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        self.info.tokenizer()
    }

    /// The chat template, when the checkpoint has one.
    ///
    /// # Errors
    /// As [`CheckpointInfo::chat_template`].
    pub fn chat_template(&self) -> Result<Option<String>> {
        self.info.chat_template()
    }

    /// Where the checkpoint came from, for people.
    pub fn origin(&self) -> &str {
        self.info.origin()
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl CheckpointInfo {
    /// Opens a checkpoint without its weights, which need not be there. A path to a config file
    /// will do as well as one to its folder.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open(source: &ModelSource, options: &OpenOptions) -> Result<Self> {
        Self::locate(source, options, Parts::Side)
    }

    fn locate(source: &ModelSource, options: &OpenOptions, parts: Parts) -> Result<Self> {
        match source {
            ModelSource::HubGguf { id, revision, file } => {
                let path = fetch_gguf(id, revision, file, options)?;
                let file = GgufFile::open(path, &options.limits, options.mapping)?;
                Ok(Self::from_gguf(source.to_string(), file, &options.limits))
            }
            ModelSource::Gguf(path) => {
                let file = GgufFile::open(path, &options.limits, options.mapping)?;
                Ok(Self::from_gguf(source.to_string(), file, &options.limits))
            }
            ModelSource::Dir(path) if path.is_file() => {
                Self::from_config_file(source, path, &options.limits)
            }
            ModelSource::Dir(path) => {
                path.metadata().map_err(|error| Error::io(path, error))?;
                let files = FolderFiles {
                    folder: Folder::new(path, options.links),
                    remote: None,
                    mapping: options.mapping,
                };
                Self::from_folder(source.to_string(), files, &options.limits)
            }
            ModelSource::Hub { id, revision } => {
                let fetch = chosen_fetch(options)?;
                let snapshot = fetch_parts(&*fetch, (id, revision), parts, &options.limits)?;
                let origin = format!("{id}@{}", snapshot.commit);
                let files = FolderFiles {
                    folder: Folder::new(&snapshot.folder, options.links),
                    remote: Some(Remote { fetch, snapshot }),
                    mapping: options.mapping,
                };
                Self::from_folder(origin, files, &options.limits)
            }
        }
    }

    fn from_folder(origin: String, files: FolderFiles, limits: &Limits) -> Result<Self> {
        let folder = &files.folder;
        let hint = "a checkpoint folder holds config.json, tokenizer.json and safetensors files";
        let config = read_json(&folder.required(CONFIG, hint)?, Numbers::Exact, limits)?;
        let optional = |name, numbers| match folder.file(name)? {
            Some(path) => read_json(&path, numbers, limits).map(Some),
            None => Ok(None),
        };
        let generation_config = optional(GENERATION_CONFIG, Numbers::Exact)?;
        let tokenizer_config = optional(TOKENIZER_CONFIG, Numbers::Float)?;
        let limits = limits.clone();
        Ok(Self {
            origin,
            config,
            generation_config,
            tokenizer_config,
            text: TextFiles::Folder(files),
            limits,
        })
    }

    /// A config on its own says everything about a model's shape.
    fn from_config_file(source: &ModelSource, path: &Path, limits: &Limits) -> Result<Self> {
        let has_extension = |name| path.extension().is_some_and(|extension| extension == name);
        if !has_extension("json") {
            let what = format!("{} as a model", path.display());
            let hint = match has_extension("safetensors") {
                true => "give its folder, which holds config.json and tokenizer.json too",
                false => "folders, gguf files and config files in json are",
            };
            let hint = hint.to_owned();
            return Err(Error::Unsupported { what, hint });
        }
        Ok(Self {
            origin: source.to_string(),
            config: read_json(path, Numbers::Exact, limits)?,
            generation_config: None,
            tokenizer_config: None,
            text: TextFiles::Memory {
                tokenizer: None,
                chat_template: None,
                more: More::default(),
            },
            limits: limits.clone(),
        })
    }

    fn from_gguf(origin: String, file: GgufFile, limits: &Limits) -> Self {
        Self {
            origin,
            config: file.config(),
            generation_config: Some(file.generation_config()),
            tokenizer_config: None,
            text: TextFiles::Gguf(Arc::new(file)),
            limits: limits.clone(),
        }
    }

    /// The model config, as in `config.json`.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The generation config, when the checkpoint has one.
    pub fn generation_config(&self) -> Option<&Value> {
        self.generation_config.as_ref()
    }

    /// The tokenizer config, when the checkpoint has one.
    pub fn tokenizer_config(&self) -> Option<&Value> {
        self.tokenizer_config.as_ref()
    }

    /// Where the checkpoint came from, for people.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The limits that the checkpoint was opened with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Reads the tokenizer.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the checkpoint has none, else as [`Tokenizer::from_file`].
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let missing = || Error::NotFound {
            what: format!("{TOKENIZER} of {}", self.origin),
            hint: "text needs a tokenizer; copy the model's own next to its weights".to_owned(),
        };
        match &self.text {
            TextFiles::Folder(FolderFiles { folder, .. }) => {
                Tokenizer::from_file(&folder.file(TOKENIZER)?.ok_or_else(missing)?, &self.limits)
            }
            TextFiles::Gguf(file) => file.tokenizer(),
            TextFiles::Memory { tokenizer, .. } => {
                Tokenizer::from_bytes(tokenizer.as_ref().ok_or_else(missing)?, &self.limits)
            }
        }
    }

    /// Reads the chat template: the file `chat_template.jinja` if there is one, else the entry of
    /// the tokenizer config.
    ///
    /// # Errors
    /// [`Error::Limit`] on its size, [`Error::InvalidFile`] for something that is no template, and
    /// whatever reading a file gives.
    pub fn chat_template(&self) -> Result<Option<String>> {
        let limit = self.limits.chat_template_bytes;
        let template = match &self.text {
            TextFiles::Folder(FolderFiles { folder, .. }) => match folder.file(CHAT_TEMPLATE)? {
                Some(path) => {
                    let bytes = read_capped(&path, limit, "chat template bytes")?;
                    let text = String::from_utf8(bytes)
                        .map_err(|_| Error::invalid_file(&path, "not utf-8"))?;
                    Some(text)
                }
                None => match self
                    .tokenizer_config
                    .as_ref()
                    .and_then(|config| config.get("chat_template"))
                {
                    Some(entry) => {
                        configured_template(&folder.path().join(TOKENIZER_CONFIG), entry)?
                    }
                    None => None,
                },
            },
            TextFiles::Gguf(file) => file.chat_template()?.map(str::to_owned),
            TextFiles::Memory { chat_template, .. } => chat_template.as_deref().map(str::to_owned),
        };
        match template.as_ref().map_or(0, |text| text.len() as u64) {
            found if found > limit => Err(Error::Limit {
                what: "chat template bytes".to_owned(),
                limit,
                found,
            }),
            _ => Ok(template),
        }
    }
}

/// The template in a tokenizer config: a string, or a list of named ones of which one is `default`.
fn configured_template(path: &Path, entry: &Value) -> Result<Option<String>> {
    let invalid = |detail: &str| Error::invalid_file(path, format!("\"chat_template\": {detail}"));
    let list = match entry {
        Value::Null => return Ok(None),
        Value::String(text) => return Ok(Some(text.clone())),
        Value::Array(list) => list,
        _ => return Err(invalid("expected a string or a list of named templates")),
    };
    let is_default = |item: &&Value| item.get("name").and_then(Value::as_str) == Some("default");
    let chosen = match list.as_slice() {
        [only] => only,
        _ => list
            .iter()
            .find(is_default)
            .ok_or_else(|| invalid("several templates, and none is called \"default\""))?,
    };
    let text = chosen.get("template").and_then(Value::as_str);
    text.map(|text| Some(text.to_owned()))
        .ok_or_else(|| invalid("an entry without a \"template\" string"))
}
