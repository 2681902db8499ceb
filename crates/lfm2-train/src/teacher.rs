//! What a teacher says of every training token, kept in files.
//!
//! A store is a folder: `teacher.json` says what it belongs to, shards hold the numbers. Positions
//! are those of the tokens of a run's training documents in order, so a store belongs to one tokenizer
//! and one set of data, cut in one way; a run on anything else refuses it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use lfm2_generate::Cancel;
use lfm2_hub::{Limits, Mapping, Overwrite, SafetensorsSource, TensorSource, write_safetensors};
use lfm2_nn::{Cache, Decoder, Input, Want};
use serde::{Deserialize, Serialize};

use crate::data::{Document, MicroBatch, pack};
use crate::file::{read_json, write_text};
use crate::loss::TopK;
use crate::workers::Workers;
use crate::{Error, Result};

/// The file that describes a store.
const HEADER: &str = "teacher.json";
/// The version of the format.
const FORMAT: u32 = 1;
/// About how many tokens a shard holds.
const SHARD_TOKENS: usize = 1 << 18;
/// Stands for the logarithm of 0, which JSON and some readers do not know.
const NO_MASS: f32 = -1e30;

/// What a store belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherIdentity {
    /// SHA-256 of the tokenizer.
    pub tokenizer_sha256: String,
    /// SHA-256 of every data file, in order.
    pub data_sha256: Vec<(String, String)>,
    /// The longest document; longer ones were cut.
    pub max_tokens: usize,
    /// The seed by which documents were kept out.
    pub seed: u64,
    /// All training tokens.
    pub tokens: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    teacher: String,
    /// Likeliest ids per token.
    k: usize,
    vocab_size: usize,
    belongs_to: TeacherIdentity,
    /// Files and how many tokens each holds.
    shards: Vec<(String, usize)>,
}

/// A teacher's output, read as a stream.
#[derive(Debug)]
pub struct TeacherStore {
    folder: PathBuf,
    k: usize,
    vocab_size: usize,
    /// The first position of each shard, and the shard.
    shards: Vec<(u64, SafetensorsSource)>,
}

impl TeacherStore {
    /// Opens the store in `folder`, which has to belong to `identity`.
    ///
    /// # Errors
    /// [`Error::RunFolder`] when there is no store, it is damaged, or it belongs to another tokenizer or
    /// other data, naming what differs.
    pub fn open(folder: &Path, identity: &TeacherIdentity) -> Result<Self> {
        let path = folder.join(HEADER);
        let header: Header = read_json(&path)?;
        if header.format != FORMAT {
            let detail = format!("expected format {FORMAT}, found {}", header.format);
            return Err(Error::run_folder(path, detail));
        }
        if let Some(detail) = difference(&header.belongs_to, identity) {
            return Err(Error::run_folder(path, detail));
        }
        let mut shards = Vec::new();
        let mut first = 0;
        for (name, tokens) in &header.shards {
            if Path::new(name).file_name() != Some(name.as_ref()) {
                return Err(Error::run_folder(
                    path,
                    format!("{name:?} is not a file name"),
                ));
            }
            let shard = folder.join(name);
            let source = SafetensorsSource::open(&shard, Mapping::Read, &Limits::default())?;
            let matrix = [*tokens, header.k];
            let shapes: [(&str, &[usize]); 4] = [
                ("ids", &matrix),
                ("logprob", &matrix),
                ("log_tail", &matrix[..1]),
                ("tokens", &matrix[..1]),
            ];
            for (name, shape) in shapes {
                if source.shape(name) != Some(shape) {
                    let found = source.shape(name);
                    let detail = format!("{name}: expected shape {shape:?}, found {found:?}");
                    return Err(Error::run_folder(shard, detail));
                }
            }
            shards.push((first, source));
            first += *tokens as u64;
        }
        if first != identity.tokens {
            let detail = format!("expected {} tokens, found {first}", identity.tokens);
            return Err(Error::run_folder(path, detail));
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            k: header.k,
            vocab_size: header.vocab_size,
            shards,
        })
    }

    /// Entries per token.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The teacher's number of logits per token.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// What the teacher says of the tokens of a micro-batch, in their order.
    ///
    /// # Errors
    /// [`Error::RunFolder`] when the store holds other tokens at their places; errors of files.
    pub fn read(&self, batch: &MicroBatch) -> Result<TopK> {
        let mut all = TopK::default();
        for (tokens, place) in batch.places() {
            self.read_document(tokens, place, &mut all)?;
        }
        Ok(all)
    }

    fn read_document(&self, tokens: &[u32], place: u64, into: &mut TopK) -> Result<()> {
        let after = self.shards.partition_point(|(first, _)| *first <= place);
        let shard = after.checked_sub(1).and_then(|i| self.shards.get(i));
        let Some((first, source)) = shard else {
            let detail = format!("no shard holds position {place}");
            return Err(Error::run_folder(&self.folder, detail));
        };
        // Documents are whole in one shard.
        let start = (place - first) as usize;
        let range = start..start + tokens.len();
        if source.integers("tokens", range.clone())? != tokens {
            let detail = format!("other tokens than those of the run at position {place}");
            return Err(Error::run_folder(&self.folder, detail));
        }
        let entries = range.start * self.k..range.end * self.k;
        let widen = |values: Vec<f32>| values.into_iter().map(f64::from);
        into.k = self.k;
        into.ids.extend(source.integers("ids", entries.clone())?);
        into.logprobs
            .extend(widen(source.elements("logprob", entries)?));
        into.log_tails
            .extend(widen(source.elements("log_tail", range)?));
        Ok(())
    }
}

