//! One tensor of a merge, worked through in pieces.

use std::ops::Range;

use super::select::Cut;
use super::{Method, Rescale, Sparsify, TrimScope, rules};
use crate::{Error, Result};

/// Decides about dropping: told the probability of the next element to be kept, says whether it is.
pub type Draw<'a> = Box<dyn FnMut(f64) -> bool + 'a>;

/// About how many elements are worked on at a time.
const PIECE: usize = 1 << 18;

/// What a merge reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Base,
    Model(usize),
}

/// One tensor of all models.
pub(super) struct Operands<'a, 'd> {
    pub(super) shape: &'a [usize],
    pub(super) weights: &'a [f64],
    pub(super) read: &'a dyn Fn(Part, Range<usize>) -> Result<Vec<f64>>,
    /// A new stream of decisions for a model; the same one every time it is asked for.
    pub(super) draw: &'a dyn Fn(usize) -> Draw<'d>,
}

impl Operands<'_, '_> {
    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Rows along the second dimension: how many elements and how far apart; a vector is one row.
    fn rows(&self) -> (usize, usize) {
        match self.shape {
            [] => (1, 1),
            [length] => (*length, 1),
            [_, row, inner @ ..] => (*row, inner.iter().product()),
        }
    }

    /// The pieces of the tensor; none divides a block of rows.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (row, inner) = self.rows();
        let size = PIECE.next_multiple_of((row * inner).max(1));
        let elements = self.elements();
        (0..elements)
            .step_by(size)
            .map(move |start| start..(start + size).min(elements))
    }

    fn change(&self, model: usize, range: Range<usize>) -> Result<Vec<f64>> {
        let base = (self.read)(Part::Base, range.clone())?;
        let mut change = (self.read)(Part::Model(model), range)?;
        change.iter_mut().zip(base).for_each(|(x, b)| *x -= b);
        Ok(change)
    }

    /// Hands every change of a model over, in order.
    pub(super) fn each_change(&self, model: usize, take: &mut dyn FnMut(f64)) -> Result<()> {
        for range in self.pieces() {
            self.change(model, range)?.into_iter().for_each(&mut *take);
        }
        Ok(())
    }
}

/// What has to be known of a whole tensor before its first piece is merged.
enum Prepared<'d> {
    Soup,
    /// Weights of the two models.
    Slerp(f64, f64),
    Changes(Vec<Thinning<'d>>),
}

/// How the changes of one model are thinned out, and where in the stream of decisions it is.
enum Thinning<'d> {
    None,
    Cut(Cut),
    Dropped {
        draw: Draw<'d>,
        /// Instead of dividing by the probability.
        factor: Option<f64>,
    },
}

/// Merges a tensor and hands it over piece by piece. `cuts` are those of the whole model, one per
/// model, where the method trims by them.
pub(super) fn merge_pieces(
    method: &Method,
    operands: &Operands<'_, '_>,
    cuts: Option<&[Cut]>,
    mut take: impl FnMut(Vec<f64>) -> Result<()>,
) -> Result<()> {
    let mut prepared = prepare(method, operands, cuts)?;
    for range in operands.pieces() {
        take(piece(method, operands, &mut prepared, range)?)?;
    }
    Ok(())
}

/// Merges one tensor that is in memory, element by element in `f64`.
///
/// * `weights` and `models`: one each per model; `base` where the [`Method`] needs one.
/// * `draw`: for methods that drop, the decisions about the elements of a model in order.
///
/// With [`TrimScope::Model`] the tensor is taken for the whole model.
///
/// # Errors
/// As [`Method::validate`], or when sizes differ.
pub fn merge_tensor<'d>(
    method: &Method,
    shape: &[usize],
    weights: &[f64],
    base: Option<&[f64]>,
    models: &[&[f64]],
    draw: &dyn Fn(usize) -> Draw<'d>,
) -> Result<Vec<f64>> {
    method.validate(weights)?;
    let elements = shape.iter().product::<usize>();
    let mut sizes = models.iter().chain(&base).map(|values| values.len());
    if models.len() != weights.len() || sizes.any(|n| n != elements) {
        let detail = format!("expected {} tensors of shape {shape:?}", weights.len());
        return Err(Error::option("models", detail));
    }
    let base = match (base, method.needs_base()) {
        (Some(base), _) => base,
        (None, false) => &[],
        (None, true) => return Err(Error::option("base", "this method needs a base model")),
    };
    let read = |part: Part, range: Range<usize>| {
        let values = match part {
            Part::Base => base,
            Part::Model(model) => models[model],
        };
        Ok(values[range].to_vec())
    };
    let operands = Operands {
        shape,
        weights,
        read: &read,
        draw,
    };
    let mut merged = Vec::with_capacity(elements);
    merge_pieces(method, &operands, None, |piece| {
        merged.extend(piece);
        Ok(())
    })?;
    Ok(merged)
}

fn prepare<'d>(
    method: &Method,
    operands: &Operands<'_, 'd>,
    cuts: Option<&[Cut]>,
) -> Result<Prepared<'d>> {
    Ok(match *method {
        Method::Soup => Prepared::Soup,
        Method::Slerp { t } => {
            let (mut dot, mut first, mut second) = (0.0, 0.0, 0.0);
            for range in operands.pieces() {
                let a = (operands.read)(Part::Model(0), range.clone())?;
                let b = (operands.read)(Part::Model(1), range)?;
                for (x, y) in a.into_iter().zip(b) {
                    dot += x * y;
                    first += x * x;
                    second += y * y;
                }
            }
            let (a, b) = rules::slerp(t, dot, first.sqrt() * second.sqrt());
            Prepared::Slerp(a, b)
        }
        Method::Changes { sparsify, .. } => {
            let models = 0..operands.weights.len();
            let thinning = models.map(|model| {
                let cut = cuts.and_then(|cuts| cuts.get(model)).copied();
                thinning(sparsify, operands, model, cut)
            });
            Prepared::Changes(thinning.collect::<Result<_>>()?)
        }
    })
}

