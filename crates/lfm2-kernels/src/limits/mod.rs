//! What this machine can do at most: how fast it reads memory, how fast it multiplies.
//!
//! A decode step cannot be faster than reading its weights, and a prompt not faster than its
//! multiply-adds. Both limits belong to a machine, a moment and a number of threads: memory shared
//! with other guests changes its speed by a factor of two within minutes, so take a reading next to
//! each figure that is compared with it.
//!
//! Measured on threads of its own, with the vector instructions the kernels use.
//!
//! ```
//! use lfm2_kernels::Isa;
//! use lfm2_kernels::limits::{Arithmetic, Memory, peak};
//!
//! let memory = Memory::new(1 << 20); // 1 MiB; ask for much more than the caches hold
//! assert!(memory.read_rate(Isa::best(), 1) > 0.0);
//! assert!(peak(Isa::best(), 1, Arithmetic::F32) > Some(0.0));
//! ```

#[cfg(target_arch = "x86_64")]
mod bf16;
pub(crate) mod read;

use std::fmt;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::Isa;
use crate::packed::memory::Pages;
use crate::simd::{Kernel, Simd};
use read::Read;

/// Passes over memory, or over a loop of arithmetic, of which the second fastest counts: the
/// fastest can be an accident of the clock.
const PASSES: usize = 7;

/// Values that each read a multiple of this many, so that nothing is left over.
const UNIT: usize = read::MAX_STREAMS * read::STEP * crate::simd::MAX_LANES;

/// Rounds of a loop of arithmetic: some milliseconds.
const ROUNDS: usize = 1 << 20;

/// Which dot products do the multiplying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Arithmetic {
    /// `f32` times `f32`.
    #[default]
    F32,
    /// Pairs of `bf16`, added up in `f32`.
    Bf16,
    /// Groups of four bytes, added up in 32 bits.
    Int8,
}

impl Arithmetic {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// A short name: `f32`, `bf16` or `int8`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

/// Memory to read from, got as that of packed weights is and filled so that every page exists.
pub struct Memory {
    pages: Pages,
}

impl Memory {
    /// At least `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        let mut pages = Pages::zeroed(rounded(bytes) * size_of::<f32>());
        // Four such bytes are a small normal number: nothing slows down adding them.
        pages.fill(0x3c);
        Self { pages }
    }

    /// How many bytes a reading covers.
    pub fn bytes(&self) -> usize {
        self.pages.len()
    }

    /// Bytes per second that `threads` threads read together, each its own part from begin to end;
    /// of several ways to read, the fastest.
    pub fn read_rate(&self, isa: Isa, threads: usize) -> f64 {
        read_rate(self.values(), isa, threads)
    }

    /// The same for its first `bytes` bytes alone, read over and over: what caches keep of them is
    /// not read from memory again, as with the weights of a small model.
    pub fn read_rate_of(&self, bytes: usize, isa: Isa, threads: usize) -> f64 {
        let len = rounded(bytes).min(self.values().len());
        read_rate(&self.values()[..len], isa, threads)
    }

    pub(crate) fn values(&self) -> &[f32] {
        // SAFETY: any four bytes are an `f32`.
        let (_, values, _) = unsafe { self.pages.align_to::<f32>() };
        values
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes)", self.bytes())
    }
}

/// So many bytes in whole units, in values.
fn rounded(bytes: usize) -> usize {
    let values = bytes.div_ceil(size_of::<f32>());
    values.next_multiple_of(UNIT).max(UNIT)
}

fn read_rate(values: &[f32], isa: Isa, threads: usize) -> f64 {
    let parts = parts(values, threads);
    let ways = [
        read_time::<1>(&parts, isa, 0),
        read_time::<1>(&parts, isa, 4096),
        read_time::<4>(&parts, isa, 0),
    ];
    let least = ways.into_iter().min().unwrap_or_default();
    size_of_val(values) as f64 / least.as_secs_f64()
}

/// The time of one pass in so many streams per thread, asking for memory so many bytes ahead.
fn read_time<const STREAMS: usize>(parts: &[&[f32]], isa: Isa, ahead: usize) -> Duration {
    on_threads(parts.len(), |thread| {
        let data = parts.get(thread).copied().unwrap_or_default();
        black_box(isa.run(Read::<STREAMS> { data, ahead }));
    })
}

/// One part per thread, of whole units and as equal as those allow.
pub(crate) fn parts(values: &[f32], threads: usize) -> Vec<&[f32]> {
    let units = values.len() / UNIT;
    let part = units.div_ceil(threads.clamp(1, units)) * UNIT;
    values.chunks(part).collect()
}

