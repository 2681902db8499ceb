//! Operations with packed weights: on the slices of CPU tensors, or with the weights as numbers where
//! a gradient is tracked.

use candle_core::{DType, Device, Error, Result, Tensor, bail};
use lfm2_kernels::limits::Arithmetic;
use lfm2_kernels::packed::{
    GatedProduct, PackedMatrix, Precision, Product, QuantizedRows, Rows, Sum, multiply,
    multiply_gated, with_quantized, with_quantized_each,
};
use lfm2_kernels::profile::{Op, Work, span};
use lfm2_kernels::{MatMut, MatRef, with_scratch};

use super::fast::{finish, fits, isa, tensor, view, zeros};
use super::{Tail, plain};

/// A packed weight, and how the activations that meet it are rounded.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    matrix: PackedMatrix,
    precision: Precision,
}

impl Packed {
    /// With activations rounded as coarsely as suits the weight's format.
    pub(crate) fn new(matrix: PackedMatrix) -> Self {
        let precision = matrix.kind().precision();
        Self { matrix, precision }
    }

    /// With activations rounded for speed.
    pub(crate) fn coarse(self) -> Self {
        let kind = self.matrix.kind();
        // A setting that names no instructions is an error of the first product.
        let precision = isa().map_or(kind.coarsest(), |isa| kind.fastest(isa));
        Self { precision, ..self }
    }

    /// Whether activations are rounded to a byte.
    pub(crate) fn is_coarse(&self) -> bool {
        self.precision == Precision::Int8
    }

    /// With activations rounded so finely that logits do not show it.
    pub(crate) fn fine(self) -> Self {
        let precision = Precision::Int16;
        Self { precision, ..self }
    }
}

impl std::ops::Deref for Packed {
    type Target = PackedMatrix;

    fn deref(&self) -> &PackedMatrix {
        &self.matrix
    }
}

/// The matrices of a SwiGLU layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedSwiGlu<'a> {
    pub(crate) w1: &'a Packed,
    pub(crate) w2: &'a Packed,
    pub(crate) w3: &'a Packed,
}

