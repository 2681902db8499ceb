//! Random weights: stable, finite and of the storage that was asked for.
#![allow(clippy::unwrap_used, clippy::panic)] // also in the helpers of tests

use std::sync::Arc;

use anyhow::Result;
use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device};
use lfm2_hub::gguf::Quantization;
use lfm2_hub::{ErrorKind, InBlocks, StoredType, SyntheticSource, TensorSource};

const Q4_0: StoredType = StoredType::Quantized(GgmlDType::Q4_0);
const Q4_K: StoredType = StoredType::Quantized(GgmlDType::Q4K);
const Q8_0: StoredType = StoredType::Quantized(GgmlDType::Q8_0);
const F32: StoredType = StoredType::Dense(DType::F32);

fn shapes() -> Vec<(String, Vec<usize>)> {
    [
        ("model.embed_tokens.weight", vec![64, 256]),
        ("model.layers.0.conv.in_proj.weight", vec![768, 256]),
        ("model.layers.0.conv.conv.weight", vec![256, 1, 3]),
        ("model.layers.0.operator_norm.weight", vec![256]),
        ("model.layers.1.feed_forward.gate.weight", vec![8, 256]),
        ("model.layers.1.feed_forward.expert_bias", vec![8]),
        (
            "model.layers.1.feed_forward.experts.w1.weight",
            vec![8, 32, 256],
        ),
        ("model.layers.1.odd.weight", vec![4, 33]),
    ]
    .map(|(name, shape)| (name.to_owned(), shape))
    .into()
}

fn source(linear: StoredType, embedding: StoredType, seed: u64) -> SyntheticSource {
    SyntheticSource::new(shapes(), linear, embedding, seed).unwrap()
}

fn values(source: &SyntheticSource, name: &str) -> Result<Vec<f32>> {
    Ok(source
        .dense(name, DType::F32, &Device::Cpu)?
        .flatten_all()?
        .to_vec1()?)
}

#[test]
fn storage_follows_the_role() {
    let source = source(Q4_0, Q8_0, 1);
    let stored = |name: &str| source.info(name).unwrap().stored;
    assert_eq!(stored("model.embed_tokens.weight"), Q8_0);
    assert_eq!(stored("model.layers.0.conv.in_proj.weight"), Q4_0);
    assert_eq!(
        stored("model.layers.1.feed_forward.experts.w1.weight"),
        Q4_0
    );
    for name in [
        "0.conv.conv.weight",
        "0.operator_norm.weight",
        "1.feed_forward.gate.weight",
    ] {
        assert_eq!(stored(&format!("model.layers.{name}")), F32, "{name}");
    }
    // A row that ends within a block, where blocks are short.
    let odd = "model.layers.1.odd.weight";
    assert_eq!(stored(odd), Q4_0);
    let of_256 = SyntheticSource::new(shapes(), Q4_K, Q8_0, 1).unwrap();
    assert_eq!(of_256.info(odd).unwrap().stored, F32);
    let blocks = source
        .quantized("model.embed_tokens.weight", &Device::Cpu)
        .unwrap()
        .unwrap();
    assert_eq!(
        (blocks.dtype(), blocks.shape().dims()),
        (GgmlDType::Q8_0, [64, 256].as_slice())
    );
    assert!(
        source
            .quantized("model.layers.0.operator_norm.weight", &Device::Cpu)
            .unwrap()
            .is_none()
    );
}

#[test]
fn values_have_the_promised_spread_in_every_storage() -> Result<()> {
    let kinds = [
        GgmlDType::Q4_0,
        GgmlDType::Q8_0,
        GgmlDType::Q4K,
        GgmlDType::Q6K,
    ]
    .map(StoredType::Quantized);
    for linear in kinds
        .into_iter()
        .chain([DType::F32, DType::F16, DType::BF16].map(StoredType::Dense))
    {
        let values = values(
            &source(linear, Q8_0, 7),
            "model.layers.0.conv.in_proj.weight",
        )?;
        let count = values.len() as f32;
        let mean = values.iter().sum::<f32>() / count;
        let deviation = (values
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f32>()
            / count)
            .sqrt();
        assert!(
            (deviation * 16.0 - 1.0).abs() < 0.03,
            "{linear:?}: deviation {deviation}"
        );
        assert!(mean.abs() < 0.01, "{linear:?}: mean {mean}");
    }
    Ok(())
}