/// What two identities differ in.
fn difference(found: &TeacherIdentity, expected: &TeacherIdentity) -> Option<String> {
    let differs = |what: &str, found: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug| {
        Some(format!(
            "made with another {what}: expected {expected:?}, found {found:?}"
        ))
    };
    if found.tokenizer_sha256 != expected.tokenizer_sha256 {
        return differs(
            "tokenizer",
            &found.tokenizer_sha256,
            &expected.tokenizer_sha256,
        );
    }
    if found.data_sha256 != expected.data_sha256 {
        return differs("set of data", &found.data_sha256, &expected.data_sha256);
    }
    if found.max_tokens != expected.max_tokens {
        return differs(
            "micro_batch_tokens",
            &found.max_tokens,
            &expected.max_tokens,
        );
    }
    if found.seed != expected.seed {
        return differs("seed", &found.seed, &expected.seed);
    }
    (found.tokens != expected.tokens).then(|| {
        format!(
            "made of {} tokens, expected {}",
            found.tokens, expected.tokens
        )
    })
}

/// How a teacher is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TeachOptions {
    /// The teacher's name in the store.
    pub teacher: String,
    /// Likeliest ids to keep per token.
    pub k: usize,
    /// Tokens that are read together.
    pub batch_tokens: usize,
}

impl TeachOptions {
    /// Keeps the 32 likeliest ids.
    pub fn new(teacher: impl Into<String>) -> Self {
        Self {
            teacher: teacher.into(),
            k: 32,
            batch_tokens: 2048,
        }
    }

    /// Sets how many ids are kept.
    pub fn with_k(mut self, k: usize) -> Self {
        self.k = k;
        self
    }
}

