//! Where one sequence lives: [`Place`].

use candle_core::Tensor;
use lfm2_nn::{Cache, Decoder, Input, Segment, Step, Want};

use crate::{Error, Result};

/// The row of a cache that a generation works in.
pub(crate) enum Place<'a> {
    Own(Cache),
    Lent { cache: &'a mut Cache, row: usize },
}

/// Whether there is something to go on with.
pub(crate) enum Fed {
    Logits,
    Cancelled,
}

impl<'a> Place<'a> {
    /// Row `row` of somebody's cache.
    pub(crate) fn lent(cache: &'a mut Cache, row: usize) -> Result<Self> {
        let rows = cache.rows();
        if row >= rows {
            return Err(Error::InvalidInput(format!(
                "row {row} is outside a cache of {rows} rows"
            )));
        }
        Ok(Self::Lent { cache, row })
    }
}

impl Place<'_> {
    pub(crate) fn row(&self) -> usize {
        match self {
            Self::Own(_) => 0,
            Self::Lent { row, .. } => *row,
        }
    }

    pub(crate) fn cache(&mut self) -> &mut Cache {
        match self {
            Self::Own(cache) => cache,
            Self::Lent { cache, .. } => cache,
        }
    }

    /// Feeds `ids` to the sequence.
    pub(crate) fn feed(
        &mut self,
        decoder: &dyn Decoder,
        ids: &[u32],
        want: Want,
    ) -> Result<Tensor> {
        let segment = Segment {
            row: self.row(),
            len: ids.len(),
        };
        let step = Step::segments_of(vec![segment]);
        let input = Tensor::new(ids, decoder.device())?;
        Ok(decoder.forward(Input::Ids(&input), &step, self.cache(), want)?)
    }
}