/// Multiply-adds per second of `threads` threads that do nothing else; `None` where the instruction
/// set has no such dot product (of `bf16`) or this CPU lacks it.
pub fn peak(isa: Isa, threads: usize, arithmetic: Arithmetic) -> Option<f64> {
    let threads = threads.max(1);
    let (time, macs) = match arithmetic {
        Arithmetic::F32 => {
            let time = on_threads(threads, |_| black_box(isa.run(MulAdds)));
            (time, MulAdds::SUMS * isa.lanes())
        }
        Arithmetic::Int8 if isa.lanes() == crate::simd::MAX_LANES => byte_dots::<12>(isa, threads),
        Arithmetic::Int8 => byte_dots::<5>(isa, threads),
        #[cfg(target_arch = "x86_64")]
        Arithmetic::Bf16 => {
            let dots = bf16::Dots::detect(isa)?;
            let time = on_threads(threads, |_| black_box(dots.run(ROUNDS)));
            (time, bf16::Dots::MACS)
        }
        #[cfg(not(target_arch = "x86_64"))]
        Arithmetic::Bf16 => return None,
    };
    Some((threads * ROUNDS * macs) as f64 / time.as_secs_f64())
}

/// The time of the loop on bytes with so many sums of sixteen, and multiply-adds per round.
fn byte_dots<const SUMS: usize>(isa: Isa, threads: usize) -> (Duration, usize) {
    let time = on_threads(threads, |_| black_box(isa.run(ByteDots::<SUMS>)));
    (time, SUMS * crate::simd::dot16::ROWS * 4)
}

/// Runs `f` on every thread at once, several times; the second shortest time until the last was done.
fn on_threads<R>(threads: usize, f: impl Fn(usize) -> R + Sync) -> Duration {
    let barrier = Barrier::new(threads);
    let timed = |thread: usize| {
        let mut times = [Duration::ZERO; PASSES];
        for time in &mut times {
            barrier.wait();
            let started = Instant::now();
            f(thread);
            *time = started.elapsed();
        }
        times
    };
    let mut slowest = timed_on_all(threads, &timed);
    slowest.sort_unstable();
    slowest[1]
}

/// For every pass the time of the slowest thread; the caller is one of them.
fn timed_on_all(
    threads: usize,
    timed: &(impl Fn(usize) -> [Duration; PASSES] + Sync),
) -> [Duration; PASSES] {
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|thread| scope.spawn(move || timed(thread)))
            .collect();
        let mut slowest = timed(0);
        for other in others {
            let times = other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            for (slowest, time) in slowest.iter_mut().zip(times) {
                *slowest = time.max(*slowest);
            }
        }
        slowest
    })
}

/// Multiply-adds on enough independent sums to hide how long each takes, and few enough for sixteen
/// registers.
struct MulAdds;

impl MulAdds {
    const SUMS: usize = 12;
}

impl Kernel for MulAdds {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(1.0); Self::SUMS];
        // Nothing grows and nothing becomes subnormal.
        let (x, y) = (s.splat(black_box(0.999)), s.splat(black_box(1e-3)));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = s.mul_add(*sum, x, y);
            }
        }
        sums.into_iter().fold(0.0, |all, sum| all + s.sum(sum))
    }
}

/// Products of bytes per sum until it is complete: those of a unit of weights.
const GROUPS: usize = crate::simd::dot16::UNIT / 4;

/// The same for products of bytes with the levels of four bits.
struct ByteDots<const SUMS: usize>;

impl<const SUMS: usize> Kernel for ByteDots<SUMS> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (weights, x) = (black_box([3_u8; 64]), black_box([1_i8, -1, 2, -2]));
        // SAFETY: there are 64 bytes.
        let bytes = unsafe { s.bytes(weights.as_ptr()) };
        let mut sums = [s.ints(0); SUMS];
        for _ in 0..ROUNDS / GROUPS {
            let starts = sums;
            let mut units = [s.small(s.ints(0)); SUMS];
            for (unit, start) in units.iter_mut().zip(starts) {
                *unit = s.small(start);
            }
            for _ in 0..GROUPS {
                // Other bytes as far as the compiler knows, so that it makes all the products.
                let x = black_box(&x);
                for unit in &mut units {
                    // SAFETY: there are four bytes.
                    *unit = unsafe { s.dot_small(*unit, bytes, x.as_ptr()) };
                }
            }
            for ((sum, unit), start) in sums.iter_mut().zip(units).zip(starts) {
                *sum = s.small_sum(unit, start);
            }
        }
        let all = sums
            .into_iter()
            .fold(s.ints(0), |all, sum| s.plus(all, sum));
        s.to_array(s.floats(all)).into_iter().sum()
    }
}

impl Isa {
    /// `f32` lanes of a register.
    fn lanes(self) -> usize {
        struct Lanes;
        impl Kernel for Lanes {
            type Output = usize;

            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> usize {
                S::LANES
            }
        }
        self.run(Lanes)
    }
}
