//! The element types a GGUF tensor can have here, and what each of them weighs.

use std::fmt;
use std::str::FromStr;

use candle_core::DType;
use candle_core::quantized::GgmlDType;

use crate::{Error, Result, StoredType};

/// How the numbers of a GGUF tensor are stored, and what a file can be quantised to.
///
/// The number in a name is the bits per weight before scales; `_0` types have one scale per 32
/// weights, `_1` types a scale and a minimum, `K` types two levels of scales per 256 weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quantization {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 16-bit brain floats.
    BF16,
    /// 8 bits, 32 weights to a scale.
    Q8_0,
    /// 4 bits, 32 weights to a scale.
    Q4_0,
    /// 4 bits, 32 weights to a scale and a minimum.
    Q4_1,
    /// 5 bits, 32 weights to a scale.
    Q5_0,
    /// 5 bits, 32 weights to a scale and a minimum.
    Q5_1,
    /// 4 bits, 256 weights to a block.
    Q4K,
    /// 5 bits, 256 weights to a block.
    Q5K,
    /// 6 bits, 256 weights to a block.
    Q6K,
}

/// One row of the table of types.
struct Facts {
    kind: Quantization,
    name: &'static str,
    /// Number of the type in a tensor entry.
    type_id: u32,
    /// Number in `general.file_type` of a file that is mostly of this type.
    file_type: u32,
    block: usize,
    block_bytes: usize,
    ggml: GgmlDType,
}

const fn facts(
    kind: Quantization,
    name: &'static str,
    (type_id, file_type): (u32, u32),
    (block, block_bytes): (usize, usize),
    ggml: GgmlDType,
) -> Facts {
    Facts {
        kind,
        name,
        type_id,
        file_type,
        block,
        block_bytes,
        ggml,
    }
}

#[rustfmt::skip] // One type per line.
const TABLE: [Facts; 11] = [
    facts(Quantization::F32, "F32", (0, 0), (1, 4), GgmlDType::F32),
    facts(Quantization::F16, "F16", (1, 1), (1, 2), GgmlDType::F16),
    facts(Quantization::BF16, "BF16", (30, 32), (1, 2), GgmlDType::BF16),
    facts(Quantization::Q8_0, "Q8_0", (8, 7), (32, 34), GgmlDType::Q8_0),
    facts(Quantization::Q4_0, "Q4_0", (2, 2), (32, 18), GgmlDType::Q4_0),
    facts(Quantization::Q4_1, "Q4_1", (3, 3), (32, 20), GgmlDType::Q4_1),
    facts(Quantization::Q5_0, "Q5_0", (6, 8), (32, 22), GgmlDType::Q5_0),
    facts(Quantization::Q5_1, "Q5_1", (7, 9), (32, 24), GgmlDType::Q5_1),
    facts(Quantization::Q4K, "Q4_K", (12, 14), (256, 144), GgmlDType::Q4K),
    facts(Quantization::Q5K, "Q5_K", (13, 16), (256, 176), GgmlDType::Q5K),
    facts(Quantization::Q6K, "Q6_K", (14, 18), (256, 210), GgmlDType::Q6K),
];

/// Names of the types other programs write and this one does not read, for error messages.
#[rustfmt::skip] // A few types per line.
const FOREIGN: [(u32, &str); 22] = [
    (9, "Q8_1"), (10, "Q2_K"), (11, "Q3_K"), (15, "Q8_K"),
    (16, "IQ2_XXS"), (17, "IQ2_XS"), (18, "IQ3_XXS"), (19, "IQ1_S"), (20, "IQ4_NL"),
    (21, "IQ3_S"), (22, "IQ2_S"), (23, "IQ4_XS"), (29, "IQ1_M"),
    (24, "I8"), (25, "I16"), (26, "I32"), (27, "I64"), (28, "F64"),
    (34, "TQ1_0"), (35, "TQ2_0"), (39, "MXFP4"), (40, "NVFP4"),
];

impl Quantization {
    /// Every type, in the order of the documentation.
    pub const ALL: [Self; 11] = {
        let mut all = [Self::F32; 11];
        let mut i = 0;
        while i < all.len() {
            all[i] = TABLE[i].kind;
            i += 1;
        }
        all
    };

