//! The fast forms: kernels of `lfm2-kernels` on the slices of CPU tensors.
//!
//! Every function takes tensors that [`fits`] accepted and returns a fresh contiguous tensor.

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::OnceLock;

use candle_core::{
    CpuStorage, DType, Device, Error, InplaceOp1, Layout, Result, Storage, Tensor, WithDType, bail,
};
use half::{bf16, f16};
use lfm2_kernels::conv::ConvKernel;
use lfm2_kernels::limits::Arithmetic;
use lfm2_kernels::profile::{Op, Work, span};
use lfm2_kernels::{
    self as kernels, AttentionSpec, Isa, KvRef, KvShape, MatMut, MatRef, threads, with_scratch,
};

use super::{Mask, Tail};
use crate::attention::Visibility;
use crate::pass::Span;
use crate::rope::RopeTable;
use crate::short_conv::Window;
use crate::{Accuracy, Activation};

/// Whether the fast form applies to these activations: `f32` on a CPU, and nobody asks for
/// gradients.
pub(crate) fn fits(tensors: &[&Tensor]) -> bool {
    tensors
        .iter()
        .all(|t| t.dtype() == DType::F32 && t.device().is_cpu() && !t.track_op())
}

/// Whether the fast form can read `t` as weights or as a key-value cache.
pub(super) fn readable(t: &Tensor) -> bool {
    matches!(t.dtype(), DType::F32 | DType::BF16 | DType::F16)
        && t.device().is_cpu()
        && !t.track_op()
}

/// The instruction set in use: `LFM2_ISA`, or the best of this machine. A setting in the environment
/// that means nothing is an error here, where every kernel passes.
pub(super) fn isa() -> Result<Isa> {
    static ISA: OnceLock<std::result::Result<Isa, String>> = OnceLock::new();
    let isa = ISA.get_or_init(|| {
        threads::from_env().map_err(|e| e.to_string())?;
        Isa::from_env().map_err(|e| e.to_string())
    });
    isa.clone().map_err(Error::msg)
}

/// A CPU tensor, locked for reading.
pub(super) struct View<'a, G> {
    storage: G,
    layout: &'a Layout,
}

pub(super) fn view(tensor: &Tensor) -> View<'_, impl Deref<Target = Storage> + '_> {
    let (storage, layout) = tensor.storage_and_layout();
    View { storage, layout }
}

impl<G: Deref<Target = Storage>> View<'_, G> {
    /// The elements in order.
    pub(super) fn slice<T: WithDType>(&self) -> Result<&[T]> {
        let Storage::Cpu(storage) = &*self.storage else {
            bail!("expected a CPU tensor")
        };
        let Some((start, end)) = self.layout.contiguous_offsets() else {
            bail!("expected a contiguous tensor")
        };
        Ok(&storage.as_slice::<T>()?[start..end])
    }
}

pub(super) fn zeros(len: usize) -> Vec<f32> {
    vec![0.0; len]
}

