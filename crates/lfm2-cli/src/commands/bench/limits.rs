//! What the machine can do at most: `lfm2 bench --limits`, and readings beside figures.

use lfm2::nn::limits::{Arithmetic, Memory, peak};
use lfm2::nn::{Isa, threads};
use serde::Serialize;

/// How fast memory could be read at one moment, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reading {
    /// A large buffer, once from begin to end.
    pub(super) buffer: f64,
    /// As many bytes as a pass reads, over and over, or the buffer when that is smaller.
    pub(super) again: f64,
}

impl Reading {
    /// Takes a reading with a buffer of `mebibytes`, on as many threads as kernels use.
    pub(super) fn take(isa: Isa, mebibytes: usize, bytes_per_pass: f64) -> Self {
        let threads = threads::count();
        let bytes = bytes_per_pass as usize;
        let memory = Memory::new(mebibytes << 20);
        Self {
            buffer: memory.read_rate(isa, threads),
            again: memory.read_rate_of(bytes, isa, threads),
        }
    }

    /// What a pass is compared with.
    pub(super) fn fastest(self) -> f64 {
        self.buffer.max(self.again)
    }
}

/// The limits of this machine.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub(super) isa: &'static str,
    /// With one thread, and with as many as kernels use.
    pub(super) limits: Vec<Limits>,
}

/// The limits of so many threads.
#[derive(Debug, Serialize)]
pub(super) struct Limits {
    pub(super) threads: usize,
    /// `None` where that was not asked for.
    pub(super) read_gb_per_second: Option<f64>,
    pub(super) f32_gmac_per_second: Option<f64>,
    pub(super) bf16_gmac_per_second: Option<f64>,
    pub(super) int8_gmac_per_second: Option<f64>,
}

impl Machine {
    /// Measures everything, memory with a buffer of `mebibytes` unless that is 0.
    pub(super) fn measure(isa: Isa, mebibytes: usize) -> Self {
        let mut counts = vec![1, threads::count()];
        counts.dedup();
        let memory = (mebibytes > 0).then(|| Memory::new(mebibytes << 20));
        let limits = |threads| {
            let memory = memory.as_ref();
            Limits::measure(isa, threads, memory)
        };
        Self {
            isa: isa.name(),
            limits: counts.into_iter().map(limits).collect(),
        }
    }

    /// Multiply-adds per second of all threads. Products of bf16 can be had from plain numbers, too,
    /// and on some processors faster so.
    pub(super) fn peak(&self, arithmetic: Arithmetic) -> Option<f64> {
        let limits = self.limits.last()?;
        let peak = match arithmetic {
            Arithmetic::F32 => limits.f32_gmac_per_second,
            Arithmetic::Bf16 => {
                let both = [limits.bf16_gmac_per_second, limits.f32_gmac_per_second];
                both.into_iter().flatten().reduce(f64::max)
            }
            Arithmetic::Int8 => limits.int8_gmac_per_second,
        };
        Some(peak? * 1e9)
    }
}

impl Limits {
    fn measure(isa: Isa, threads: usize, memory: Option<&Memory>) -> Self {
        let peak = |arithmetic| peak(isa, threads, arithmetic).map(|rate| rate / 1e9);
        Self {
            threads,
            read_gb_per_second: memory.map(|memory| memory.read_rate(isa, threads) / 1e9),
            f32_gmac_per_second: peak(Arithmetic::F32),
            bf16_gmac_per_second: peak(Arithmetic::Bf16),
            int8_gmac_per_second: peak(Arithmetic::Int8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_those_of_all_threads() {
        let limits = |threads, rate| Limits {
            threads,
            read_gb_per_second: None,
            f32_gmac_per_second: Some(rate),
            bf16_gmac_per_second: Some(rate / 5.0),
            int8_gmac_per_second: Some(4.0 * rate),
        };
        let machine = Machine {
            isa: "scalar",
            limits: vec![limits(1, 10.0), limits(2, 20.0)],
        };
        assert_eq!(machine.peak(Arithmetic::F32), Some(20e9));
        assert_eq!(machine.peak(Arithmetic::Bf16), Some(20e9));
        assert_eq!(machine.peak(Arithmetic::Int8), Some(80e9));
    }

    #[test]
    fn a_pass_is_compared_with_the_faster_reading() {
        let reading = Reading {
            buffer: 3.0,
            again: 5.0,
        };
        assert_eq!(reading.fastest(), 5.0);
        let small = Reading::take(Isa::best(), 0, 1e5);
        assert!(small.fastest() > 0.0 && small.fastest().is_finite());
    }
}
