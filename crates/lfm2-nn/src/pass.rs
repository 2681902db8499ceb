//! One forward pass through a stack of layers: what all layers need to know of it.

use candle_core::{DType, Device, Result, Tensor};

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
    /// When `step` names rows the cache does not have, or the device is out of memory.
    pub fn new(
        step: &Step,
        kind: PassKind,
        cache: &'a mut Cache,
        ropes: &[Rope],
        (dtype, device): (DType, &Device),
    ) -> Result<Self> {
        step.validate(cache.rows())?;
        let mut spans = Vec::with_capacity(step.segments().len());
        let mut start = 0;
        for s in step.segments() {
            let past = cache.len(s.row);
            cache.prepare_row(s.row, s.len)?;
            spans.push(Span {
                row: s.row,
                start,
                len: s.len,
                past,
            });
            start += s.len;
        }
        let positions: Vec<usize> = spans.iter().flat_map(|s| s.past..s.past + s.len).collect();
        let ropes = ropes
            .iter()
            .map(|r| r.table(&positions, dtype, device))
            .collect::<Result<_>>()?;
        Ok(Self {
            spans,
            kind,
            cache,
            ropes,
            taps: Vec::new(),
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