pub(super) fn tensor(values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// `x W^T`, and what follows.
pub(super) fn linear(
    x: &Tensor,
    weight: &Tensor,
    accuracy: Accuracy,
    tail: Tail<'_>,
) -> Result<Tensor> {
    let (rows, cols) = x.dims2()?;
    let (outputs, inputs) = weight.dims2()?;
    let size = weight.dtype().size_in_bytes();
    let work = Work::dot(
        outputs * inputs * size,
        rows * outputs * inputs,
        Arithmetic::F32,
    );
    let _span = span(
        Op::Matmul(weight.dtype().as_str()),
        &[rows, inputs, outputs],
        work,
    );
    let x = x.contiguous()?;
    let (x, w) = (view(&x), view(weight));
    let x = MatRef::new(x.slice::<f32>()?, rows, cols).map_err(Error::wrap)?;
    let mut y = zeros(rows * outputs);
    let out = MatMut::new(&mut y, rows, outputs).map_err(Error::wrap)?;
    match weight.dtype() {
        DType::F32 => multiply(x, w.slice::<f32>()?, (outputs, inputs), out)?,
        DType::BF16 => multiply_bf16(x, w.slice::<bf16>()?, (outputs, inputs), out, accuracy)?,
        DType::F16 => multiply(x, w.slice::<f16>()?, (outputs, inputs), out)?,
        other => bail!("no kernel for weights of type {other:?}"),
    }
    finish(&mut y, tail)?;
    tensor(y, &[rows, outputs])
}

/// Does to products `(rows, out)` what follows them, in one pass.
pub(super) fn finish(y: &mut [f32], tail: Tail<'_>) -> Result<()> {
    let _span = span(Op::Add, &[y.len()], Work::NONE);
    let isa = isa()?;
    let Some(bias) = tail.bias else {
        if let Some(activation) = tail.activation {
            activate_in_place(isa, y, activation);
        }
        return Ok(());
    };
    let bias = view(bias);
    let bias = bias.slice::<f32>()?;
    match tail.activation {
        Some(Activation::Gelu) => kernels::add_bias_gelu_erf(isa, y, bias),
        Some(Activation::GeluTanh) => kernels::add_bias_gelu_tanh(isa, y, bias),
        Some(Activation::Silu) => kernels::add_bias_silu(isa, y, bias),
        None => kernels::add_bias(isa, y, bias),
    }
    .map_err(Error::wrap)
}

fn multiply<W: kernels::Element>(
    x: MatRef<'_, f32>,
    w: &[W],
    (rows, cols): (usize, usize),
    out: MatMut<'_, f32>,
) -> Result<()> {
    let w = MatRef::new(w, rows, cols).map_err(Error::wrap)?;
    kernels::matmul(isa()?, x, w, out).map_err(Error::wrap)
}

fn multiply_bf16(
    x: MatRef<'_, f32>,
    w: &[bf16],
    (rows, cols): (usize, usize),
    mut out: MatMut<'_, f32>,
    accuracy: Accuracy,
) -> Result<()> {
    if accuracy != Accuracy::Exact {
        let w = MatRef::new(w, rows, cols).map_err(Error::wrap)?;
        if kernels::matmul_bf16(isa()?, x, w, out.reborrow()).map_err(Error::wrap)? {
            return Ok(());
        }
    }
    multiply(x, w, (rows, cols), out)
}

pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let _span = span(Op::RmsNorm, x.dims(), Work::NONE);
    let x = x.contiguous()?;
    let mut y = zeros(x.elem_count());
    let (values, weight) = (view(&x), view(weight));
    kernels::rms_norm(isa()?, values.slice()?, weight.slice()?, eps as f32, &mut y)
        .map_err(Error::wrap)?;
    tensor(y, x.dims())
}

pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let _span = span(Op::RmsNorm, x.dims(), Work::NONE);
    let x = x.contiguous()?;
    let (values, weight, bias) = (view(&x), view(weight), view(bias));
    let mut y = zeros(x.elem_count());
    let affine = [weight.slice::<f32>()?, bias.slice::<f32>()?];
    kernels::layer_norm(isa()?, values.slice()?, affine, eps as f32, &mut y)
        .map_err(Error::wrap)?;
    tensor(y, x.dims())
}

/// Rows as long as `weight` and `bias`, normed into `out`.
pub(super) fn layer_norm_rows(
    values: &[f32],
    [weight, bias]: [&[f32]; 2],
    eps: f32,
    out: &mut [f32],
) {
    let dim = weight.len().max(1);
    for (row, out) in values.chunks_exact(dim).zip(out.chunks_exact_mut(dim)) {
        let mean = lane_sum(row, |v| v) / dim as f32;
        let variance = lane_sum(row, |v| (v - mean) * (v - mean)) / dim as f32;
        let scale = 1.0 / (variance + eps).sqrt();
        for (((out, v), w), b) in out.iter_mut().zip(row).zip(weight).zip(bias) {
            *out = (v - mean) * scale * w + b;
        }
    }
}

/// The sum of `f` of all values, in lanes that the compiler can keep in one register.
pub(super) fn lane_sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    let chunks = values.chunks_exact(lanes.len());
    let rest: f32 = chunks.remainder().iter().map(|v| f(*v)).sum();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += f(*v);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

pub(super) fn rope(x: &Tensor, table: &RopeTable) -> Result<Tensor> {
    let (_, heads, head_dim) = x.dims3()?;
    let _span = span(Op::RopeCache, x.dims(), Work::NONE);
    let x = x.contiguous()?;
    let mut y = view(&x).slice::<f32>()?.to_vec();
    let (cos, sin) = (view(&table.cos), view(&table.sin));
    kernels::rope(isa()?, &mut y, cos.slice()?, sin.slice()?, heads, head_dim)
        .map_err(Error::wrap)?;
    tensor(y, x.dims())
}

pub(super) fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let (gate, up) = (gate.contiguous()?, up.contiguous()?);
    let mut y = zeros(gate.elem_count());
    kernels::silu_mul(isa()?, view(&gate).slice()?, view(&up).slice()?, &mut y)
        .map_err(Error::wrap)?;
    tensor(y, gate.dims())
}

