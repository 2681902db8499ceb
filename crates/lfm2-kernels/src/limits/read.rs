//! Reading memory as fast as it goes.

use crate::simd::{Kernel, Simd};

/// The most streams that one thread reads at a time.
pub(crate) const MAX_STREAMS: usize = 4;
/// Vectors read from a stream before it is the next one's turn.
pub(crate) const STEP: usize = 8 / MAX_STREAMS;

/// Adds up all values, read in `STREAMS` equal streams side by side. With `ahead`, memory is asked
/// for so many bytes early, for machines that do not do so by themselves.
///
/// The length has to be a multiple of `MAX_STREAMS * STEP * MAX_LANES`.
pub(crate) struct Read<'a, const STREAMS: usize> {
    pub(crate) data: &'a [f32],
    pub(crate) ahead: usize,
}

impl<const STREAMS: usize> Kernel for Read<'_, STREAMS> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let len = self.data.len() / STREAMS;
        let block = 8 / STREAMS * S::LANES;
        debug_assert_eq!(len % block, 0);
        let mut sums = [s.zero(); 8];
        let streams: [&[f32]; STREAMS] = std::array::from_fn(|i| &self.data[i * len..][..len]);
        for start in (0..len).step_by(block) {
            for (i, stream) in streams.iter().enumerate() {
                let values = &stream[start..][..block];
                for (j, lanes) in values.chunks_exact(S::LANES).enumerate() {
                    if self.ahead > 0 {
                        s.prefetch(lanes.as_ptr().wrapping_byte_add(self.ahead));
                    }
                    let sum = &mut sums[i * (8 / STREAMS) + j];
                    *sum = s.add(*sum, s.load(lanes));
                }
            }
        }
        sums.into_iter().fold(0.0, |all, sum| all + s.sum(sum))
    }
}
