//! GGUF files that other programs wrote, against what they were made from.
//!
//! The cases are the folders below `tests/golden/text`, or below `$LFM2_GOLDEN/text` when that
//! variable is set: every `model-TYPE.gguf`, with the checkpoint it was made from next to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device};
use lfm2_hub::gguf::{
    GgufFile, Metadata, Quantization, QuantizeInput, QuantizeOptions, Value, quantize,
};
use lfm2_hub::{
    Bos, Limits, Mapping, SafetensorsSource, SpecialTokens, Specials, TensorSource, Tokenizer,
};
use serde_json::Value as Json;

/// One GGUF file and the folder of its checkpoint.
struct Case {
    folder: PathBuf,
    path: PathBuf,
    kind: Quantization,
}

impl Case {
    fn open(&self) -> Result<GgufFile> {
        Ok(GgufFile::open(
            &self.path,
            &Limits::default(),
            Mapping::Map,
        )?)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.folder.join(name);
        std::fs::read(&path).with_context(|| path.display().to_string())
    }

    fn json(&self, name: &str) -> Result<Json> {
        Ok(serde_json::from_slice(&self.read(name)?)?)
    }

    /// The weights the file was made from; without them, those in the file itself.
    fn weights(&self) -> Result<Arc<dyn TensorSource>> {
        let path = self.folder.join("model.safetensors");
        if path.exists() {
            return Ok(Arc::new(SafetensorsSource::open(
                &path,
                Mapping::Map,
                &Limits::default(),
            )?));
        }
        Ok(self.open()?.tensors())
    }

    /// Writes the checkpoint again, as a file of the same type.
    fn rewrite(&self, path: &Path) -> Result<GgufFile> {
        let (config, generation) = (
            self.json("config.json")?,
            self.json("generation_config.json")?,
        );
        let template = String::from_utf8(self.read("chat_template.jinja")?)?;
        let input = QuantizeInput {
            config: &config,
            generation_config: Some(&generation),
            tokenizer: &self.read("tokenizer.json")?,
            chat_template: Some(&template),
            tensors: &*self.weights()?,
        };
        let name = self
            .folder
            .file_name()
            .context("no name")?
            .to_string_lossy();
        let mut seen = 0;
        let report = quantize(
            &input,
            path,
            &QuantizeOptions::new(self.kind, name),
            |progress| {
                assert_eq!(progress.done, seen);
                seen += 1;
            },
        )?;
        ensure!(
            report.tensors == seen && report.unused.is_empty(),
            "{report:?}"
        );
        Ok(GgufFile::open(path, &Limits::default(), Mapping::Map)?)
    }
}

fn text_folder() -> PathBuf {
    match lfm2_golden::folder() {
        Some(folder) => folder.join("text"),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text"),
    }
}

fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for folder in std::fs::read_dir(text_folder())? {
        let folder = folder?.path();
        if !folder.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&folder)? {
            let path = file?.path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if let Some(kind) = name
                .strip_prefix("model-")
                .and_then(|name| name.strip_suffix(".gguf"))
            {
                cases.push(Case {
                    folder: folder.clone(),
                    kind: kind.parse()?,
                    path,
                });
            }
        }
    }
    ensure!(
        !cases.is_empty(),
        "no GGUF files below {}",
        text_folder().display()
    );
    Ok(cases)
}

fn each(check: impl Fn(&Case) -> Result<()>) -> Result<()> {
    cases()?
        .iter()
        .try_for_each(|case| check(case).with_context(|| case.path.display().to_string()))
}

fn entries(metadata: &Metadata) -> Vec<(String, Value)> {
    metadata
        .iter()
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect()
}

#[test]
fn our_reader_agrees_with_candle() -> Result<()> {
    each(|case| {
        let file = case.open()?;
        let mut reader = std::fs::File::open(&case.path)?;
        let content = Content::read(&mut reader)?;
        ensure!(content.metadata.len() == file.metadata().len());
        let tensors = file.tensors();
        ensure!(content.tensor_infos.len() == tensors.names().len());

        // Candle does not know the published names, so tensors are matched by their bytes.
        let mut theirs: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for name in content.tensor_infos.keys() {
            let tensor = content.tensor(&mut reader, name, &Device::Cpu)?;
            *theirs.entry(tensor.data()?.into_owned()).or_default() += 1;
        }
        for name in tensors.names() {
            let bytes = match tensors.quantized(&name, &Device::Cpu)? {
                Some(blocks) => blocks.data()?.into_owned(),
                None => {
                    let kind = file.stored_as(&name).context("not stored")?.ggml();
                    let dense = tensors.dense(&name, DType::F32, &Device::Cpu)?;
                    candle_core::quantized::QTensor::quantize(&dense, kind)?
                        .data()?
                        .into_owned()
                }
            };
            let count = theirs.get_mut(&bytes).with_context(|| name.clone())?;
            ensure!(*count > 0, "{name}");
            *count -= 1;
        }
        Ok(())
    })
}