fn thinning<'d>(
    sparsify: Sparsify,
    operands: &Operands<'_, 'd>,
    model: usize,
    cut: Option<Cut>,
) -> Result<Thinning<'d>> {
    let (density, rescale) = match sparsify {
        Sparsify::None => return Ok(Thinning::None),
        Sparsify::Trim { density, scope } => {
            let cut = match (scope, cut) {
                (TrimScope::Model, Some(cut)) => cut,
                _ if density >= 1.0 => Cut::ALL,
                _ => {
                    let keep = (density * operands.elements() as f64).floor() as u64;
                    Cut::find(keep, |take| operands.each_change(model, take))?
                }
            };
            return Ok(Thinning::Cut(cut));
        }
        Sparsify::Random { density, rescale }
        | Sparsify::Ranked {
            density, rescale, ..
        } => (density, rescale),
    };
    if density >= 1.0 {
        return Ok(Thinning::None);
    }
    let factor = match rescale {
        Rescale::Inverse => None,
        Rescale::L1 => Some(l1_factor(sparsify, operands, model)?),
        Rescale::None => Some(1.0),
    };
    Ok(Thinning::Dropped {
        draw: (operands.draw)(model),
        factor,
    })
}

/// What brings the kept changes back to the sum of magnitudes of all; 1 where there is nothing.
fn l1_factor(sparsify: Sparsify, operands: &Operands<'_, '_>, model: usize) -> Result<f64> {
    let mut draw = (operands.draw)(model);
    let (mut before, mut after) = (0.0, 0.0);
    for range in operands.pieces() {
        let change = operands.change(model, range)?;
        let probabilities = probabilities(sparsify, operands, &change);
        for (x, p) in change.iter().zip(probabilities) {
            before += x.abs();
            if draw(p) {
                after += x.abs();
            }
        }
    }
    // The smallest sum that is rescaled by the published package.
    const LEAST: f64 = 1e-7;
    Ok(if before < LEAST || after < LEAST {
        1.0
    } else {
        before / after
    })
}

/// The probabilities of the elements of a piece to be kept.
fn probabilities(sparsify: Sparsify, operands: &Operands<'_, '_>, change: &[f64]) -> Vec<f64> {
    match sparsify {
        Sparsify::Ranked {
            density, epsilon, ..
        } => rules::ranked(change, operands.rows(), (density, epsilon)),
        Sparsify::Random { density, .. } => vec![density; change.len()],
        Sparsify::None | Sparsify::Trim { .. } => vec![1.0; change.len()],
    }
}

fn piece(
    method: &Method,
    operands: &Operands<'_, '_>,
    prepared: &mut Prepared<'_>,
    range: Range<usize>,
) -> Result<Vec<f64>> {
    match (prepared, method) {
        (Prepared::Slerp(a, b), _) => {
            let mut merged = (operands.read)(Part::Model(0), range.clone())?;
            let second = (operands.read)(Part::Model(1), range)?;
            merged
                .iter_mut()
                .zip(second)
                .for_each(|(x, y)| *x = *a * *x + *b * y);
            Ok(merged)
        }
        (
            Prepared::Changes(thinnings),
            Method::Changes {
                sparsify,
                combine,
                lambda,
            },
        ) => {
            let mut merged = (operands.read)(Part::Base, range.clone())?;
            let mut changes = Vec::with_capacity(thinnings.len());
            for (model, thinning) in thinnings.iter_mut().enumerate() {
                let mut change = operands.change(model, range.clone())?;
                thin(*sparsify, operands, thinning, &mut change);
                changes.push(change);
            }
            let mut here = vec![0.0; changes.len()];
            for (i, x) in merged.iter_mut().enumerate() {
                here.iter_mut().zip(&changes).for_each(|(h, c)| *h = c[i]);
                *x += lambda * rules::combine(*combine, operands.weights, &here);
            }
            Ok(merged)
        }
        _ => {
            let mut merged = vec![0.0; range.len()];
            for (model, weight) in operands.weights.iter().enumerate() {
                let values = (operands.read)(Part::Model(model), range.clone())?;
                merged
                    .iter_mut()
                    .zip(values)
                    .for_each(|(sum, x)| *sum += weight * x);
            }
            Ok(merged)
        }
    }
}

fn thin(
    sparsify: Sparsify,
    operands: &Operands<'_, '_>,
    thinning: &mut Thinning<'_>,
    change: &mut [f64],
) {
    match thinning {
        Thinning::None => {}
        Thinning::Cut(cut) => {
            for x in change {
                if !cut.keeps(*x) {
                    *x = 0.0;
                }
            }
        }
        Thinning::Dropped { draw, factor } => {
            let probabilities = probabilities(sparsify, operands, change);
            for (x, p) in change.iter_mut().zip(probabilities) {
                *x = match (draw(p), &factor) {
                    (false, _) => 0.0,
                    (true, Some(factor)) => *x * *factor,
                    (true, None) => *x / p,
                };
            }
        }
    }
}
