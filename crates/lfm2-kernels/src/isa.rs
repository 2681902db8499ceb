//! Which vector instructions to use: capability tokens, detection, and the override for tests.

use std::fmt;

#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected as has;
#[cfg(target_arch = "x86_64")]
use std::arch::is_x86_feature_detected as has;

/// A type whose values exist only after all conditions held.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
macro_rules! token {
    ($(#[$attribute:meta])* $name:ident: $($condition:expr),+) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(());

        impl $name {
            /// The token, when this CPU has the instructions. The answer is cached by the standard
            /// library.
            pub fn detect() -> Option<Self> {
                ($($condition)&&+).then_some(Self(()))
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
token! {
    /// Proof that AVX2, FMA and F16C were detected on this CPU.
    Avx2: has!("avx2"), has!("fma"), has!("f16c")
}

#[cfg(target_arch = "x86_64")]
token! {
    /// Proof that AVX-VNNI was detected on this CPU, and all of [`Avx2`].
    AvxVnni: Avx2::detect().is_some(), has!("avxvnni")
}

#[cfg(target_arch = "x86_64")]
token! {
    /// Proof that AVX-512 F, BW, DQ, VL and VNNI were detected on this CPU, and all of [`Avx2`].
    Avx512:
        Avx2::detect().is_some(),
        has!("avx512f"),
        has!("avx512bw"),
        has!("avx512dq"),
        has!("avx512vl"),
        has!("avx512vnni")
}

#[cfg(target_arch = "x86_64")]
token! {
    /// Proof that AVX-512 BF16 was detected on this CPU, and all of [`Avx512`].
    Avx512Bf16: Avx512::detect().is_some(), has!("avx512bf16")
}

#[cfg(target_arch = "aarch64")]
token! {
    /// Proof that NEON was detected on this CPU, whose numbers begin with the lowest byte.
    Neon: cfg!(target_endian = "little"), has!("neon")
}

#[cfg(target_arch = "aarch64")]
token! {
    /// Proof that the dot product of signed bytes was detected on this CPU, and all of [`Neon`].
    DotProd: Neon::detect().is_some(), has!("dotprod")
}

#[cfg(target_arch = "aarch64")]
token! {
    /// Proof that the dot product of unsigned with signed bytes was detected on this CPU, and all of
    /// [`DotProd`].
    I8mm: DotProd::detect().is_some(), has!("i8mm")
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
    /// 256-bit vectors, with a dot product of bytes.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    /// 512-bit vectors, with a dot product of bytes.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// 128-bit vectors.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// 128-bit vectors, with a dot product of signed bytes.
    #[cfg(target_arch = "aarch64")]
    DotProd(DotProd),
    /// 128-bit vectors, with a dot product of unsigned with signed bytes too.
    #[cfg(target_arch = "aarch64")]
    I8mm(I8mm),
}

/// Why a named instruction set cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IsaError {
    /// The name means nothing.
    #[error("LFM2_ISA: expected one of {}, found \"{name}\"", Isa::NAMES.join(", "))]
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
    /// Every name [`parse`](Self::parse) knows: portable code, then those of x86-64 and of aarch64,
    /// each slowest first.
    pub const NAMES: [&str; 7] = [
        "scalar", "avx2", "avxvnni", "avx512", "neon", "dotprod", "i8mm",
    ];

    /// The fastest instruction set of this CPU.
    pub fn best() -> Self {
        let mut names = Self::NAMES.iter().rev();
        names
            .find_map(|name| Self::detect(name))
            .unwrap_or(Self::Scalar(Scalar))
    }

    /// The instruction set of this name, one of [`NAMES`](Self::NAMES).
    ///
    /// # Errors
    /// When the name is another one, or this CPU does not have the instructions.
    pub fn parse(name: &str) -> Result<Self, IsaError> {
        Self::detect(name).ok_or_else(|| {
            let name = name.to_owned();
            if Self::NAMES.contains(&name.as_str()) {
                IsaError::Unavailable { name }
            } else {
                IsaError::Unknown { name }
            }
        })
    }

    fn detect(name: &str) -> Option<Self> {
        match name {
            "scalar" => Some(Self::Scalar(Scalar)),
            #[cfg(target_arch = "x86_64")]
            "avx2" => Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            "avxvnni" => AvxVnni::detect().map(Self::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            "avx512" => Avx512::detect().map(Self::Avx512),
            #[cfg(target_arch = "aarch64")]
            "neon" => Neon::detect().map(Self::Neon),
            #[cfg(target_arch = "aarch64")]
            "dotprod" => DotProd::detect().map(Self::DotProd),
            #[cfg(target_arch = "aarch64")]
            "i8mm" => I8mm::detect().map(Self::I8mm),
            _ => None,
        }
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
        let names = Self::NAMES.iter();
        names.filter_map(|name| Self::detect(name)).collect()
    }

    /// The name [`parse`](Self::parse) takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            Self::DotProd(_) => "dotprod",
            #[cfg(target_arch = "aarch64")]
            Self::I8mm(_) => "i8mm",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
