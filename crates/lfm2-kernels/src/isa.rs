//! Which vector instructions to use: capability tokens, detection, and the override for tests.

use std::fmt;

/// Proof that AVX2, FMA and F16C were detected on this CPU.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// The token, when this CPU has the instructions. The answer is cached by the standard library.
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }
}

/// Proof that AVX-512 F, BW, DQ, VL and VNNI were detected on this CPU, and all of [`Avx2`].
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx512(());

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// The token, when this CPU has the instructions. The answer is cached by the standard library.
    pub fn detect() -> Option<Self> {
        Avx2::detect()?;
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        found.then_some(Self(()))
    }
}

/// Proof that AVX-512 BF16 was detected on this CPU, and all of [`Avx512`].
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx512Bf16(());

#[cfg(target_arch = "x86_64")]
impl Avx512Bf16 {
    /// The token, when this CPU has the instructions. The answer is cached by the standard library.
    pub fn detect() -> Option<Self> {
        Avx512::detect()?;
        is_x86_feature_detected!("avx512bf16").then_some(Self(()))
    }
}

/// Proof of nothing: portable code that runs everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scalar;

/// An instruction set this CPU has.
///
/// A value can only be made after detection, so holding one is proof that its instructions may be
/// executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Portable code.
    Scalar(Scalar),
    /// 256-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// 512-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// Why a named instruction set cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IsaError {
    /// The name means nothing.
    #[error("LFM2_ISA: expected scalar, avx2 or avx512, found \"{name}\"")]
    Unknown {
        /// The name as given.
        name: String,
    },
    /// The CPU this runs on does not have it.
    #[error("LFM2_ISA: this CPU has no {name}")]
    Unavailable {
        /// The name as given.
        name: String,
    },
}

impl Isa {
    /// Every name [`parse`](Self::parse) knows, slowest first.
    pub const NAMES: [&str; 3] = ["scalar", "avx2", "avx512"];

    /// The fastest instruction set of this CPU.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(token) = Avx512::detect() {
                return Self::Avx512(token);
            }
            if let Some(token) = Avx2::detect() {
                return Self::Avx2(token);
            }
        }
        Self::Scalar(Scalar)
    }

    /// The instruction set called `scalar`, `avx2` or `avx512`.
    ///
    /// # Errors
    /// When the name is another one, or this CPU does not have the instructions.
    pub fn parse(name: &str) -> Result<Self, IsaError> {
        let isa = match name {
            "scalar" => Some(Self::Scalar(Scalar)),
            #[cfg(target_arch = "x86_64")]
            "avx2" => Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            "avx512" => Avx512::detect().map(Self::Avx512),
            _ if Self::NAMES.contains(&name) => None,
            _ => {
                return Err(IsaError::Unknown {
                    name: name.to_owned(),
                });
            }
        };
        isa.ok_or_else(|| IsaError::Unavailable {
            name: name.to_owned(),
        })
    }

    /// The instruction set named by the environment variable `LFM2_ISA`, or else the
    /// [`best`](Self::best).
    ///
    /// # Errors
    /// When the variable holds an unknown name, or one this CPU does not have.
    pub fn from_env() -> Result<Self, IsaError> {
        match std::env::var_os("LFM2_ISA") {
            None => Ok(Self::best()),
            Some(name) => Self::parse(&name.to_string_lossy()),
        }
    }

    /// Every instruction set of this CPU, slowest first.
    pub fn available() -> Vec<Self> {
        Self::NAMES
            .iter()
            .filter_map(|name| Self::parse(name).ok())
            .collect()
    }

    /// The name [`parse`](Self::parse) takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
