//! Golden sets: a tiny checkpoint in the released layout, sounds, and the reference's outputs.
//!
//! A set is any folder with `checkpoint/config.json`. The committed one, in `tests/golden`, has no
//! weights, which are too large; `LFM2_GOLDEN=DIR` adds `DIR/audio`, or every set inside it.
#![allow(dead_code, reason = "every test file uses its part")]

pub(crate) mod random;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use lfm2_audio::{
    AudioConfig, AudioModel, AudioOptions, Chat, Clip, Frame, Mel, MelFrontEnd, Mimi, MimiConfig,
    MimiEncoder, Piece, Role, Sequence, SoundLimits,
};
use lfm2_hub::{Limits, ModelSource, Tokenizer};
use lfm2_nn::{Accuracy, DType, Device, Tensor};
use lfm2_text::LoadOptions;
use serde_json::Value;

const CPU: Device = Device::Cpu;

/// One golden set.
pub(crate) struct Set {
    pub(crate) folder: PathBuf,
    committed: bool,
    model: OnceLock<AudioModel>,
}

impl Set {
    pub(crate) fn name(&self) -> String {
        self.folder.display().to_string()
    }

    /// The tensors of a file, or `None` when the set does not have it.
    pub(crate) fn tensors(&self, file: &str) -> Result<Option<Tensors>> {
        let path = self.folder.join(file);
        if !path.is_file() {
            return Ok(None);
        }
        let tensors = candle_core::safetensors::load(&path, &CPU)?;
        Ok(Some(Tensors { path, tensors }))
    }

