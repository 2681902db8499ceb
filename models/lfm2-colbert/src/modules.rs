//! `modules.json` and the folders it lists: what stands behind the trunk.

use lfm2_hub::{Checkpoint, CheckpointInfo, Error as HubError, TensorSource};
use lfm2_nn::Bias;
use serde_json::Value;

use crate::Result;
use crate::settings::Keys;

const FILE: &str = "modules.json";

/// One linear layer behind the trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenseSpec {
    /// Where its `weight` and `bias` are, among all tensors of the model: `1_Dense.linear`.
    pub prefix: String,
    /// Width it reads.
    pub input: usize,
    /// Width it gives.
    pub output: usize,
    /// Whether it has a bias.
    pub bias: Bias,
}

/// Which vectors of a text become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first, that of the beginning of the sequence.
    First,
}

/// What a retrieval model does with the states of its trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Modules {
    /// The folders with weights, in order.
    pub(crate) folders: Vec<String>,
    pub(crate) dense: Vec<DenseSpec>,
    pub(crate) pooling: Option<Pooling>,
    /// Whether a module gives vectors the length 1.
    pub(crate) normalised: bool,
}

impl Modules {
    /// Reads what a checkpoint says of its modules.
    ///
    /// # Errors
    /// [`HubError::NotFound`] for a folder without `modules.json`, [`HubError::Unsupported`] for a
    /// module or a variant of one that would change the vectors and is not known.
    pub(crate) fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let info = checkpoint.info();
        if info.gguf().is_some() {
            return Self::of_gguf(info, &*checkpoint.tensors());
        }
        let path = info.path_of(FILE);
        let json = info.json(FILE)?.ok_or_else(|| HubError::NotFound {
            what: path.display().to_string(),
            hint: "a retrieval model lists its parts there; this may be a text model".to_owned(),
        })?;
        let wrong = |detail: String| HubError::invalid_file(&path, detail);
        let list = json
            .as_array()
            .ok_or_else(|| wrong("expected a list of modules".to_owned()))?;
        let mut entries = Vec::with_capacity(list.len());
        for (place, entry) in list.iter().enumerate() {
            entries.push(Entry::read(entry, place).map_err(wrong)?);
        }
        entries.sort_by_key(|entry| entry.place);
        let mut modules = Self {
            folders: Vec::new(),
            dense: Vec::new(),
            pooling: None,
            normalised: false,
        };
        match entries.first() {
            Some(trunk) if trunk.kind == "Transformer" && trunk.path.is_empty() => {}
            _ => {
                let detail = "expected a Transformer with path \"\" as the first module".to_owned();
                return Err(wrong(detail).into());
            }
        }
        for entry in entries.iter().skip(1) {
            modules.push(info, entry)?;
        }
        Ok(modules)
    }

    fn push(&mut self, info: &CheckpointInfo, entry: &Entry<'_>) -> Result<()> {
        let behind_pooling = self.pooling.is_some();
        match entry.kind {
            "Dense" if !behind_pooling && !self.normalised => {
                self.dense.push(dense(info, entry.path)?);
                self.folders.push(entry.path.to_owned());
                Ok(())
            }
            "Pooling" if self.dense.is_empty() && !behind_pooling && !self.normalised => {
                self.pooling = Some(pooling(info, entry.path)?);
                Ok(())
            }
            "Normalize" => {
                self.normalised = true;
                Ok(())
            }
            _ => Err(HubError::Unsupported {
                what: format!(
                    "module {} of {} (type \"{}\", path {:?})",
                    entry.place,
                    info.path_of(FILE).display(),
                    entry.full_kind,
                    entry.path
                ),
                hint: "a Transformer with Dense modules, or with Pooling, is".to_owned(),
            }
            .into()),
        }
    }

    /// The linear layers of a GGUF file: `dense_2`, `dense_3` and so on.
    fn of_gguf(info: &CheckpointInfo, tensors: &dyn TensorSource) -> Result<Self> {
        let mut dense = Vec::new();
        for prefix in (2..).map(|number| format!("dense_{number}")) {
            let Some(weight) = tensors.info(&format!("{prefix}.weight")) else {
                break;
            };
            let &[output, input] = &weight.shape[..] else {
                return Err(HubError::TensorShape {
                    name: format!("{prefix}.weight"),
                    expected: vec![0, 0],
                    found: weight.shape,
                }
                .into());
            };
            let bias = tensors.info(&format!("{prefix}.bias")).is_some().into();
            dense.push(DenseSpec {
                prefix,
                input,
                output,
                bias,
            });
        }
        let metadata = info.gguf().map(lfm2_hub::gguf::GgufFile::metadata);
        if let (Some(metadata), Some(last)) = (metadata, dense.last()) {
            let architecture = metadata.str("general.architecture")?;
            let key = format!("{architecture}.embedding_length_out");
            let stated = metadata.usize_opt(&key)?;
            if let Some(stated) = stated.filter(|&stated| stated != last.output) {
                let found = last.output;
                let detail = format!(
                    "metadata key \"{key}\": expected {found} as {}.weight says, found {stated}",
                    last.prefix
                );
                return Err(HubError::invalid_file(metadata.path(), detail).into());
            }
        }
        let pooling = dense.is_empty().then_some(Pooling::First);
        Ok(Self {
            folders: Vec::new(),
            dense,
            pooling,
            normalised: false,
        })
    }
}

