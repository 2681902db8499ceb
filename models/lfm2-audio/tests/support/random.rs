//! Checkpoints of random numbers, of any size.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use lfm2_audio::shapes::Shapes;
use lfm2_hub::{Limits, SafetensorsSource, TensorSource};
use lfm2_nn::{Device, Tensor};

/// Numbers between -1 and 1 that depend on the seed alone.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        (((self.next() + 1.0) / 2.0 * limit as f32) as u32).min(limit - 1)
    }

    pub(crate) fn frames(&mut self, count: usize, codebooks: usize) -> Vec<Vec<u32>> {
        let codes = |numbers: &mut Self| (0..codebooks).map(|_| numbers.below(2048)).collect();
        (0..count).map(|_| codes(self)).collect()
    }
}

/// Tensors that keep activations near one.
pub(crate) fn tensors(shapes: &Shapes, seed: u64) -> Result<HashMap<String, Tensor>> {
    let mut numbers = Numbers::new(seed);
    let mut tensors = HashMap::new();
    for (name, shape) in shapes {
        let count: usize = shape.iter().product();
        let inputs: usize = shape.iter().skip(1).product();
        let scale = 1.7 / (inputs.max(1) as f32).sqrt();
        let leaf = name.rsplit('.').next().unwrap_or_default();
        let norm = name.contains("norm") && leaf == "weight";
        let value = |r: f32| match leaf {
            "running_var" | "cluster_usage" => 1.0 + 0.5 * r,
            "scale" => 0.3 + 0.05 * r,
            "bias" | "running_mean" => 0.1 * r,
            _ if norm => 1.0 + 0.1 * r,
            _ if name.contains("emb") => r,
            _ => scale * r,
        };
        let values: Vec<f32> = (0..count).map(|_| value(numbers.next())).collect();
        let tensor = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)?;
        tensors.insert(name.clone(), tensor);
    }
    Ok(tensors)
}

/// Such tensors as a file.
pub(crate) fn source(tensors: &HashMap<String, Tensor>) -> Result<Arc<dyn TensorSource>> {
    let bytes = safetensors::serialize(tensors, None)?;
    let source = SafetensorsSource::from_bytes("random", bytes, &Limits::default())?;
    Ok(Arc::new(source))
}
