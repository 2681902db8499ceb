//! What it costs to round activations: logits with weights in blocks against logits with the same
//! weights as numbers.

mod support;

use std::sync::Arc;

use anyhow::Result;
use candle_core::quantized::{GgmlDType, QTensor};
use lfm2_hub::gguf::Quantization;
use lfm2_hub::{StoredType, TensorInfo, TensorSource};
use lfm2_nn::{Accuracy, DType, Device, Tensor};
use lfm2_text::{LoadOptions, TextConfig, TextModel, shapes};
use support::{Dequantized, ensure_accurate, for_every_case, id_rows, logits};

const KINDS: [GgmlDType; 8] = [
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];

/// A checkpoint with its matrices in blocks, where their rows divide into such; embeddings are at
/// least of 8 bits, as in published files.
struct InBlocks {
    source: Arc<dyn TensorSource>,
    kind: GgmlDType,
}

impl InBlocks {
    fn kind_of(&self, name: &str) -> Option<GgmlDType> {
        let matrix = ["proj", "w1", "w2", "w3"].iter().any(|part| {
            name.rsplit('.').nth(1) == Some(part) || name.ends_with(&format!("_{part}"))
        });
        let kind = if name.contains("embed_tokens") || name.contains("lm_head") {
            GgmlDType::Q8_0
        } else if matrix || name.contains("_proj.weight") {
            self.kind
        } else {
            return None;
        };
        let info = self.source.info(name)?;
        let row = info.shape.last()?;
        // Stacks that are cut open when they are loaded stay as they are.
        (row % kind.block_size() == 0 && info.shape.len() == 2).then_some(kind)
    }
}

impl TensorSource for InBlocks {
    fn names(&self) -> Vec<String> {
        self.source.names()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let info = self.source.info(name)?;
        Some(match self.kind_of(name) {
            Some(kind) => TensorInfo {
                stored: StoredType::Quantized(kind),
                ..info
            },
            None => info,
        })
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> lfm2_hub::Result<Tensor> {
        match self.quantized(name, device)? {
            Some(blocks) => Ok(blocks.dequantize(device)?.to_dtype(dtype)?),
            None => self.source.dense(name, dtype, device),
        }
    }

    fn quantized(&self, name: &str, device: &Device) -> lfm2_hub::Result<Option<Arc<QTensor>>> {
        let Some(kind) = self.kind_of(name) else {
            return Ok(None);
        };
        let numbers = self.source.dense(name, DType::F32, device)?;
        Ok(Some(Arc::new(QTensor::quantize(&numbers, kind)?)))
    }
}

/// Logits with the kernels for blocks, and with the weights as numbers.
fn both(config: &TextConfig, tensors: Arc<dyn TensorSource>, ids: &[u32]) -> Result<[Tensor; 2]> {
    let options = LoadOptions::default();
    let exact = Arc::new(Dequantized(Arc::clone(&tensors)));
    let without_rounding = options.clone().with_accuracy(Accuracy::Exact);
    let exact = TextModel::from_tensors(config.clone(), exact, &without_rounding)?;
    let packed = TextModel::from_tensors(config.clone(), tensors, &options)?;
    Ok([logits(&packed, ids)?, logits(&exact, ids)?])
}

#[test]
fn every_checkpoint_keeps_its_logits_in_every_format() -> Result<()> {
    for_every_case(|case| {
        let ids = id_rows(case.get("fwd.input_ids")?)?.remove(0);
        for kind in KINDS {
            let source = case.checkpoint_tensors()?;
            let blocks = Arc::new(InBlocks { source, kind });
            let [found, exact] = both(&case.config()?, blocks, &ids)?;
            ensure_accurate(&format!("{kind:?}"), &case.config()?, &found, &exact)?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "a model of full size: a minute in a release build"]
fn a_random_model_of_full_size_keeps_its_logits() -> Result<()> {
    for kind in [
        Quantization::Q4_0,
        Quantization::Q4K,
        Quantization::Q6K,
        Quantization::Q8_0,
    ] {
        let shape = shapes::find("lfm2-350m")?;
        let source = shape.tensors(kind, 7)?;
        let ids: Vec<u32> = (0..64).map(|i| (i * 7919 + 13) % 65_536).collect();
        let [found, exact] = both(&shape.config()?, Arc::new(source), &ids)?;
        ensure_accurate(&kind.to_string(), &shape.config()?, &found, &exact)?;
    }
    Ok(())
}