pub(super) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    let x = x.contiguous()?;
    let mut y = view(&x).slice::<f32>()?.to_vec();
    activate_in_place(isa()?, &mut y, activation);
    tensor(y, x.dims())
}

fn activate_in_place(isa: Isa, y: &mut [f32], activation: Activation) {
    match activation {
        Activation::Gelu => kernels::gelu_erf(isa, y),
        Activation::GeluTanh => kernels::gelu_tanh(isa, y),
        Activation::Silu => kernels::silu(isa, y),
    }
}

pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f64,
    mask: Mask,
) -> Result<Tensor> {
    let (_, heads, _) = q.dims3()?;
    let q = q.contiguous()?;
    let mut y = zeros(q.elem_count());
    attention_values(view(&q).slice()?, [k, v], heads, scale, mask, &mut y)?;
    tensor(y, q.dims())
}

/// Attention of `q (len, heads, d)` to `k`, `v (kv_heads, capacity, d)`, which fills `out` like `q`.
pub(crate) fn attention_values(
    q: &[f32],
    [k, v]: [&Tensor; 2],
    heads: usize,
    scale: f64,
    mask: Mask,
    out: &mut [f32],
) -> Result<()> {
    let (kv_heads, capacity, head_dim) = k.dims3()?;
    let tokens = q.len() / (heads * head_dim).max(1);
    // Of a prompt's own tokens half are seen on average; the rest of the cache wholly.
    let past = mask.past.min(mask.keys);
    let seen = past + (mask.keys - past).div_ceil(2);
    let bytes = 2 * kv_heads * mask.keys * head_dim * k.dtype().size_in_bytes();
    let work = Work::dot(bytes, 2 * tokens * heads * seen * head_dim, Arithmetic::F32);
    let _span = span(Op::Attention, &[tokens, heads, head_dim], work);
    let shape = KvShape {
        kv_heads,
        capacity,
        head_dim,
    };
    let spec = spec(heads, scale, mask)?;
    match k.dtype() {
        DType::F32 => attend::<f32>(q, [k, v], shape, mask.keys, &spec, out),
        DType::F16 => attend::<f16>(q, [k, v], shape, mask.keys, &spec, out),
        DType::BF16 => attend::<bf16>(q, [k, v], shape, mask.keys, &spec, out),
        other => bail!("no kernel for a cache of type {other:?}"),
    }
}

fn spec(heads: usize, scale: f64, mask: Mask) -> Result<AttentionSpec> {
    Ok(AttentionSpec {
        heads,
        scale: scale as f32,
        past: mask.past,
        visibility: match mask.visibility {
            Visibility::Causal => kernels::Visibility::Causal,
            Visibility::Bidirectional => kernels::Visibility::All,
            Visibility::Sliding { window } => match NonZeroUsize::new(window) {
                Some(window) => kernels::Visibility::Window(window),
                None => bail!("a window of 0 keys"),
            },
        },
    })
}

/// The sizes of an attention layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) query: usize,
    pub(crate) kv: usize,
    pub(crate) dim: usize,
}

/// Attention inside every span of `q (tokens, heads, d)`, `k` and `v (tokens, kv_heads, d)`, without a
/// cache; fills `out` like `q`.
pub(crate) fn span_attention(
    [q, k, v]: [&[f32]; 3],
    spans: &[Span],
    heads: Heads,
    scale: f64,
    visibility: Visibility,
    out: &mut [f32],
) -> Result<()> {
    let Heads { query, kv, dim } = heads;
    let isa = isa()?;
    for segment in spans {
        let (start, len, keys) = (segment.start, segment.len, segment.keys);
        let bytes = 2 * kv * keys * dim * size_of::<f32>();
        let work = Work::dot(bytes, 2 * len * query * keys * dim, Arithmetic::F32);
        let _span = span(Op::Attention, &[len, query, dim], work);
        let shape = KvShape {
            kv_heads: kv,
            capacity: len,
            head_dim: dim,
        };
        let own = start * query * dim..(start + len) * query * dim;
        let new = start * kv * dim..(start + len) * kv * dim;
        let past = 0;
        let spec = spec(
            query,
            scale,
            Mask {
                visibility,
                past,
                keys,
            },
        )?;
        with_scratch(2 * len * kv * dim, |scratch| {
            // By head, as the kernel wants them.
            let (by_head_k, by_head_v) = scratch.split_at_mut(len * kv * dim);
            kernels::append_kv(&k[new.clone()], shape, 0, by_head_k)?;
            kernels::append_kv(&v[new], shape, 0, by_head_v)?;
            let kv = KvRef::new(by_head_k, by_head_v, shape, keys)?;
            kernels::attention(isa, &q[own.clone()], kv, &spec, &mut out[own])
        })
        .map_err(Error::wrap)?;
    }
    Ok(())
}