/// One entry of the list.
struct Entry<'a> {
    place: u64,
    path: &'a str,
    /// The last part of the type.
    kind: &'a str,
    full_kind: &'a str,
}

impl<'a> Entry<'a> {
    fn read(entry: &'a Value, place: usize) -> Result<Self, String> {
        let text = |key: &str| {
            let value = entry.get(key).and_then(Value::as_str);
            value.ok_or_else(|| format!("module {place}: \"{key}\": expected a string"))
        };
        let full_kind = text("type")?;
        Ok(Self {
            place: entry
                .get("idx")
                .and_then(Value::as_u64)
                .unwrap_or(place as u64),
            path: text("path")?,
            kind: full_kind.rsplit('.').next().unwrap_or(full_kind),
            full_kind,
        })
    }
}

fn unsupported(keys: &Keys<'_>, what: &str, hint: &str) -> HubError {
    HubError::Unsupported {
        what: format!("{}: {what}", keys.path.display()),
        hint: hint.to_owned(),
    }
}

/// Reads the config of the linear layer in `folder`.
fn dense(info: &CheckpointInfo, folder: &str) -> Result<DenseSpec> {
    let name = format!("{folder}/config.json");
    let path = info.path_of(&name);
    let json = info.json(&name)?.ok_or_else(|| HubError::NotFound {
        what: path.display().to_string(),
        hint: format!("{FILE} lists it; download the checkpoint again"),
    })?;
    let keys = Keys::new(&json, &path)?;
    let width = |key: &str| -> Result<usize> {
        let found = keys.length(key)?.filter(|&width| width > 0);
        let limit = info.limits().hidden_size;
        match found {
            Some(width) if width > limit => Err(HubError::Limit {
                what: format!("{}: {key}", path.display()),
                limit: limit as u64,
                found: width as u64,
            }
            .into()),
            Some(width) => Ok(width),
            None => {
                let detail = format!("\"{key}\": expected a number from 1");
                Err(HubError::invalid_file(&path, detail).into())
            }
        }
    };
    match keys.str("activation_function")? {
        Some(name) if name.rsplit('.').next() == Some("Identity") => {}
        found => {
            let found = found.map_or("missing".to_owned(), |name| format!("\"{name}\""));
            let what = format!("activation_function {found}");
            return Err(unsupported(&keys, &what, "Identity is").into());
        }
    }
    if keys.bool("use_residual")?.unwrap_or(false) {
        return Err(unsupported(&keys, "use_residual true", "layers without one are").into());
    }
    for key in ["module_input_name", "module_output_name"] {
        let name = keys.str(key)?.unwrap_or("token_embeddings");
        if name != "token_embeddings" {
            let what = format!("{key} \"{name}\"");
            return Err(unsupported(&keys, &what, "token_embeddings is").into());
        }
    }
    Ok(DenseSpec {
        prefix: format!("{folder}.linear"),
        input: width("in_features")?,
        output: width("out_features")?,
        bias: keys.bool("bias")?.unwrap_or(true).into(),
    })
}

/// Reads the config of the pooling in `folder`.
fn pooling(info: &CheckpointInfo, folder: &str) -> Result<Pooling> {
    let name = format!("{folder}/config.json");
    let path = info.path_of(&name);
    let json = info.json(&name)?.ok_or_else(|| HubError::NotFound {
        what: path.display().to_string(),
        hint: format!("{FILE} lists it; download the checkpoint again"),
    })?;
    let keys = Keys::new(&json, &path)?;
    const HINT: &str = "the vector of the first token (cls) is";
    if let Some(mode) = keys.str("pooling_mode")? {
        return match mode {
            "cls" => Ok(Pooling::First),
            _ => Err(unsupported(&keys, &format!("pooling_mode \"{mode}\""), HINT).into()),
        };
    }
    let modes = json.as_object().into_iter().flatten();
    let chosen = modes
        .filter(|(key, value)| key.starts_with("pooling_mode_") && value.as_bool() == Some(true))
        .map(|(key, _)| key.as_str());
    match chosen.collect::<Vec<_>>()[..] {
        ["pooling_mode_cls_token"] => Ok(Pooling::First),
        [] => Err(unsupported(&keys, "a pooling without a mode", HINT).into()),
        ref chosen => Err(unsupported(&keys, &chosen.join(", "), HINT).into()),
    }
}