/// Writes what `model` says of `documents`, in order, to a new store in `folder`. `progress` is told how
/// many tokens are done. A store is complete or, without its header, no store.
///
/// # Errors
/// [`Error::InvalidOption`] when `k` is 0, [`Error::RunFolder`] when the folder holds a store already,
/// [`Error::Cancelled`], and errors of the model and of files.
pub(crate) fn write_store(
    model: &dyn Decoder,
    documents: &[&Document],
    identity: TeacherIdentity,
    options: &TeachOptions,
    (folder, workers): (&Path, &Workers),
    (progress, cancel): (&mut dyn FnMut(u64), &Cancel),
) -> Result<()> {
    if options.k == 0 {
        return Err(Error::option("k", "expected at least 1, found 0"));
    }
    let path = folder.join(HEADER);
    if path.exists() {
        let detail = "the folder holds a teacher's output already; choose another";
        return Err(Error::run_folder(folder, detail));
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let batches = pack(documents.iter().copied(), options.batch_tokens);
    let mut shards = Vec::new();
    let mut done = 0;
    for part in shard_ranges(&batches) {
        let mut shard = Shard::default();
        for group in part.chunks(workers.count()) {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled { step: done });
            }
            let ask = |batch: &MicroBatch| Ok((batch.clone(), lists(model, batch, options.k)?));
            let mut failed = Ok(());
            workers.for_each_in_order(group, ask, |(batch, list)| {
                done += batch.tokens() as u64;
                if let Err(error) = shard.push(&batch, &list) {
                    failed = Err(error);
                }
            })?;
            failed?;
            progress(done);
        }
        let name = format!("shard-{:05}.safetensors", shards.len());
        shards.push((name.clone(), shard.tokens.len()));
        shard.write(&folder.join(name))?;
    }
    let header = Header {
        format: FORMAT,
        teacher: options.teacher.clone(),
        k: options.k.min(model.vocab_size()),
        vocab_size: model.vocab_size(),
        belongs_to: identity,
        shards,
    };
    let text = serde_json::to_string_pretty(&header)
        .map_err(|e| Error::run_folder(&path, e.to_string()))?;
    write_text(&path, &(text + "\n"))
}

/// The batches in groups of about [`SHARD_TOKENS`].
fn shard_ranges(batches: &[MicroBatch]) -> Vec<&[MicroBatch]> {
    let (mut groups, mut start, mut tokens) = (Vec::new(), 0, 0);
    for (i, batch) in batches.iter().enumerate() {
        tokens += batch.tokens();
        if tokens >= SHARD_TOKENS {
            groups.push(&batches[start..=i]);
            (start, tokens) = (i + 1, 0);
        }
    }
    if start < batches.len() {
        groups.push(&batches[start..]);
    }
    groups
}

fn lists(model: &dyn Decoder, batch: &MicroBatch, k: usize) -> Result<TopK> {
    let ids = batch.ids(model.device())?;
    let mut cache = Cache::stateless(batch.documents());
    let logits = model.forward(Input::Ids(&ids), &batch.step(), &mut cache, Want::AllLogits)?;
    Ok(TopK::of_logits(
        &logits.detach().to_device(&Device::Cpu)?,
        k,
    )?)
}

#[derive(Default)]
struct Shard {
    lists: TopK,
    tokens: Vec<u32>,
    starts: Vec<i64>,
}

impl Shard {
    fn push(&mut self, batch: &MicroBatch, lists: &TopK) -> Result<()> {
        self.lists.extend(lists)?;
        for (ids, _) in batch.places() {
            self.starts.push(self.tokens.len() as i64);
            self.tokens.extend_from_slice(ids);
        }
        Ok(())
    }

    fn write(self, path: &Path) -> Result<()> {
        let (n, k) = (self.tokens.len(), self.lists.k);
        let narrow = |values: &[f64]| -> Vec<f32> {
            values.iter().map(|&x| (x as f32).max(NO_MASS)).collect()
        };
        let device = &Device::Cpu;
        let logprob = Tensor::from_vec(narrow(&self.lists.logprobs), (n, k), device)?;
        let starts = self.starts.len();
        let tensors = [
            ("ids", Tensor::from_vec(self.lists.ids, (n, k), device)?),
            (
                "logprob",
                logprob.clamp(-6e4f32, 0f32)?.to_dtype(DType::F16)?,
            ),
            (
                "log_tail",
                Tensor::from_vec(narrow(&self.lists.log_tails), n, device)?,
            ),
            ("tokens", Tensor::from_vec(self.tokens, n, device)?),
            (
                "document_start",
                Tensor::from_vec(self.starts, starts, device)?,
            ),
        ];
        let named = tensors.iter().map(|(name, tensor)| (*name, tensor));
        Ok(write_safetensors(
            path,
            named,
            &BTreeMap::new(),
            Overwrite::Replace,
        )?)
    }
}