    /// The contents of a JSON file, or `None` when the set does not have it.
    pub(crate) fn json(&self, file: &str) -> Result<Option<Value>> {
        let path = self.folder.join(file);
        if !path.is_file() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&std::fs::read(path)?)?))
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.folder.join("checkpoint")
    }

    pub(crate) fn source(&self) -> ModelSource {
        ModelSource::Dir(self.checkpoint())
    }

    /// The model, computing with the weights as numbers of full width, as the reference does; `None`
    /// for the committed set.
    pub(crate) fn model(&self) -> Result<Option<&AudioModel>> {
        if self.committed {
            return Ok(None);
        }
        if self.model.get().is_none() {
            let opened = AudioModel::open(&self.source(), &options())?;
            let _ = self.model.set(opened);
        }
        Ok(self.model.get())
    }

    /// The model's config.
    pub(crate) fn config(&self) -> Result<AudioConfig> {
        let json = self.json("checkpoint/config.json")?.context("no config")?;
        Ok(AudioConfig::from_json(&json, &Limits::default())?)
    }

    /// What turns clips into features.
    pub(crate) fn front_end(&self) -> Result<MelFrontEnd> {
        Ok(MelFrontEnd::new(self.config()?.mel)?)
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        let path = self.checkpoint().join("tokenizer.json");
        Ok(Tokenizer::from_file(&path, &Limits::default())?)
    }

    /// Names of the sounds of the set, sorted.
    pub(crate) fn clips(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.folder.join("wav"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(name.strip_suffix(".wav").map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// A sound of the set.
    pub(crate) fn clip(&self, name: &str) -> Result<Clip> {
        let path = self.folder.join("wav").join(format!("{name}.wav"));
        Clip::open(&path, &SoundLimits::default()).with_context(|| path.display().to_string())
    }

    /// The features of a sound: the reference's own where the set has them, so that what is computed
    /// from them is compared and not the rounding of nearly empty bins.
    pub(crate) fn mel(&self, name: &str) -> Result<Mel> {
        let golden = self.tensors("mel.safetensors")?;
        match golden
            .as_ref()
            .and_then(|golden| golden.find(&format!("{name}.mel")))
        {
            Some(mel) => {
                let values = mel.t()?.contiguous()?.flatten_all()?.to_vec1()?;
                Ok(Mel::new(values, mel.dim(0)?)?)
            }
            None => Ok(self.front_end()?.features(&self.clip(name)?)?),
        }
    }

    /// The sizes of the set's codec, and its file; `None` when the set has none.
    pub(crate) fn mimi(&self) -> Result<Option<(MimiConfig, PathBuf)>> {
        let path = self
            .checkpoint()
            .join("tokenizer-e351c8d8-checkpoint125.safetensors");
        if !path.is_file() {
            return Ok(None);
        }
        Ok(Some((mimi_config(&self.checkpoint())?, path)))
    }

    pub(crate) fn mimi_decoder(&self) -> Result<Option<Mimi>> {
        let Some((config, path)) = self.mimi()? else {
            return Ok(None);
        };
        Ok(Some(Mimi::open(&path, &config, &Limits::default())?))
    }

    pub(crate) fn mimi_encoder(&self) -> Result<Option<MimiEncoder>> {
        let Some((config, path)) = self.mimi()? else {
            return Ok(None);
        };
        Ok(Some(MimiEncoder::open(&path, &config, &Limits::default())?))
    }

    /// The sequence of a chat in `chats.json`, up to the answer.
    pub(crate) fn chat(&self, turns: &Value) -> Result<Sequence> {
        let (tokenizer, front) = (self.tokenizer()?, self.front_end()?);
        let mut chat = Chat::new(&tokenizer, &front)?;
        for turn in turns.as_array().context("turns")? {
            let role = turn[0].as_str().context("role")?;
            chat.begin(role_of(role)?)?;
            for part in turn[1].as_array().context("parts")? {
                match (part.as_str(), part["audio"].as_str()) {
                    (Some(text), _) => chat.text(text)?,
                    (None, Some(name)) => chat.pieces([Piece::Clip(self.mel(name)?)]),
                    _ => anyhow::bail!("a part that is neither text nor audio: {part}"),
                };
            }
            chat.end()?;
        }
        chat.begin(Role::Assistant)?;
        Ok(chat.into_sequence())
    }
}

pub(crate) fn options() -> AudioOptions {
    let load = LoadOptions::default()
        .with_accuracy(Accuracy::Exact)
        .strict();
    AudioOptions::default().with_load(load)
}

fn role_of(name: &str) -> Result<Role> {
    Ok(match name {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => anyhow::bail!("role {other}"),
    })
}

/// Only test checkpoints have a file with these sizes.
fn mimi_config(folder: &Path) -> Result<MimiConfig> {
    let mut config = MimiConfig::default();
    let path = folder.join("mimi_tiny.json");
    if !path.is_file() {
        return Ok(config);
    }
    let json: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let size = |pointer: &str| -> Result<usize> {
        let found = json.pointer(pointer).and_then(Value::as_u64);
        Ok(found.with_context(|| pointer.to_owned())? as usize)
    };
    let ratios = json["seanet"]["ratios"].as_array().context("ratios")?;
    config.ratios = ratios
        .iter()
        .filter_map(|r| Some(r.as_u64()? as usize))
        .collect();
    config.dimension = size("/seanet/dimension")?;
    config.filters = size("/seanet/n_filters")?;
    config.kernel = size("/seanet/kernel_size")?;
    config.residual_kernel = size("/seanet/residual_kernel_size")?;
    config.last_kernel = size("/seanet/last_kernel_size")?;
    config.compress = size("/seanet/compress")?;
    config.heads = size("/transformer/num_heads")?;
    config.layers = size("/transformer/num_layers")?;
    config.ffn = size("/transformer/dim_feedforward")?;
    config.context = size("/transformer/context")?;
    config.max_period = size("/transformer/max_period")? as f64;
    config.code_width = size("/quantizer/dimension")?;
    config.codebooks = size("/quantizer/used")?;
    Ok(config)
}

/// Named tensors of one file.
pub(crate) struct Tensors {
    path: PathBuf,
    tensors: HashMap<String, Tensor>,
}

impl Tensors {
    pub(crate) fn get(&self, name: &str) -> Result<&Tensor> {
        let found = self.tensors.get(name);
        found.with_context(|| format!("{}: no tensor {name}", self.path.display()))
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Names with this ending, without it, sorted.
    pub(crate) fn ending(&self, suffix: &str) -> Vec<&str> {
        let names = self.tensors.keys();
        let mut found: Vec<&str> = names.filter_map(|n| n.strip_suffix(suffix)).collect();
        found.sort_unstable();
        found
    }

    /// Rows of whole numbers.
    pub(crate) fn ids(&self, name: &str) -> Result<Vec<Vec<u32>>> {
        let rows: Vec<Vec<i64>> = self.get(name)?.to_dtype(DType::I64)?.to_vec2()?;
        let row = |row: Vec<i64>| row.into_iter().map(|id| id as u32).collect();
        Ok(rows.into_iter().map(row).collect())
    }

    /// `(codebooks, frames)` as one list of codes per frame.
    pub(crate) fn frames(&self, name: &str) -> Result<Vec<Vec<u32>>> {
        let rows = self.ids(name)?;
        let len = rows.first().map_or(0, Vec::len);
        Ok((0..len)
            .map(|t| rows.iter().map(|row| row[t]).collect())
            .collect())
    }
}

/// Every set there is.
pub(crate) fn sets() -> Result<&'static [Set]> {
    static SETS: OnceLock<Vec<Set>> = OnceLock::new();
    if let Some(sets) = SETS.get() {
        return Ok(sets);
    }
    let mut roots = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")];
    if let Some(more) = lfm2_golden::folder() {
        roots.push(more.join("audio"));
    }
    let mut found = Vec::new();
    for root in roots {
        let mut folders = vec![root.clone()];
        for entry in std::fs::read_dir(&root).with_context(|| root.display().to_string())? {
            folders.push(entry?.path());
        }
        folders.retain(|folder| folder.join("checkpoint/config.json").is_file());
        ensure!(!folders.is_empty(), "no golden set in {}", root.display());
        found.extend(folders.into_iter().map(|folder| Set {
            committed: root.starts_with(env!("CARGO_MANIFEST_DIR")),
            folder,
            model: OnceLock::new(),
        }));
    }
    found.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok(SETS.get_or_init(|| found))
}

/// Runs `check` on every set and reports all that fail.
pub(crate) fn for_every_set(check: impl Fn(&Set) -> Result<()>) -> Result<()> {
    let mut failures = Vec::new();
    for set in sets()? {
        if let Err(error) = check(set) {
            failures.push(format!("{}: {error:#}", set.name()));
        }
    }
    ensure!(failures.is_empty(), "sets differ:\n{}", failures.join("\n"));
    Ok(())
}

/// Fails when shapes differ, anything is not a number, or values differ by more than `tolerance`.
pub(crate) fn ensure_close(what: &str, a: &Tensor, b: &Tensor, tolerance: f64) -> Result<()> {
    ensure!(
        a.dims() == b.dims(),
        "{what}: shapes {:?} and {:?}",
        a.dims(),
        b.dims()
    );
    let flat = |t: &Tensor| t.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>();
    let worst = largest_difference(what, &flat(a)?, &flat(b)?)?;
    ensure!(
        worst <= tolerance,
        "{what}: differs by {worst:.3e}, allowed is {tolerance:.1e}"
    );
    Ok(())
}

pub(crate) fn largest_difference(what: &str, a: &[f32], b: &[f32]) -> Result<f64> {
    ensure!(
        a.len() == b.len(),
        "{what}: {} values and {}",
        a.len(),
        b.len()
    );
    let mut worst = 0f64;
    for (a, b) in a.iter().zip(b) {
        ensure!(a.is_finite() && b.is_finite(), "{what}: not a number");
        worst = worst.max(f64::from((a - b).abs()));
    }
    Ok(worst)
}

/// Fails when waves differ by more than `share` of the peak of `expected`.
pub(crate) fn ensure_wave(what: &str, found: &[f32], expected: &[f32], share: f64) -> Result<()> {
    let peak = expected
        .iter()
        .fold(f32::MIN_POSITIVE, |peak, v| peak.max(v.abs()));
    let worst = largest_difference(what, found, expected)? / f64::from(peak);
    ensure!(
        worst <= share,
        "{what}: differs by {worst:.3e} of the peak, allowed is {share:.1e}"
    );
    Ok(())
}

/// A list of whole numbers in JSON.
pub(crate) fn ids(value: &Value) -> Result<Vec<u32>> {
    let list = value.as_array().context("a list of ids")?;
    let id = |v: &Value| Ok(v.as_u64().context("an id")? as u32);
    list.iter().map(id).collect()
}

/// A list of frames in JSON.
pub(crate) fn frames(value: &Value) -> Result<Vec<Frame>> {
    let list = value.as_array().context("a list of frames")?;
    list.iter()
        .map(|codes| Ok(Frame::new(ids(codes)?)))
        .collect()
}