#[test]
fn norms_are_one() -> Result<()> {
    let values = values(
        &source(Q4_0, Q8_0, 1),
        "model.layers.0.operator_norm.weight",
    )?;
    assert!(values.iter().all(|value| *value == 1.0));
    Ok(())
}

#[test]
fn numbers_depend_on_seed_and_name_only() -> Result<()> {
    let name = "model.layers.0.conv.in_proj.weight";
    assert_eq!(
        values(&source(Q4_0, Q8_0, 1), name)?,
        values(&source(Q4_0, F32, 1), name)?
    );
    assert_ne!(
        values(&source(Q4_0, Q8_0, 1), name)?,
        values(&source(Q4_0, Q8_0, 2), name)?
    );
    let small = source(F32, F32, 1);
    let first = values(&small, "model.layers.1.feed_forward.gate.weight")?;
    assert_ne!(
        first[..8],
        values(&small, "model.layers.1.feed_forward.expert_bias")?[..]
    );
    Ok(())
}

/// Whoever needs whole blocks gets numbers, and those are the numbers of the blocks.
fn check_rows_that_end_within_a_block(source: &dyn TensorSource, name: &str) -> Result<()> {
    let info = source.info(name).unwrap();
    let blocks = source.blocks(name)?.unwrap().into_owned();
    assert_eq!((info.shape, blocks.len()), (vec![4, 33], 4 * 2 * 34));
    assert!(source.quantized(name, &Device::Cpu)?.is_none());
    let numbers = source.dense(name, DType::F32, &Device::Cpu)?;
    let numbers: Vec<Vec<f32>> = numbers.to_vec2()?;
    for (row, blocks) in numbers.iter().zip(blocks.chunks(2 * 34)) {
        assert_eq!(row.len(), 33);
        for (numbers, block) in row.chunks(32).zip(blocks.chunks(34)) {
            let scale = half::f16::from_le_bytes([block[0], block[1]]).to_f32();
            let levels = block[2..].iter().map(|&q| f32::from(q.cast_signed()));
            let expected: Vec<f32> = levels.map(|q| q * scale).collect();
            assert_eq!(numbers, &expected[..numbers.len()]);
        }
    }
    Ok(())
}

#[test]
fn rows_may_end_within_a_block() -> Result<()> {
    let name = "model.layers.1.odd.weight";
    check_rows_that_end_within_a_block(&source(Q8_0, Q8_0, 1), name)?;
    let dense = Arc::new(source(F32, F32, 1));
    let in_blocks = InBlocks::by_rule(dense.clone(), "test", |_| Some(Quantization::Q8_0));
    check_rows_that_end_within_a_block(&in_blocks, name)?;
    let rounded = in_blocks.dense(name, DType::F32, &Device::Cpu)?;
    let exact = dense.dense(name, DType::F32, &Device::Cpu)?;
    let error: f32 = (rounded - exact)?.abs()?.max_all()?.to_scalar()?;
    assert!(error > 0.0 && error < 0.002, "{error}");
    Ok(())
}

#[test]
fn unknown_names_and_storages_are_errors() {
    let error = source(Q4_0, Q8_0, 1)
        .dense("nothing", DType::F32, &Device::Cpu)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    for stored in [
        StoredType::Quantized(GgmlDType::Q2K),
        StoredType::Dense(DType::F64),
    ] {
        let error = SyntheticSource::new(shapes(), stored, Q8_0, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
