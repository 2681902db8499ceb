//! [`SyntheticSource`]: random weights of any shape, made when they are asked for.
//!
//! For measuring speed and memory of models whose weights are not at hand. The numbers mean nothing,
//! but activations stay finite: a linear weight has a standard deviation of `1/sqrt(in)`, and
//! quantised blocks are written as bytes directly, without a detour through floats.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};
use half::f16;

use crate::tensors::{dequantized, row_in_blocks};
use crate::{Error, Result, StoredType, TensorInfo, TensorSource};

/// A [`TensorSource`] of random numbers that depend only on the seed and the tensor's name.
#[derive(Debug)]
pub struct SyntheticSource {
    tensors: HashMap<String, TensorInfo>,
    seed: u64,
}

impl SyntheticSource {
    /// Random tensors of the given names and shapes.
    ///
    /// `linear` is how matrices are stored, `embedding` how the embedding table and the output head
    /// are. Norms, convolution kernels, routers and biases are `F32`, and so is a matrix whose rows
    /// do not divide into blocks of 256.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a storage other than `F32`, `F16`, `BF16`, `Q4_0`, `Q8_0`, `Q4_K`
    /// and `Q6_K`.
    pub fn new(
        shapes: impl IntoIterator<Item = (String, Vec<usize>)>,
        linear: StoredType,
        embedding: StoredType,
        seed: u64,
    ) -> Result<Self> {
        let tensors = shapes.into_iter().map(|(name, shape)| {
            let wanted = match Role::of(&name, &shape) {
                Role::Embedding => embedding,
                _ => linear,
            };
            (name, shape, wanted)
        });
        check_supported(embedding)?;
        Self::typed(tensors, seed)
    }

