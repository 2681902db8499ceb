//! How the tokens of one forward pass divide into sequences.
//!
//! Every model of the family works on a *packed* token matrix: the real tokens of all sequences one
//! after another, `(tokens, hidden)`, with no padding. Linear layers see one matrix; attention and
//! convolution run per [`Segment`]. A padded batch, documents packed for training and sequences of
//! different lengths decoded together are all the same thing, and no sequence can see another.

use candle_core::{Result, Tensor, bail};

/// A run of consecutive packed tokens that belong to one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The row of the cache this sequence lives in.
    pub row: usize,
    /// How many tokens this pass feeds to it; at least 1.
    pub len: usize,
}

/// What convolutions see of filler, see [`Step::with_filler`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FillerStates {
    /// Its states, like those of any token. How the published encoders were trained.
    #[default]
    Flow,
    /// Zeros, as newer versions of the reference library do.
    Zero,
}

/// Tokens at the ends of segments that nobody attends to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Filler {
    /// How many, by segment.
    tokens: Vec<usize>,
    states: FillerStates,
}

/// The segments of one forward pass, in packed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    segments: Vec<Segment>,
    filler: Option<Filler>,
}

impl Step {
    /// `len` tokens for the only sequence, row 0.
    pub fn single(len: usize) -> Self {
        Self {
            segments: vec![Segment { row: 0, len }],
            filler: None,
        }
    }

    /// `lens[row]` tokens for every row; rows with no tokens are left out.
    pub fn rows(lens: &[usize]) -> Self {
        let segments = lens.iter().enumerate().filter(|(_, len)| **len > 0);
        Self {
            segments: segments.map(|(row, &len)| Segment { row, len }).collect(),
            filler: None,
        }
    }

    /// Any segments. Each row may occur at most once and every length must be at least 1; the
    /// model's `forward` checks both.
    pub fn segments_of(segments: Vec<Segment>) -> Self {
        Self {
            segments,
            filler: None,
        }
    }

    /// Says that the last `tokens[i]` tokens of segment `i` only fill it up: attention hides them as
    /// keys, from themselves too, while their own states are computed like all others. What
    /// convolutions see of them is `states`. For encoders: only a stateless pass takes such a step.
    pub fn with_filler(mut self, tokens: Vec<usize>, states: FillerStates) -> Self {
        let any = tokens.iter().any(|&tokens| tokens > 0);
        self.filler = any.then_some(Filler { tokens, states });
        self
    }

    /// Whether any segment ends with filler.
    pub(crate) fn has_filler(&self) -> bool {
        self.filler.is_some()
    }

    /// Whether convolutions see zeros in place of filler.
    pub(crate) fn zeroes_filler(&self) -> bool {
        let states = self.filler.as_ref().map(|filler| filler.states);
        states == Some(FillerStates::Zero)
    }

    /// Tokens of segment `index` that are attended to.
    pub(crate) fn keys(&self, index: usize) -> usize {
        let len = self.segments.get(index).map_or(0, |s| s.len);
        let filler = self.filler.as_ref().and_then(|f| f.tokens.get(index));
        len - filler.copied().unwrap_or(0).min(len)
    }

    /// The segments in packed order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The number of packed tokens.
    pub fn tokens(&self) -> usize {
        self.segments.iter().map(|s| s.len).sum()
    }

    /// The common length when all segments are equally long.
    pub fn uniform_len(&self) -> Option<usize> {
        let first = self.segments.first()?.len;
        self.segments
            .iter()
            .all(|s| s.len == first)
            .then_some(first)
    }

    /// Packed index of the last token of every segment.
    pub fn last_tokens(&self) -> Vec<u32> {
        let mut end = 0;
        self.segments
            .iter()
            .map(|s| {
                end += s.len;
                (end - 1) as u32
            })
            .collect()
    }

    pub(crate) fn validate(&self, rows: usize) -> Result<()> {
        let mut seen = vec![false; rows];
        for s in &self.segments {
            if s.len == 0 {
                bail!("row {} gets no tokens", s.row);
            }
            match seen.get_mut(s.row) {
                None => bail!("row {} is outside a cache of {rows} rows", s.row),
                Some(true) => bail!("row {} occurs twice in one step", s.row),
                Some(seen) => *seen = true,
            }
        }
        if self.segments.is_empty() {
            bail!("a step needs at least one token");
        }
        if let Some(filler) = &self.filler {
            let (found, segments) = (filler.tokens.len(), self.segments.len());
            if found != segments {
                bail!("filler of {found} segments for a step of {segments}");
            }
            if let Some(index) = (0..segments).find(|&index| self.keys(index) == 0) {
                bail!("segment {index} consists of filler alone");
            }
        }
        Ok(())
    }
}

/// A batch in the padded layout other libraries use, turned into packed tokens and back.
#[derive(Debug, Clone)]
pub struct PaddedBatch {
    step: Step,
    /// Index into the flattened `(batch * seq)` of every packed token.
    gather: Vec<u32>,
    batch: usize,
    seq: usize,
}