/// `x Wᵀ` and what follows, for each weight: `(tokens, in)` to `(tokens, out)`.
pub(crate) fn matmul(x: &Tensor, layers: &[(&Packed, Tail<'_>)]) -> Result<Vec<Tensor>> {
    if !fits(&[x]) || !layers.iter().all(|(_, tail)| tail.fits()) {
        let one = |(weight, tail): &(&Packed, Tail<'_>)| tail.apply(dequantized_matmul(x, weight)?);
        return layers.iter().map(one).collect();
    }
    let weights: Vec<&Packed> = layers.iter().map(|(weight, _)| *weight).collect();
    let (tokens, cols) = x.dims2()?;
    let x = x.contiguous()?;
    let values = view(&x);
    let values = MatRef::new(values.slice::<f32>()?, tokens, cols).map_err(Error::wrap)?;
    let mut outs: Vec<Vec<f32>> = weights.iter().map(|w| zeros(tokens * w.rows())).collect();
    let mut slices: Vec<&mut [f32]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
    multiply_into(values, &weights, &mut slices)?;
    layers
        .iter()
        .zip(outs)
        .map(|((weight, tail), mut out)| {
            finish(&mut out, *tail)?;
            tensor(out, &[tokens, weight.rows()])
        })
        .collect()
}

/// `output(mix(inputs(x)))` for the layers of a mixer, with everything between the two projections in
/// working memory: `mix` gets the results of the `inputs`, `(tokens, out)` each, and fills what
/// `output` reads, `(tokens, in)`. `x` is one that [`fits`].
pub(crate) fn mixer<const N: usize>(
    x: &Tensor,
    inputs: [&Packed; N],
    output: &Packed,
    mix: impl FnOnce([&mut [f32]; N], &mut [f32]) -> Result<()>,
) -> Result<Tensor> {
    let (tokens, cols) = x.dims2()?;
    let x = x.contiguous()?;
    let values = view(&x);
    let values = MatRef::new(values.slice::<f32>()?, tokens, cols).map_err(Error::wrap)?;
    let widths = inputs.map(|w| w.rows());
    let total = widths.iter().sum::<usize>() + output.cols();
    with_scratch(tokens * total, |scratch| {
        let mut rest = scratch;
        let mut projected = widths.map(|width| {
            let (own, behind) = std::mem::take(&mut rest).split_at_mut(tokens * width);
            rest = behind;
            own
        });
        multiply_into(values, &inputs, &mut projected)?;
        mix(projected, rest)?;
        let mixed = MatRef::new(rest, tokens, output.cols()).map_err(Error::wrap)?;
        let mut out = zeros(tokens * output.rows());
        multiply_into(mixed, &[output], &mut [&mut out])?;
        tensor(out, &[tokens, output.rows()])
    })
}

/// `x Wᵀ` for each weight into the slice at its place.
fn multiply_into(x: MatRef<'_, f32>, weights: &[&Packed], outs: &mut [&mut [f32]]) -> Result<()> {
    let (tokens, cols) = (x.rows(), x.cols());
    for precision in [Precision::Int8, Precision::Int16] {
        let mut pairs: Vec<_> = weights
            .iter()
            .zip(outs.iter_mut())
            .filter(|(w, _)| w.precision == precision)
            .collect();
        if pairs.is_empty() {
            continue;
        }
        let quantize = span(Op::Quantize, &[tokens, cols], Work::NONE);
        with_quantized(isa()?, x, precision, |x| {
            drop(quantize);
            let _span = matmul_span(tokens, pairs.iter().map(|(w, _)| &w.matrix));
            let products = pairs
                .iter_mut()
                .map(|(weight, out)| replace(x, weight, out))
                .collect::<Result<_>>()?;
            multiply(isa()?, products).map_err(Error::wrap)
        })?;
    }
    Ok(())
}

/// The rows `ids` of a packed table, `(tokens, cols)`.
pub(crate) fn rows(table: &PackedMatrix, ids: &Tensor) -> Result<Tensor> {
    let ids: Vec<u32> = ids.flatten_all()?.to_dtype(DType::U32)?.to_vec1()?;
    let cols = table.cols();
    let mut out = zeros(ids.len() * cols);
    let _span = span(Op::Embed, &[ids.len(), cols], Work::NONE);
    for (&id, row) in ids.iter().zip(out.chunks_exact_mut(cols.max(1))) {
        table
            .dequantize_row(id as usize, row)
            .map_err(Error::wrap)?;
    }
    tensor(out, &[ids.len(), cols])
}

/// `w2(silu(w1 x) * w3 x)`; `None` where a gradient is tracked or the formats do not go together.
pub(crate) fn swiglu(x: &Tensor, layer: PackedSwiGlu<'_>) -> Option<Result<Tensor>> {
    (fits(&[x]) && layer.precision().is_some()).then(|| {
        let (tokens, _) = x.dims2()?;
        let mut out = zeros(tokens * layer.w2.rows());
        let x = x.contiguous()?;
        let values = view(&x);
        let values = MatRef::new(values.slice::<f32>()?, tokens, layer.w1.cols());
        let group = Group {
            layer,
            rows: Rows::All(values.map_err(Error::wrap)?),
            tokens,
        };
        run_groups(&[group], &mut out)?;
        tensor(out, &[tokens, layer.w2.rows()])
    })
}

/// The experts' answers, weighted and added up per token: `tokens[e]` go through `experts[e]`, and
/// `slots[e]` are the places of their weights in `(tokens, per_token)`. `None` as for [`swiglu`].
pub(crate) fn experts(
    x: &Tensor,
    experts: &[PackedSwiGlu<'_>],
    tokens: &[&[u32]],
    slots: &[&[u32]],
    weights: &Tensor,
) -> Option<Result<Tensor>> {
    let precision = experts.first()?.precision();
    let alike = precision.is_some() && experts.iter().all(|e| e.precision() == precision);
    (alike && fits(&[x, weights])).then(|| {
        let (count, hidden) = x.dims2()?;
        let x = x.contiguous()?;
        let values = view(&x);
        let values = MatRef::new(values.slice::<f32>()?, count, hidden).map_err(Error::wrap)?;
        let groups: Vec<Group<'_>> = experts
            .iter()
            .zip(tokens)
            .filter(|(_, tokens)| !tokens.is_empty())
            .map(|(&layer, tokens)| Group {
                layer,
                rows: Rows::Picked(values, tokens),
                tokens: tokens.len(),
            })
            .collect();
        let routed: usize = tokens.iter().map(|t| t.len()).sum();
        let mut answers = zeros(routed * hidden);
        run_groups(&groups, &mut answers)?;

        let weights = weights.flatten_all()?;
        let weights = view(&weights);
        let weights = weights.slice::<f32>()?;
        let mut out = zeros(count * hidden);
        let places = tokens.iter().zip(slots).flat_map(|(t, s)| t.iter().zip(*s));
        for ((&token, &slot), answer) in places.zip(answers.chunks_exact(hidden.max(1))) {
            let Some(&weight) = weights.get(slot as usize) else {
                bail!("slot {slot} of {} expert weights", weights.len())
            };
            let out = &mut out[token as usize * hidden..][..hidden];
            out.iter_mut()
                .zip(answer)
                .for_each(|(out, v)| *out += weight * v);
        }
        tensor(out, &[count, hidden])
    })
}

impl PackedSwiGlu<'_> {
    /// How both inputs of the layer are rounded, if `w1` and `w3` agree on it.
    fn precision(&self) -> Option<[Precision; 2]> {
        let inner = self.w1.precision;
        (inner == self.w3.precision).then_some([inner, self.w2.precision])
    }
}

/// Some rows and the layer they go through.
struct Group<'a> {
    layer: PackedSwiGlu<'a>,
    rows: Rows<'a>,
    tokens: usize,
}

/// Runs every group through its layer and writes the answers one after another. All layers round
/// activations alike.
fn run_groups(groups: &[Group<'_>], out: &mut [f32]) -> Result<()> {
    let Some(precisions) = groups.first().and_then(|group| group.layer.precision()) else {
        return Ok(());
    };
    let inner: usize = groups.iter().map(|g| g.tokens * g.layer.w1.rows()).sum();
    with_scratch(inner, |products| {
        inner_half(groups, precisions[0], products)?;
        outer_half(groups, precisions[1], products, out)
    })
}

/// `silu(w1 x) * w3 x` of every group, one after another.
fn inner_half(groups: &[Group<'_>], precision: Precision, out: &mut [f32]) -> Result<()> {
    let inputs: Vec<Rows<'_>> = groups.iter().map(|group| group.rows).collect();
    let tokens = groups.iter().map(|g| g.tokens).sum();
    let cols = groups.first().map_or(0, |g| g.layer.w1.cols());
    let quantize = span(Op::Quantize, &[tokens, cols], Work::NONE);
    with_quantized_each(isa()?, &inputs, precision, |each| {
        drop(quantize);
        let matrices = groups
            .iter()
            .flat_map(|g| [&g.layer.w1.matrix, &g.layer.w3.matrix]);
        let _span = groups_span(groups, matrices, tokens);
        let mut rest = out;
        let mut products = Vec::with_capacity(groups.len());
        for (group, x) in groups.iter().zip(each) {
            let (gate, up) = (&group.layer.w1.matrix, &group.layer.w3.matrix);
            let out = take(&mut rest, group.tokens, gate.rows())?;
            products.push(GatedProduct { x, gate, up, out });
        }
        multiply_gated(isa()?, products).map_err(Error::wrap)
    })
    .map_err(Error::wrap)?
}

/// `w2` of every group.
fn outer_half(
    groups: &[Group<'_>],
    precision: Precision,
    products: &[f32],
    out: &mut [f32],
) -> Result<()> {
    let mut rest = products;
    let mut inputs = Vec::with_capacity(groups.len());
    for group in groups {
        let (own, behind) = rest.split_at(group.tokens * group.layer.w2.cols());
        let own = MatRef::new(own, group.tokens, group.layer.w2.cols());
        inputs.push(Rows::All(own.map_err(Error::wrap)?));
        rest = behind;
    }
    let tokens = groups.iter().map(|g| g.tokens).sum();
    let cols = groups.first().map_or(0, |g| g.layer.w2.cols());
    let quantize = span(Op::Quantize, &[tokens, cols], Work::NONE);
    with_quantized_each(isa()?, &inputs, precision, |each| {
        drop(quantize);
        let _span = groups_span(groups, groups.iter().map(|g| &g.layer.w2.matrix), tokens);
        let mut rest = out;
        let mut products = Vec::with_capacity(groups.len());
        for (group, x) in groups.iter().zip(each) {
            let weight = &group.layer.w2.matrix;
            let out = take(&mut rest, group.tokens, weight.rows())?;
            let sum = Sum::Replace;
            products.push(Product {
                x,
                weight,
                out,
                sum,
            });
        }
        multiply(isa()?, products).map_err(Error::wrap)
    })
    .map_err(Error::wrap)?
}

/// The first `(rows, cols)` of what is left.
fn take<'a>(rest: &mut &'a mut [f32], rows: usize, cols: usize) -> Result<MatMut<'a, f32>> {
    let Some((own, behind)) = std::mem::take(rest).split_at_mut_checked(rows * cols) else {
        bail!("a buffer too short for ({rows}, {cols}) results")
    };
    *rest = behind;
    MatMut::new(own, rows, cols).map_err(Error::wrap)
}

fn replace<'a>(
    x: &'a QuantizedRows<'a>,
    weight: &'a PackedMatrix,
    out: &'a mut [f32],
) -> Result<Product<'a>> {
    let out = MatMut::new(out, x.rows(), weight.rows()).map_err(Error::wrap)?;
    let sum = Sum::Replace;
    Ok(Product {
        x,
        weight,
        out,
        sum,
    })
}

/// `x Wᵀ` with the weights as numbers: carries gradients to `x`, and takes any type of `x`.
fn dequantized_matmul(x: &Tensor, weight: &PackedMatrix) -> Result<Tensor> {
    let (rows, cols) = (weight.rows(), weight.cols());
    let mut numbers = zeros(rows * cols);
    for (row, out) in numbers.chunks_exact_mut(cols.max(1)).enumerate() {
        weight.dequantize_row(row, out).map_err(Error::wrap)?;
    }
    let numbers = Tensor::from_vec(numbers, (rows, cols), &Device::Cpu)?;
    plain::matmul_t(x, &numbers)
}

fn work<'a>(rows: usize, weights: impl Iterator<Item = &'a PackedMatrix>) -> Work {
    let (mut bytes, mut numbers) = (0, 0);
    for weight in weights {
        bytes += weight.bytes().len();
        numbers += weight.rows() * weight.cols();
    }
    Work::dot(bytes, rows * numbers, Arithmetic::Int8)
}

