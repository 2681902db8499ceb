//! What it costs to round activations: logits with weights in blocks against logits with the same
//! weights as numbers.

mod support;

use std::sync::Arc;

use anyhow::Result;
use lfm2_hub::gguf::Quantization;
use lfm2_hub::{InBlocks, TensorSource};
use lfm2_nn::{Accuracy, Tensor};
use lfm2_text::{LoadOptions, TextConfig, TextModel, shapes};
use support::{Dequantized, ensure_accurate, for_every_case, id_rows, logits};

const KINDS: [Quantization; 8] = [
    Quantization::Q4_0,
    Quantization::Q4_1,
    Quantization::Q5_0,
    Quantization::Q5_1,
    Quantization::Q8_0,
    Quantization::Q4K,
    Quantization::Q5K,
    Quantization::Q6K,
];

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
            let blocks = Arc::new(InBlocks::new(source, kind));
            let [found, exact] = both(&case.config()?, blocks, &ids)?;
            ensure_accurate(&kind.to_string(), &case.config()?, &found, &exact)?;
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