impl PaddedBatch {
    /// From a `(batch, seq)` mask of real tokens; padding may stand left, right or nowhere, but the
    /// real tokens of a row must be consecutive.
    ///
    /// # Errors
    /// When the real tokens of a row have a gap, or no row has any.
    pub fn from_mask(mask: &[Vec<bool>]) -> Result<Self> {
        let seq = mask.first().map_or(0, Vec::len);
        let mut gather = Vec::new();
        let mut lens = Vec::with_capacity(mask.len());
        for (row, real) in mask.iter().enumerate() {
            if real.len() != seq {
                bail!(
                    "mask row {row}: expected {seq} columns, found {}",
                    real.len()
                );
            }
            let start = real.iter().position(|&r| r).unwrap_or(seq);
            let len = real[start..].iter().take_while(|&&r| r).count();
            if real[start + len..].iter().any(|&r| r) {
                bail!("mask row {row}: the real tokens have a gap");
            }
            gather.extend((start..start + len).map(|t| (row * seq + t) as u32));
            lens.push(len);
        }
        let step = Step::rows(&lens);
        step.validate(mask.len())?;
        Ok(Self {
            step,
            gather,
            batch: mask.len(),
            seq,
        })
    }

    /// The segments of the real tokens: one per row that has any.
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// The real tokens of a `(batch, seq, ..)` tensor, packed to `(tokens, ..)`.
    ///
    /// # Errors
    /// When the shape does not start with this batch's `(batch, seq)`.
    pub fn pack(&self, padded: &Tensor) -> Result<Tensor> {
        let dims = padded.dims();
        if dims.len() < 2 || dims[0] != self.batch || dims[1] != self.seq {
            bail!(
                "expected ({}, {}, ..), found {dims:?}",
                self.batch,
                self.seq
            );
        }
        padded.flatten(0, 1)?.index_select(&self.index(padded)?, 0)
    }

    /// The inverse of [`pack`](Self::pack): `(tokens, ..)` to `(batch, seq, ..)`, zero at padding.
    ///
    /// # Errors
    /// When the number of tokens differs.
    pub fn unpack(&self, packed: &Tensor) -> Result<Tensor> {
        let mut shape = packed.dims().to_vec();
        if shape.first() != Some(&self.gather.len()) {
            bail!(
                "expected {} packed tokens, found {:?}",
                self.gather.len(),
                packed.dims()
            );
        }
        shape[0] = self.batch * self.seq;
        let flat = Tensor::zeros(shape.as_slice(), packed.dtype(), packed.device())?;
        let flat = flat.index_add(&self.index(packed)?, packed, 0)?;
        shape.splice(0..1, [self.batch, self.seq]);
        flat.reshape(shape)
    }

    fn index(&self, like: &Tensor) -> Result<Tensor> {
        Tensor::new(self.gather.as_slice(), like.device())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn left_and_right_padding_pack_to_the_same_tokens() -> Result<()> {
        let left = PaddedBatch::from_mask(&[vec![false, true, true], vec![true, true, true]])?;
        let right = PaddedBatch::from_mask(&[vec![true, true, false], vec![true, true, true]])?;
        let l = Tensor::new(&[[0u32, 1, 2], [3, 4, 5]], &Device::Cpu)?;
        let r = Tensor::new(&[[1u32, 2, 0], [3, 4, 5]], &Device::Cpu)?;
        assert_eq!(left.pack(&l)?.to_vec1::<u32>()?, [1, 2, 3, 4, 5]);
        assert_eq!(right.pack(&r)?.to_vec1::<u32>()?, [1, 2, 3, 4, 5]);
        assert_eq!(left.step().last_tokens(), [1, 4]);
        let x = Tensor::new(&[1f32, 2., 3., 4., 5.], &Device::Cpu)?;
        assert_eq!(
            left.unpack(&x)?.to_vec2::<f32>()?,
            [[0., 1., 2.], [3., 4., 5.]]
        );
        assert_eq!(
            right.unpack(&x)?.to_vec2::<f32>()?,
            [[1., 2., 0.], [3., 4., 5.]]
        );
        Ok(())
    }

    #[test]
    fn a_mask_with_a_gap_is_refused() {
        assert!(PaddedBatch::from_mask(&[vec![true, false, true]]).is_err());
        assert!(PaddedBatch::from_mask(&[vec![false, false]]).is_err());
    }

    #[test]
    fn filler_leaves_a_token_in_every_segment() {
        let step = |filler: Vec<usize>| Step::rows(&[3, 2]).with_filler(filler, FillerStates::Zero);
        let good = step(vec![2, 0]);
        assert!(good.validate(2).is_ok() && good.zeroes_filler());
        assert_eq!((good.keys(0), good.keys(1)), (1, 2));
        for filler in [vec![3, 0], vec![0, 5], vec![1], vec![1, 0, 0]] {
            assert!(step(filler.clone()).validate(2).is_err(), "{filler:?}");
        }
        assert_eq!(step(vec![0, 0]), Step::rows(&[3, 2]));
    }

    #[test]
    fn a_row_cannot_occur_twice() {
        let twice = vec![Segment { row: 0, len: 1 }, Segment { row: 0, len: 2 }];
        assert!(Step::segments_of(twice).validate(1).is_err());
        assert!(Step::single(1).validate(0).is_err());
    }
}