/// Times products of `tokens` rows with matrices that read the same input.
fn matmul_span<'a>(
    tokens: usize,
    weights: impl Iterator<Item = &'a PackedMatrix> + Clone,
) -> lfm2_kernels::profile::Span {
    let Some(first) = weights.clone().next() else {
        return span(Op::Matmul("none"), &[tokens], Work::NONE);
    };
    let outputs = weights.clone().map(PackedMatrix::rows).sum();
    let shape = [tokens, first.cols(), outputs];
    span(
        Op::Matmul(first.kind().name()),
        &shape,
        work(tokens, weights),
    )
}

/// Times products of several groups.
fn groups_span<'a>(
    groups: &[Group<'_>],
    weights: impl Iterator<Item = &'a PackedMatrix> + Clone,
    tokens: usize,
) -> lfm2_kernels::profile::Span {
    if groups.len() == 1 {
        return matmul_span(tokens, weights);
    }
    let kind = weights.clone().next().map_or("none", |w| w.kind().name());
    let rows = |group: &Group<'_>| group.tokens;
    let per_group = weights.clone().count() / groups.len().max(1);
    let each = groups
        .iter()
        .flat_map(|g| std::iter::repeat_n(rows(g), per_group));
    let macs = each
        .zip(weights.clone())
        .map(|(n, w)| n * w.rows() * w.cols())
        .sum();
    let bytes = weights.map(|w| w.bytes().len()).sum();
    span(
        Op::Experts(kind),
        &[tokens],
        Work::dot(bytes, macs, Arithmetic::Int8),
    )
}