    /// Random tensors of the given names, shapes and types, with the exceptions of [`new`](Self::new).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn typed(
        tensors: impl IntoIterator<Item = (String, Vec<usize>, StoredType)>,
        seed: u64,
    ) -> Result<Self> {
        let info = |(name, shape, wanted): (String, Vec<usize>, StoredType)| {
            check_supported(wanted)?;
            let row = shape.last().copied().unwrap_or(1);
            let stored = match (Role::of(&name, &shape), wanted) {
                (Role::Norm | Role::Small, _) => StoredType::Dense(DType::F32),
                (_, StoredType::Quantized(kind)) if row_in_blocks(kind, row).is_none() => {
                    StoredType::Dense(DType::F32)
                }
                (_, wanted) => wanted,
            };
            Ok((name, TensorInfo { shape, stored }))
        };
        Ok(Self {
            tensors: tensors.into_iter().map(info).collect::<Result<_>>()?,
            seed,
        })
    }

    fn find(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors.get(name).ok_or_else(|| Error::MissingTensor {
            name: name.to_owned(),
        })
    }

    fn random(&self, name: &str) -> Random {
        // FNV-1a: stable over platforms and versions, unlike the standard hasher.
        let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        Random(hash ^ self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

impl TensorSource for SyntheticSource {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.tensors.get(name).cloned()
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let info = self.find(name)?;
        if let (StoredType::Quantized(kind), Some(blocks)) = (info.stored, self.blocks(name)?) {
            let numbers = dequantized(blocks, kind, &info.shape)?;
            return Ok(numbers.to_dtype(dtype)?.to_device(device)?);
        }
        let count: usize = info.shape.iter().product();
        let deviation = deviation(&info.shape);
        let mut random = self.random(name);
        let values: Vec<f32> = match Role::of(name, &info.shape) {
            Role::Norm => vec![1.0; count],
            _ => (0..count)
                .map(|_| random.symmetric() * deviation * UNIFORM_WIDTH)
                .collect(),
        };
        Ok(
            Tensor::from_vec(values, info.shape.as_slice(), &Device::Cpu)?
                .to_dtype(dtype)?
                .to_device(device)?,
        )
    }

    fn quantized(&self, name: &str, device: &Device) -> Result<Option<Arc<QTensor>>> {
        let info = self.find(name)?;
        let StoredType::Quantized(kind) = info.stored else {
            return Ok(None);
        };
        let row = info.shape.last().copied().unwrap_or_default();
        let blocks = match self.blocks(name)? {
            Some(blocks) if row.is_multiple_of(kind.block_size()) => blocks,
            _ => return Ok(None),
        };
        let storage = QStorage::from_data(blocks, device, kind)?;
        let tensor = QTensor::new(storage, info.shape.as_slice())?;
        Ok(Some(Arc::new(tensor)))
    }

    fn blocks(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>> {
        let info = self.find(name)?;
        let StoredType::Quantized(kind) = info.stored else {
            return Ok(None);
        };
        let count = info.bytes() as usize / kind.type_size();
        let (deviation, random) = (deviation(&info.shape), self.random(name));
        random_blocks(kind, count, deviation, random).map(|data| Some(data.into()))
    }
}

/// Half the width of a uniform distribution of standard deviation 1.
const UNIFORM_WIDTH: f32 = 1.732_050_8;

/// What a tensor is for, told from its name and shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Linear,
    Embedding,
    Norm,
    Small,
}

impl Role {
    fn of(name: &str, shape: &[usize]) -> Self {
        let last = |suffix: &str| name.ends_with(suffix);
        if last("norm.weight") || last("layernorm.weight") || last("running_var") {
            Self::Norm
        } else if last("embed_tokens.weight") || last("lm_head.weight") {
            Self::Embedding
        } else if shape.len() < 2
            || last("conv.conv.weight")
            || last("feed_forward.gate.weight")
            || last("bias")
        {
            Self::Small
        } else {
            Self::Linear
        }
    }
}

fn deviation(shape: &[usize]) -> f32 {
    let fan_in = shape.last().copied().unwrap_or(1).max(1);
    1.0 / (fan_in as f32).sqrt()
}

fn check_supported(stored: StoredType) -> Result<()> {
    match stored {
        StoredType::Dense(DType::F32 | DType::F16 | DType::BF16) => Ok(()),
        StoredType::Quantized(
            GgmlDType::Q4_0 | GgmlDType::Q8_0 | GgmlDType::Q4K | GgmlDType::Q6K,
        ) => Ok(()),
        other => Err(Error::Unsupported {
            what: format!("random weights stored as {other:?}"),
            hint: "F32, F16, BF16, Q4_0, Q8_0, Q4_K and Q6_K are".to_owned(),
        }),
    }
}

/// `count` blocks with random codes and one fixed scale, so that values have mean 0 (give or take
/// half a step) and the given standard deviation.
fn random_blocks(
    kind: GgmlDType,
    count: usize,
    deviation: f32,
    mut random: Random,
) -> Result<Vec<u8>> {
    // Standard deviation of codes that are uniform over 4, 6 and 8 bits.
    const CODES_4: f32 = 4.609_772;
    const CODES_6: f32 = 18.472_953;
    const CODES_8: f32 = 73.899_03;
    // The K types scale twice; the inner scale is the same for all parts of a block.
    const INNER: u8 = 8;
    let outer = |codes: f32| f16::from_f32(deviation / codes).to_le_bytes();
    let nested = |codes: f32| f16::from_f32(deviation / (codes * f32::from(INNER))).to_le_bytes();
    let mut data = vec![0; count * kind.type_size()];
    random.fill(&mut data);
    for block in data.chunks_exact_mut(kind.type_size()) {
        match kind {
            GgmlDType::Q4_0 => block[..2].copy_from_slice(&outer(CODES_4)),
            GgmlDType::Q8_0 => block[..2].copy_from_slice(&outer(CODES_8)),
            GgmlDType::Q4K => {
                let minimum = 7.5 * deviation / (CODES_4 * f32::from(INNER));
                block[..2].copy_from_slice(&nested(CODES_4));
                block[2..4].copy_from_slice(&f16::from_f32(minimum).to_le_bytes());
                // Eight scales and eight minima of six bits, all `INNER`.
                block[4..12].fill(INNER);
                block[12..16].fill(INNER | INNER << 4);
            }
            GgmlDType::Q6K => {
                block[192..208].fill(INNER);
                block[208..].copy_from_slice(&nested(CODES_6));
            }
            other => check_supported(StoredType::Quantized(other))?,
        }
    }
    Ok(data)
}

/// SplitMix64: one multiplication chain per eight bytes, and good enough for weights.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in `[-1, 1)`.
    fn symmetric(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}
