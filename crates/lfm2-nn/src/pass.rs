//! One forward pass through a stack of layers: what all layers need to know of it.

use std::borrow::Cow;

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::cache::Fed;
use crate::rope::{Rope, RopeTable};
use crate::{Cache, Observer, Step};

/// A segment with its place in the packed matrix and its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Row of the cache.
    pub row: usize,
    /// First packed token.
    pub start: usize,
    /// Number of packed tokens.
    pub len: usize,
    /// Tokens of the sequence before this pass.
    pub past: usize,
    /// How many of its packed tokens are attended to: all but filler at the end.
    pub keys: usize,
}

/// Whether a pass extends sequences or rebuilds their convolution states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassKind {
    /// New tokens: keys and values are appended.
    Extend,
    /// Tokens seen before: keys and values are read from the cache and not written, since the
    /// replayed hidden states are only right near the end.
    Replay,
}

/// The state of one forward pass.
pub struct Pass<'a> {
    spans: Vec<Span>,
    kind: PassKind,
    pub(crate) cache: &'a mut Cache,
    pub(crate) ropes: Vec<RopeTable>,
    taps: Vec<(isize, Tensor)>,
    /// 0 for filler that convolutions must not see, else 1; `(tokens, 1)`.
    seen: Option<Tensor>,
    observer: Option<&'a mut dyn Observer>,
}

impl std::fmt::Debug for Pass<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pass")
            .field("spans", &self.spans)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl<'a> Pass<'a> {
    /// Starts a pass: checks `step` against `cache`, makes room, and computes the tables of `ropes`.
    ///
    /// # Errors
    /// When `step` names rows the cache does not have, or has filler where a cache would keep it, or the
    /// device is out of memory.
    pub fn new(
        step: &Step,
        kind: PassKind,
        cache: &'a mut Cache,
        ropes: &[Rope],
        (dtype, device): (DType, &Device),
    ) -> Result<Self> {
        step.validate(cache.rows())?;
        let mut spans = Vec::with_capacity(step.segments().len());
        if step.has_filler() && !cache.is_stateless() {
            bail!("filler at the end of a sequence needs a stateless pass");
        }
        let mut start = 0;
        for (index, s) in step.segments().iter().enumerate() {
            let past = cache.len(s.row);
            cache.prepare_row(s.row, s.len)?;
            spans.push(Span {
                row: s.row,
                start,
                len: s.len,
                past,
                keys: step.keys(index),
            });
            start += s.len;
        }
        let positions: Vec<usize> = spans
            .iter()
            .flat_map(|s| {
                let first = cache.position(s.row);
                first..first + s.len
            })
            .collect();
        let ropes = ropes
            .iter()
            .map(|r| r.table(&positions, dtype, device))
            .collect::<Result<_>>()?;
        let seen = match step.zeroes_filler() {
            true => Some(seen(&spans, dtype, device)?),
            false => None,
        };
        Ok(Self {
            spans,
            kind,
            cache,
            ropes,
            taps: Vec::new(),
            seen,
            observer: None,
        })
    }

    /// Lets `observer` see what happens inside.
    pub fn observed_by(mut self, observer: Option<&'a mut dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// The segments of this pass.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Packed tokens in this pass.
    pub fn tokens(&self) -> usize {
        self.spans.last().map_or(0, |s| s.start + s.len)
    }

    /// Whether this pass extends or replays.
    pub fn kind(&self) -> PassKind {
        self.kind
    }

    /// Tells the observer, if any, of the input embeddings.
    ///
    /// # Errors
    /// What the observer returns.
    pub fn embedded(&mut self, x: &Tensor) -> Result<()> {
        self.observe(|o| o.embedded(x))
    }

    pub(crate) fn observe(
        &mut self,
        tell: impl FnOnce(&mut dyn Observer) -> Result<()>,
    ) -> Result<()> {
        match self.observer.as_deref_mut() {
            Some(observer) => tell(observer),
            None => Ok(()),
        }
    }

    /// Whether convolutions read zeros in place of filler.
    pub(crate) fn zeroes_filler(&self) -> bool {
        self.seen.is_some()
    }

    /// What a convolution reads of the states `x (tokens, channels)`: zeros in place of filler, if the
    /// step says so.
    pub(crate) fn without_filler<'x>(&self, x: &'x Tensor) -> Result<Cow<'x, Tensor>> {
        match &self.seen {
            Some(seen) => Ok(Cow::Owned(x.broadcast_mul(seen)?)),
            None => Ok(Cow::Borrowed(x)),
        }
    }

    /// 1 where the token `offset` places away is in the same segment of this pass, else 0;
    /// `(tokens, 1)`.
    pub(crate) fn tap_mask(&mut self, offset: isize, like: &Tensor) -> Result<Tensor> {
        if let Some((_, mask)) = self.taps.iter().find(|(o, _)| *o == offset) {
            return Ok(mask.clone());
        }
        let inside = |t: usize, len: usize| t.checked_add_signed(offset).is_some_and(|t| t < len);
        let values = self
            .spans
            .iter()
            .flat_map(|s| (0..s.len).map(move |t| f32::from(inside(t, s.len))));
        let mask = Tensor::from_iter(values, like.device())?
            .unsqueeze(1)?
            .to_dtype(like.dtype())?;
        self.taps.push((offset, mask.clone()));
        Ok(mask)
    }

    /// Records what was fed, now that every layer has taken it: `ids` per packed token, or nothing
    /// for embeddings.
    pub fn finish(self, ids: Option<&[u32]>) {
        for span in &self.spans {
            let fed = (span.start..span.start + span.len).map(|t| {
                ids.and_then(|ids| ids.get(t))
                    .map_or(Fed::Embedding, |id| Fed::Id(*id))
            });
            self.cache.append_fed(span.row, fed);
        }
    }
}

/// 0 where a token is filler, else 1; `(tokens, 1)`.
fn seen(spans: &[Span], dtype: DType, device: &Device) -> Result<Tensor> {
    let values = spans
        .iter()
        .flat_map(|span| (0..span.len).map(|t| f32::from(t < span.keys)));
    let values: Vec<f32> = values.collect();
    let tokens = values.len();
    Tensor::from_vec(values, (tokens, 1), device)?.to_dtype(dtype)
}