#[test]
fn the_config_is_that_of_the_checkpoint() -> Result<()> {
    each(|case| {
        let (ours, published) = (case.open()?.config(), case.json("config.json")?);
        for (key, value) in published.as_object().context("no object")? {
            // Widths go through a rule, and early spellings are not repeated.
            if key.starts_with("block_") || key == "intermediate_size" {
                continue;
            }
            if let Some(own) = ours.get(key) {
                ensure!(own == value, "{key}: {own} for {value}");
            }
        }
        for key in [
            "layer_types",
            "hidden_size",
            "num_attention_heads",
            "conv_L_cache",
            "eos_token_id",
            "norm_eps",
        ] {
            ensure!(
                ours.get(key).is_some_and(|own| *own == published[key]),
                "{key}"
            );
        }
        let theta = published["rope_parameters"]
            .get("rope_theta")
            .unwrap_or(&published["rope_theta"]);
        ensure!(&ours["rope_parameters"]["rope_theta"] == theta);
        let info = case
            .open()?
            .tensors()
            .info("model.layers.0.feed_forward.w1.weight")
            .context("no w1")?;
        ensure!(ours["intermediate_size"] == info.shape[0]);
        ensure!(case.open()?.generation_config()["bos_token_id"] == published["bos_token_id"]);
        Ok(())
    })
}

#[test]
fn the_tokenizer_gives_the_reference_ids() -> Result<()> {
    let golden: Json =
        serde_json::from_slice(&std::fs::read(text_folder().join("common/golden.json"))?)?;
    let texts = golden["tokenizer"].as_array().context("no texts")?;
    each(|case| {
        let file = case.open()?;
        let ours = file.tokenizer()?;
        let published = Tokenizer::from_bytes(case.read("tokenizer.json")?, &Limits::default())?;
        ensure!(ours.vocab_size() == published.vocab_size());
        ensure!(ours.special_ids() == published.special_ids());
        for row in texts {
            let text = row["text"].as_str().context("no text")?;
            let ids = ours.encode(text, SpecialTokens::Parse, Bos::Add)?;
            ensure!(
                serde_json::to_value(&ids)? == row["ids"],
                "{text:?}: {ids:?}"
            );
            let plain = ours.encode(text, SpecialTokens::Parse, Bos::Omit)?;
            ensure!(
                serde_json::to_value(&plain)? == row["ids_no_special"],
                "{text:?}: {plain:?}"
            );
            ensure!(
                ours.decode(&ids, Specials::Keep)? == row["decoded"].as_str().context("no text")?
            );
            for special in [SpecialTokens::Parse, SpecialTokens::Literal] {
                ensure!(
                    ours.encode(text, special, Bos::Add)?
                        == published.encode(text, special, Bos::Add)?
                );
            }
        }
        ensure!(
            file.chat_template()?.map(str::as_bytes)
                == Some(case.read("chat_template.jinja")?.as_slice())
        );
        Ok(())
    })
}

#[test]
fn a_file_we_write_has_the_same_metadata_types_and_bytes() -> Result<()> {
    each(|case| {
        let folder = tempfile::tempdir()?;
        let theirs = case.open()?;
        let ours = case.rewrite(&folder.path().join("model.gguf"))?;
        let (our_entries, their_entries) = (entries(ours.metadata()), entries(theirs.metadata()));
        for (ours, theirs) in our_entries.iter().zip(&their_entries) {
            ensure!(ours == theirs, "{ours:?} for {theirs:?}");
        }
        ensure!(our_entries.len() == their_entries.len());

        let (our_tensors, their_tensors) = (ours.tensors(), theirs.tensors());
        ensure!(our_tensors.names() == their_tensors.names());
        for name in their_tensors.names() {
            ensure!(ours.stored_as(&name) == theirs.stored_as(&name), "{name}");
            ensure!(
                our_tensors.info(&name) == their_tensors.info(&name),
                "{name}"
            );
        }
        Ok(())
    })?;
    // Offsets, padding and blocks too: the files are the same.
    each(|case| {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("model.gguf");
        case.rewrite(&path)?;
        ensure!(
            std::fs::read(&path)? == std::fs::read(&case.path)?,
            "the bytes differ"
        );
        Ok(())
    })
}
