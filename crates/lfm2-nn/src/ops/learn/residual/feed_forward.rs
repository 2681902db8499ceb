//! The feed-forward layer.

use std::ops::Range;

use candle_core::{Error, Result, Tensor};
use lfm2_kernels::gradients::silu_mul_gradient;
use lfm2_kernels::profile::{Op, Work, span};
use lfm2_kernels::{self as kernels, Scratch, Sum};

use super::super::many::{self, Layer};
use super::{Back, Forth, Kept, Norm, Normed, ROWS, isa, lost, parts, weight_gradient};

/// `x + w2(silu(w1 n) * w3 n)` with `n = norm(x)`; `x (rows, hidden)`, and `w1`, `w2` and `w3` one after
/// another.
pub(in crate::ops) fn feed_forward(
    x: &Tensor,
    norm: Norm<'_>,
    [w1, w2, w3]: [&Tensor; 3],
) -> Result<Tensor> {
    let (rows, hidden) = x.dims2()?;
    let layer = FeedForward {
        eps: norm.eps as f32,
        rows,
        hidden,
        width: w1.dim(0)?,
        kept: Kept::default(),
    };
    many::apply(layer, x, &[norm.weight, w1, w2, w3])
}

struct FeedForward {
    eps: f32,
    rows: usize,
    hidden: usize,
    width: usize,
    /// Gates and ups of every group of rows, one after another.
    kept: Kept,
}

impl FeedForward {
    fn groups(&self) -> impl Iterator<Item = Range<usize>> {
        let rows = self.rows;
        (0..rows)
            .step_by(ROWS)
            .map(move |start| start..(start + ROWS).min(rows))
    }

    fn of(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start * self.hidden..rows.end * self.hidden
    }
}

impl Layer for FeedForward {
    const NAME: &'static str = "feed-forward";

    fn forward(&self, x: &[f32], weights: &[&[f32]]) -> Result<Vec<f32>> {
        let (hidden, width) = (self.hidden, self.width);
        let &[norm, w1, w2, w3] = weights else {
            return Err(lost());
        };
        let (w1, w3) = (Forth::new(w1, hidden)?, Forth::new(w3, hidden)?);
        let w2 = Forth::new(w2, width)?;
        let mut y = x.to_vec();
        let mut kept = Scratch::new(2 * self.rows * width);
        let mut scratch = Scratch::new(ROWS * (hidden + width));
        for rows in self.groups() {
            let count = rows.len();
            let [normed, product] = parts(&mut scratch, [count * hidden, count * width]);
            let own = &mut kept[2 * rows.start * width..][..2 * count * width];
            let (gate, up) = own.split_at_mut(count * width);
            let (weight, eps) = (norm, self.eps);
            let x = &x[self.of(&rows)];
            Normed { x, weight, eps }.apply(normed)?;
            w1.apply(normed, gate, Sum::Replace)?;
            w3.apply(normed, up, Sum::Replace)?;
            {
                let _span = span(Op::SiluMul, &[width], Work::NONE);
                kernels::silu_mul(isa()?, gate, up, product).map_err(Error::wrap)?;
            }
            w2.apply(product, &mut y[self.of(&rows)], Sum::Add)?;
        }
        *self.kept.lock() = Some(kept);
        Ok(y)
    }

    fn backward(
        &self,
        x: &[f32],
        weights: &[&[f32]],
        dy: &[f32],
        dweights: &mut [Option<Vec<f32>>],
    ) -> Result<Vec<f32>> {
        let (hidden, width) = (self.hidden, self.width);
        let (&[norm, w1, w2, w3], [dnorm, dw1, dw2, dw3]) = (weights, dweights) else {
            return Err(lost());
        };
        let kept = self.kept.lock();
        let kept = kept.as_ref().ok_or_else(lost)?;
        let (w1, w3) = (Back::new(w1, hidden)?, Back::new(w3, hidden)?);
        let w2 = Back::new(w2, width)?;
        let mut dx = dy.to_vec();
        let mut scratch = Scratch::new(ROWS * (2 * hidden + 3 * width));
        for rows in self.groups() {
            let count = rows.len();
            let (narrow, wide) = (count * hidden, count * width);
            let [normed, dnormed, product, dgate, dup] =
                parts(&mut scratch, [narrow, narrow, wide, wide, wide]);
            let own = &kept[2 * rows.start * width..][..2 * wide];
            let (gate, up) = own.split_at(wide);
            let (weight, eps) = (norm, self.eps);
            let (x, dy) = (&x[self.of(&rows)], &dy[self.of(&rows)]);
            let norm = Normed { x, weight, eps };
            norm.apply(normed)?;
            w2.apply(dy, product, Sum::Replace)?;
            {
                let _span = span(Op::SiluMul, &[width], Work::NONE);
                silu_mul_gradient(isa()?, [gate, up], product, [&mut *dgate, &mut *dup])
                    .map_err(Error::wrap)?;
            }
            weight_gradient(dy, product, count, dw2)?;
            weight_gradient(dgate, normed, count, dw1)?;
            weight_gradient(dup, normed, count, dw3)?;
            w1.apply(dgate, dnormed, Sum::Replace)?;
            w3.apply(dup, dnormed, Sum::Add)?;
            norm.backward(dnormed, &mut dx[self.of(&rows)], Sum::Add, dnorm)?;
        }
        Ok(dx)
    }
}