/// Attention of encoders inside every span, with everything rounded to `bf16`; `None` where that is not
/// faster.
pub(super) fn rounded_attention(
    [q, k, v]: [&Tensor; 3],
    spans: &[Span],
    scale: f64,
) -> Result<Option<Tensor>> {
    let (_, query, dim) = q.dims3()?;
    let kv_heads = k.dim(1)?;
    let (q, k, v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
    let mut y = zeros(q.elem_count());
    let views = (view(&q), view(&k), view(&v));
    let values: [&[f32]; 3] = [views.0.slice()?, views.1.slice()?, views.2.slice()?];
    let isa = isa()?;
    for &Span { start, len, .. } in spans {
        let work = Work::dot(0, 2 * len * query * len * dim, Arithmetic::Bf16);
        let _span = span(Op::Attention, &[len, query, dim], work);
        let widths = [query * dim, kv_heads * dim, kv_heads * dim];
        let own = |i: usize| &values[i][start * widths[i]..(start + len) * widths[i]];
        let shape = KvShape {
            kv_heads,
            capacity: len,
            head_dim: dim,
        };
        let out = &mut y[start * widths[0]..(start + len) * widths[0]];
        let qkv = [own(0), own(1), own(2)];
        let scale = scale as f32;
        if !kernels::encoder_attention_bf16(isa, qkv, (query, shape), scale, out)
            .map_err(Error::wrap)?
        {
            return Ok(None);
        }
    }
    tensor(y, q.dims()).map(Some)
}

/// [`span_attention`] of tensors.
pub(super) fn packed_attention(
    [q, k, v]: [&Tensor; 3],
    spans: &[Span],
    scale: f64,
    visibility: Visibility,
) -> Result<Tensor> {
    let (_, query, dim) = q.dims3()?;
    let kv = k.dim(1)?;
    let (q, k, v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
    let mut y = zeros(q.elem_count());
    let views = (view(&q), view(&k), view(&v));
    let values = [views.0.slice()?, views.1.slice()?, views.2.slice()?];
    let heads = Heads { query, kv, dim };
    span_attention(values, spans, heads, scale, visibility, &mut y)?;
    tensor(y, q.dims())
}

fn attend<T: kernels::Element + WithDType>(
    q: &[f32],
    [k, v]: [&Tensor; 2],
    shape: KvShape,
    keys: usize,
    spec: &AttentionSpec,
    out: &mut [f32],
) -> Result<()> {
    let (k, v) = (view(k), view(v));
    let kv = KvRef::new(k.slice::<T>()?, v.slice::<T>()?, shape, keys).map_err(Error::wrap)?;
    kernels::attention(isa()?, q, kv, spec, out).map_err(Error::wrap)
}

/// The convolution's kernel as the fast form wants it.
pub(super) fn conv_kernel(kernel: &Tensor, bias: Option<&Tensor>) -> Result<ConvKernel> {
    let kernel = kernel.contiguous()?;
    let channels = kernel.dim(0)?;
    let bias = bias.map(view);
    let bias = bias.as_ref().map(|b| b.slice::<f32>()).transpose()?;
    ConvKernel::new(view(&kernel).slice()?, bias, channels).map_err(Error::wrap)
}

/// One causal segment `(len, 3 * channels)`; returns the output and the state after it.
pub(super) fn short_conv(
    bcu: &Tensor,
    kernel: &ConvKernel,
    state: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let len = bcu.dim(0)?;
    let bcu = bcu.contiguous()?;
    let mut y = zeros(len * kernel.channels());
    let moved = short_conv_values(view(&bcu).slice()?, kernel, state, &mut y)?;
    Ok((tensor(y, &[len, kernel.channels()])?, moved))
}

/// [`short_conv`] of values `(len, 3 * channels)` into `out (len, channels)`; returns the state after it.
pub(crate) fn short_conv_values(
    bcu: &[f32],
    kernel: &ConvKernel,
    state: &Tensor,
    out: &mut [f32],
) -> Result<Tensor> {
    let len = out.len() / kernel.channels();
    let _span = span(Op::ShortConv, &[len, kernel.channels()], Work::NONE);
    let mut moved = view(state).slice::<f32>()?.to_vec();
    kernels::short_conv(isa()?, bcu, kernel, &mut moved, out).map_err(Error::wrap)?;
    tensor(moved, state.dims())
}

/// The convolution inside every span of `bcu (tokens, 3 * channels)` from empty states, into
/// `out (tokens, channels)`.
pub(crate) fn span_conv(
    bcu: &[f32],
    kernel: &ConvKernel,
    spans: &[Span],
    window: Window,
    out: &mut [f32],
) -> Result<()> {
    let channels = kernel.channels();
    let isa = isa()?;
    let mut state = Vec::new();
    for segment in spans {
        let _span = span(Op::ShortConv, &[segment.len, channels], Work::NONE);
        let bcu = &bcu[segment.start * 3 * channels..][..segment.len * 3 * channels];
        let out = &mut out[segment.start * channels..][..segment.len * channels];
        match window {
            Window::Centred => kernels::short_conv_centred(isa, bcu, kernel, out),
            Window::Causal => {
                state.clear();
                state.resize(kernel.state_len(), 0.0);
                kernels::short_conv(isa, bcu, kernel, &mut state, out)
            }
        }
        .map_err(Error::wrap)?;
    }
    Ok(())
}

/// [`span_conv`] of a tensor.
pub(super) fn packed_conv(
    bcu: &Tensor,
    kernel: &ConvKernel,
    spans: &[Span],
    window: Window,
) -> Result<Tensor> {
    let tokens = bcu.dim(0)?;
    let bcu = bcu.contiguous()?;
    let mut y = zeros(tokens * kernel.channels());
    span_conv(view(&bcu).slice()?, kernel, spans, window, &mut y)?;
    tensor(y, &[tokens, kernel.channels()])
}

/// One segment seen from both sides.
pub(super) fn short_conv_centred(bcu: &Tensor, kernel: &ConvKernel) -> Result<Tensor> {
    let len = bcu.dim(0)?;
    let bcu = bcu.contiguous()?;
    let mut y = zeros(len * kernel.channels());
    kernels::short_conv_centred(isa()?, view(&bcu).slice()?, kernel, &mut y)
        .map_err(Error::wrap)?;
    tensor(y, &[len, kernel.channels()])
}

/// Writes new keys or values `(len, kv_heads, head_dim)` into `cache (kv_heads, capacity, head_dim)` from
/// position `past` on, in place.
pub(super) fn append_kv(cache: &Tensor, new: &Tensor, past: usize) -> Result<()> {
    let new = new.contiguous()?;
    append_kv_values(cache, view(&new).slice()?, past)
}

/// [`append_kv`] of values.
pub(crate) fn append_kv_values(cache: &Tensor, new: &[f32], past: usize) -> Result<()> {
    cache.inplace_op1(&AppendKv { new, past })
}

struct AppendKv<'a> {
    new: &'a [f32],
    past: usize,
}

impl InplaceOp1 for AppendKv<'_> {
    fn name(&self) -> &'static str {
        "append-kv"
    }

    fn cpu_fwd(&self, cache: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (kv_heads, capacity, head_dim) = layout.shape().dims3()?;
        let shape = KvShape {
            kv_heads,
            capacity,
            head_dim,
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("expected a contiguous cache")
        };
        let (new, past) = (self.new, self.past);
        let written = match cache {
            CpuStorage::F32(c) => kernels::append_kv(new, shape, past, &mut c[start..end]),
            CpuStorage::F16(c) => kernels::append_kv(new, shape, past, &mut c[start..end]),
            CpuStorage::BF16(c) => kernels::append_kv(new, shape, past, &mut c[start..end]),
            _ => bail!("no kernel for a cache of this type"),
        };
        written.map_err(Error::wrap)
    }
}

/// RMS norm of every `weight.len()` values, in place.
pub(crate) fn rms_norm_values(x: &mut [f32], weight: &Tensor, eps: f64) -> Result<()> {
    kernels::rms_norm_in_place(isa()?, x, view(weight).slice()?, eps as f32).map_err(Error::wrap)
}

/// Rotates `(tokens, heads, head_dim)` values in place.
pub(crate) fn rope_values(
    x: &mut [f32],
    table: &RopeTable,
    heads: usize,
    head_dim: usize,
) -> Result<()> {
    let (cos, sin) = (view(&table.cos), view(&table.sin));
    kernels::rope(isa()?, x, cos.slice()?, sin.slice()?, heads, head_dim).map_err(Error::wrap)
}

/// `x + y`, element by element, in one pass.
pub(super) fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let _span = span(Op::Add, x.dims(), Work::NONE);
    let (a, b) = (x.contiguous()?, y.contiguous()?);
    let (a, b) = (view(&a), view(&b));
    let sums = a.slice::<f32>()?.iter().zip(b.slice::<f32>()?);
    tensor(sums.map(|(a, b)| a + b).collect(), x.dims())
}