    fn facts(self) -> &'static Facts {
        // The table is in the order of the variants; a test holds it so.
        &TABLE[self as usize]
    }

    /// The type's name as other GGUF programs spell it, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The number that stands for this type in a tensor entry.
    pub(super) fn type_id(self) -> u32 {
        self.facts().type_id
    }

    /// The value of `general.file_type` for a file that is mostly of this type.
    pub fn file_type(self) -> u32 {
        self.facts().file_type
    }

    /// This type where it is one of numbers, else `Q8_0`: for what 4 bits would spoil.
    pub fn at_least_8_bits(self) -> Self {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => self,
            _ => Self::Q8_0,
        }
    }

    /// Weights per block; a row of a tensor is a whole number of blocks.
    pub fn block_size(self) -> usize {
        self.facts().block
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.facts().block_bytes
    }

    /// Bits per weight, scales included.
    pub fn bits_per_weight(self) -> f64 {
        (self.block_bytes() * 8) as f64 / self.block_size() as f64
    }

    /// Candle's name of the type.
    pub fn ggml(self) -> GgmlDType {
        self.facts().ggml
    }

    /// What a [`TensorInfo`](crate::TensorInfo) says of a tensor of this type.
    pub fn stored(self) -> StoredType {
        match self {
            Self::F32 => StoredType::Dense(DType::F32),
            Self::F16 => StoredType::Dense(DType::F16),
            Self::BF16 => StoredType::Dense(DType::BF16),
            _ => StoredType::Quantized(self.ggml()),
        }
    }

    /// Bytes of `elements` weights; `None` when that overflows or is no whole number of blocks.
    pub(super) fn bytes(self, elements: usize) -> Option<usize> {
        let block = self.block_size();
        if !elements.is_multiple_of(block) {
            return None;
        }
        (elements / block).checked_mul(self.block_bytes())
    }

    /// The type with the number `id` in a tensor entry.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for any other number, naming the type where it is known.
    pub(super) fn from_type_id(id: u32, tensor: &str) -> Result<Self> {
        if let Some(found) = TABLE.iter().find(|f| f.type_id == id) {
            return Ok(found.kind);
        }
        let name = FOREIGN
            .iter()
            .find(|(foreign, _)| *foreign == id)
            .map_or("unknown", |(_, name)| name);
        Err(Error::Unsupported {
            what: format!("type {name} ({id}) of tensor \"{tensor}\""),
            hint: format!("supported types are {}", Self::list()),
        })
    }

    fn list() -> String {
        TABLE.map(|f| f.name).join(", ")
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Quantization {
    type Err = Error;

    /// Reads a name such as `q4_0`, `Q4_K` or `q4k`, in any case.
    fn from_str(text: &str) -> Result<Self> {
        let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
        TABLE
            .iter()
            .find(|f| plain(f.name) == plain(text))
            .map(|f| f.kind)
            .ok_or_else(|| {
                let hint = TABLE
                    .iter()
                    .find(|f| plain(text).starts_with(&plain(f.name)))
                    .map_or(String::new(), |f| {
                        format!(" (did you mean {}?)", f.name.to_ascii_lowercase())
                    });
                Error::InvalidInput(format!(
                    "unknown quantisation \"{text}\"{hint}, expected one of {}",
                    Self::list()
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_variants() {
        for kind in Quantization::ALL {
            assert_eq!(kind.facts().kind, kind);
        }
    }

    #[test]
    fn block_sizes_agree_with_candle() {
        for kind in Quantization::ALL {
            assert_eq!(kind.block_size(), kind.ggml().block_size(), "{kind}");
            assert_eq!(kind.block_bytes(), kind.ggml().type_size(), "{kind}");
        }
    }

    #[test]
    fn names_are_read_in_any_spelling() {
        for kind in Quantization::ALL {
            assert_eq!(
                kind.name().to_lowercase().parse::<Quantization>().unwrap(),
                kind
            );
        }
        assert_eq!("q4k".parse::<Quantization>().unwrap(), Quantization::Q4K);
        let mixed = "Q4_K_M".parse::<Quantization>().unwrap_err();
        assert!(mixed.to_string().contains("did you mean q4_k?"), "{mixed}");
        assert!(
            "q3_k"
                .parse::<Quantization>()
                .unwrap_err()
                .to_string()
                .contains("Q6_K")
        );
    }
}
