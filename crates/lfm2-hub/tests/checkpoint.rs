//! Whole checkpoints: opened, and every tensor compared with the reference reader's.
#![allow(clippy::unwrap_used, clippy::panic)] // also in the helpers of tests

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use lfm2_hub::{Checkpoint, Limits, Mapping, ModelSource, OpenOptions, SpecialTokens, StoredType};

/// The committed cases, or all of those in the folder that `LFM2_GOLDEN` names.
fn golden() -> PathBuf {
    lfm2_golden::folder().unwrap_or_else(|| PathBuf::from("tests/golden"))
}

fn folders() -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(golden().join("text"))?;
    let paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(paths.into_iter().filter(|path| path.is_dir()).collect())
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect())
}

fn open(source: &ModelSource) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::open(source, &OpenOptions::default())?;
    assert_eq!(checkpoint.origin(), source.to_string());
    assert!(checkpoint.config()["model_type"].is_string(), "{source}");
    let tokenizer = checkpoint.tokenizer()?;
    assert!(
        !tokenizer
            .encode("a b", SpecialTokens::Parse, lfm2_hub::Bos::Add)?
            .is_empty()
    );
    assert!(
        checkpoint
            .chat_template()?
            .is_some_and(|template| template.contains("messages")),
        "{source}"
    );
    assert!(checkpoint.generation_config().is_some(), "{source}");
    Ok(checkpoint)
}

fn same(left: &Tensor, right: &Tensor) -> Result<bool> {
    let values = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
    Ok(left.dims() == right.dims() && values(left)? == values(right)?)
}

#[test]
fn golden_checkpoints_hold_what_the_reference_reads() -> Result<()> {
    let mut opened = 0;
    for folder in folders()? {
        for path in files(&folder, "gguf")? {
            let checkpoint = open(&ModelSource::Gguf(path))?;
            assert!(
                checkpoint
                    .tensors()
                    .info("model.embed_tokens.weight")
                    .is_some()
            );
            opened += 1;
        }
        let weights: Vec<PathBuf> = files(&folder, "safetensors")?;
        let weights = weights
            .into_iter()
            .filter(|path| !path.ends_with("golden.safetensors"));
        let mut checkpoint = None;
        for path in weights {
            let checkpoint = match &mut checkpoint {
                Some(checkpoint) => checkpoint,
                none => none.insert(open(&ModelSource::from_path(&*folder))?),
            };
            for (name, expected) in candle_core::safetensors::load(&path, &Device::Cpu)? {
                let tensors = checkpoint.tensors();
                let info = tensors.info(&name).with_context(|| name.clone())?;
                assert_eq!(
                    (info.shape.as_slice(), info.stored),
                    (expected.dims(), StoredType::Dense(expected.dtype()))
                );
                assert!(
                    same(&tensors.dense(&name, DType::F32, &Device::Cpu)?, &expected)?,
                    "{name}"
                );
                assert!(tensors.quantized(&name, &Device::Cpu)?.is_none());
            }
            opened += 1;
        }
    }
    assert!(opened > 0, "no checkpoints under {}", golden().display());
    Ok(())
}

#[test]
fn both_mappings_and_memory_give_the_same_tensors() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tensor = Tensor::arange(0_f32, 24., &Device::Cpu)?
        .reshape((4, 6))?
        .to_dtype(DType::BF16)?;
    let path = folder.path().join("model.safetensors");
    lfm2_hub::write_safetensors(
        &path,
        [("w", &tensor)],
        &[].into(),
        lfm2_hub::Overwrite::Refuse,
    )?;
    std::fs::write(folder.path().join("config.json"), "{}")?;
    let source = ModelSource::from_path(folder.path());
    for mapping in [Mapping::Map, Mapping::Read] {
        let checkpoint = Checkpoint::open(&source, &OpenOptions::default().mapping(mapping))?;
        assert!(
            same(
                &checkpoint.tensors().dense("w", DType::F32, &Device::Cpu)?,
                &tensor
            )?,
            "{mapping:?}"
        );
    }
    Ok(())
}

#[test]
fn a_gguf_file_can_be_in_memory() -> Result<()> {
    let mut found = 0;
    for folder in folders()? {
        for path in files(&folder, "gguf")? {
            let checkpoint = Checkpoint::from_memory_gguf(
                "embedded",
                std::fs::read(&path)?,
                &Limits::default(),
            )?;
            let opened = open(&ModelSource::Gguf(path))?;
            assert_eq!(checkpoint.config(), opened.config());
            assert_eq!(
                checkpoint.tensors().names().len(),
                opened.tensors().names().len()
            );
            found += 1;
        }
    }
    assert!(found > 0);
    Ok(())
}
