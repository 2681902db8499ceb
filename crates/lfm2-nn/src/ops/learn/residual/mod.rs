//! Whole layers around the residual stream as one operation each: norm, projections, what is between
//! them, and the sum.
//!
//! Rows go through a layer some hundred at a time, so that what one step leaves for the next is still in
//! the second-level cache. Between the passes a layer keeps its widest activations and computes the
//! others anew, which costs little beside the products.

mod attention;
mod conv;
mod feed_forward;

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{Error, Result, Tensor};
use lfm2_kernels::gradients::{RmsNormed, rms_norm_gradient};
use lfm2_kernels::profile::{Op, Work, span};
use lfm2_kernels::{self as kernels, Panels, Scratch, Sum};

use super::{
    FORWARD, Matrix, TO_INPUTS, TO_WEIGHTS, add_product_tn, isa, multiply_panels, product_span,
};
use crate::pass::Span;

pub(crate) use attention::AttentionWeights;
pub(in crate::ops) use attention::attention;
pub(crate) use conv::ConvWeights;
pub(in crate::ops) use conv::short_conv;
pub(in crate::ops) use feed_forward::feed_forward;

/// Rows that go through a layer together, or as many more as a segment has: whole register tiles.
const ROWS: usize = 144;

/// A norm in front of a layer.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub(crate) weight: &'a Tensor,
    pub(crate) eps: f64,
}

/// What a layer keeps for its backward pass.
#[derive(Default)]
struct Kept(Mutex<Option<Scratch>>);

impl Kept {
    /// A panic leaves numbers that are still numbers.
    fn lock(&self) -> MutexGuard<'_, Option<Scratch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lost() -> Error {
    Error::msg("a layer without its forward pass")
}

/// Rows of a norm's input, and what it makes of them.
struct Normed<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
}

impl Normed<'_> {
    fn apply(&self, out: &mut [f32]) -> Result<()> {
        let _span = span(Op::RmsNorm, &[self.weight.len()], Work::NONE);
        kernels::rms_norm(isa()?, self.x, self.weight, self.eps, out).map_err(Error::wrap)
    }

    /// The gradient of the input into `dx`, as `sum` says.
    fn backward(
        &self,
        dy: &[f32],
        dx: &mut [f32],
        sum: Sum,
        dweight: &mut Option<Vec<f32>>,
    ) -> Result<()> {
        let _span = span(Op::RmsNorm, &[self.weight.len()], Work::NONE);
        let of = RmsNormed {
            x: self.x,
            weight: self.weight,
            eps: self.eps,
        };
        with_gradient(dweight, self.weight.len(), |dweight| {
            rms_norm_gradient(isa()?, of, dy, dx, sum, dweight).map_err(Error::wrap)
        })
    }
}

/// Calls `f` with what a gradient is added to, or with something to forget where nobody wants it.
fn with_gradient(
    gradient: &mut Option<Vec<f32>>,
    len: usize,
    f: impl FnOnce(&mut [f32]) -> Result<()>,
) -> Result<()> {
    match gradient {
        Some(gradient) => f(gradient),
        None => f(&mut vec![0.0; len]),
    }
}

/// Adds the gradient of a weight `(out, in)` that made `dy (rows, out)` of `x (rows, in)`.
fn weight_gradient(
    dy: &[f32],
    x: &[f32],
    rows: usize,
    dweight: &mut Option<Vec<f32>>,
) -> Result<()> {
    let Some(dweight) = dweight else {
        return Ok(());
    };
    let (outputs, inputs) = (dy.len() / rows.max(1), x.len() / rows.max(1));
    let _span = product_span(TO_WEIGHTS, [outputs, rows, inputs]);
    let (dy, x) = (Matrix::new(dy, rows, outputs), Matrix::new(x, rows, inputs));
    add_product_tn(dy, x, dweight, inputs)
}

/// A weight `(out, in)`, ready for the product of its forward pass.
struct Forth(Panels);

impl Forth {
    fn new(weight: &[f32], inputs: usize) -> Result<Self> {
        let outputs = weight.len() / inputs.max(1);
        let _span = span(Op::Transpose, &[outputs, inputs], Work::NONE);
        let weight = Matrix::new(weight, outputs, inputs).view()?;
        Ok(Self(Panels::across(isa()?, weight)))
    }

    /// `x (rows, in)` times the weight into or to `out (rows, out)`.
    fn apply(&self, x: &[f32], out: &mut [f32], sum: Sum) -> Result<()> {
        multiply_panels(FORWARD, x, &self.0, out, sum)
    }
}

/// A weight `(out, in)`, ready for the gradient of its inputs.
struct Back(Panels);

impl Back {
    fn new(weight: &[f32], inputs: usize) -> Result<Self> {
        let outputs = weight.len() / inputs.max(1);
        let _span = span(Op::Transpose, &[outputs, inputs], Work::NONE);
        let weight = Matrix::new(weight, outputs, inputs).view()?;
        Ok(Self(Panels::new(isa()?, weight)))
    }

    /// `dy (rows, out)` times the weight into or to `dx (rows, in)`.
    fn apply(&self, dy: &[f32], dx: &mut [f32], sum: Sum) -> Result<()> {
        multiply_panels(TO_INPUTS, dy, &self.0, dx, sum)
    }
}

/// Parts of some lengths, one after another.
fn parts<const N: usize>(mut values: &mut [f32], lens: [usize; N]) -> [&mut [f32]; N] {
    lens.map(|len| {
        let (part, rest) = std::mem::take(&mut values).split_at_mut(len);
        values = rest;
        part
    })
}

/// Segments that go through a layer together, with places relative to the first.
struct Group {
    rows: Range<usize>,
    spans: Vec<Span>,
}

impl Group {
    fn of(&self, width: usize) -> Range<usize> {
        self.rows.start * width..self.rows.end * width
    }
}

fn groups(spans: &[Span]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for span in spans {
        let end = span.start + span.len;
        let open = groups
            .last_mut()
            .filter(|group| end - group.rows.start <= ROWS);
        match open {
            Some(group) => {
                group.rows.end = end;
                let start = span.start - group.rows.start;
                group.spans.push(Span { start, ..*span });
            }
            None => groups.push(Group {
                rows: span.start..end,
                spans: vec![Span { start: 0, ..*span }],
            }),
        }
    }
    groups
}

/// The most rows of a group.
fn tallest(groups: &[Group]) -> usize {
    groups.iter().map(|g| g.rows.len()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
