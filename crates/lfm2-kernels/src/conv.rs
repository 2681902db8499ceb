//! The gated short convolution of the family's conv layers.
//!
//! A layer's input projection gives rows `[B | C | u]`, each part `channels` wide. With `g = B * u`
//! the output is `C * (conv(g) + bias)`, where `conv` runs along the tokens of one sequence,
//! separately for each channel (LFM2 report §2).

use crate::element::load_head;
use crate::simd::{Kernel, Simd};
use crate::threads::for_each_chunk;
use crate::{Isa, ShapeError};

/// Tokens one thread takes at a time.
const TASK_TOKENS: usize = 16;

/// The weights of one short convolution, laid out so that neighbouring channels are neighbours.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvKernel {
    /// `(taps, channels)`, oldest tap first.
    taps: Vec<f32>,
    /// `(channels)`, zero without a bias.
    bias: Vec<f32>,
}

impl ConvKernel {
    /// From weights as checkpoints store them: `weight (channels, taps)` and, if there is one,
    /// `bias (channels)`.
    ///
    /// # Errors
    /// When a size is zero, `weight` has another length than `channels * taps`, or `bias` than
    /// `channels`.
    pub fn new(weight: &[f32], bias: Option<&[f32]>, channels: usize) -> Result<Self, ShapeError> {
        let taps = ShapeError::divide("conv weight", weight.len(), channels)?;
        if taps == 0 {
            return Err(ShapeError::Zero { what: "conv taps" });
        }
        let bias = bias.map_or_else(|| vec![0.0; channels], <[f32]>::to_vec);
        ShapeError::check("conv bias", channels, bias.len())?;
        let mut transposed = vec![0.0; weight.len()];
        for (channel, taps) in weight.chunks_exact(taps).enumerate() {
            for (tap, &value) in taps.iter().enumerate() {
                transposed[tap * channels + channel] = value;
            }
        }
        Ok(Self {
            taps: transposed,
            bias,
        })
    }

    /// How many channels it has.
    pub fn channels(&self) -> usize {
        self.bias.len()
    }

    /// How many tokens one output sees.
    pub fn taps(&self) -> usize {
        self.taps.len() / self.bias.len()
    }

    /// The weights of every tap, oldest first, `(channels)` each.
    pub(crate) fn tap_rows(&self) -> impl Iterator<Item = &[f32]> {
        self.taps.chunks_exact(self.bias.len())
    }

    /// `(channels)`
    pub(crate) fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// How many values the state of a sequence has: `(taps - 1) * channels`.
    pub fn state_len(&self) -> usize {
        self.taps.len() - self.bias.len()
    }
}

/// The causal convolution of the next tokens of one sequence.
///
/// `bcx (tokens, 3 * channels)`, `out (tokens, channels)`. `state (taps - 1, channels)` holds `g` of
/// the last tokens, oldest first: zeros before the first token, updated here.
///
/// # Errors
/// When `out` is not whole tokens, or the other lengths do not follow from it.
pub fn short_conv(
    isa: Isa,
    bcx: &[f32],
    kernel: &ConvKernel,
    state: &mut [f32],
    out: &mut [f32],
) -> Result<(), ShapeError> {
    ShapeError::check("short_conv state", kernel.state_len(), state.len())?;
    convolve(isa, bcx, kernel, state, kernel.taps() - 1, out)?;
    push_state(bcx, kernel.channels(), state);
    Ok(())
}

/// The convolution of a whole sequence with its window centred on each token: output `t` sees
/// tokens `t - taps / 2` (rounded down) to `t - taps / 2 + taps - 1`, zeros outside the sequence.
///
/// `bcx (tokens, 3 * channels)`, `out (tokens, channels)`.
///
/// # Errors
/// When `out` is not whole tokens, or `bcx` has another number of them.
pub fn short_conv_centred(
    isa: Isa,
    bcx: &[f32],
    kernel: &ConvKernel,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    convolve(isa, bcx, kernel, &[], kernel.taps() / 2, out)
}

/// Tap `j` of output `t` sees token `t - before + j`; tokens before the first are in `history`
/// (the last row is the latest) or zero.
fn convolve(
    isa: Isa,
    bcx: &[f32],
    kernel: &ConvKernel,
    history: &[f32],
    before: usize,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    let channels = kernel.channels();
    let tokens = ShapeError::divide("short_conv out", out.len(), channels)?;
    ShapeError::check(
        "short_conv bcx",
        ShapeError::product("short_conv bcx", &[tokens, 3, channels])?,
        bcx.len(),
    )?;
    let work = out.len() * kernel.taps() * 2;
    for_each_chunk(out, TASK_TOKENS * channels, work, |task, out| {
        let first = task * TASK_TOKENS;
        isa.run(Tokens {
            bcx,
            kernel,
            history,
            before,
            first,
            out,
        });
    });
    Ok(())
}

/// Appends `g` of the last tokens and drops as many of the oldest rows.
fn push_state(bcx: &[f32], channels: usize, state: &mut [f32]) {
    let rows = state.len() / channels;
    let tokens = bcx.len() / (3 * channels);
    let new = tokens.min(rows);
    state.copy_within(new * channels.., 0);
    let kept = (rows - new) * channels;
    let latest = bcx.chunks_exact(3 * channels).skip(tokens - new);
    for (state, token) in state[kept..].chunks_exact_mut(channels).zip(latest) {
        let (b, u) = (&token[..channels], &token[2 * channels..]);
        for ((g, b), u) in state.iter_mut().zip(b).zip(u) {
            *g = b * u;
        }
    }
}

/// A run of output tokens. Each recomputes the few products `B * u` it sees: that is cheaper than
/// storing them, and makes tokens independent.
struct Tokens<'a> {
    bcx: &'a [f32],
    kernel: &'a ConvKernel,
    history: &'a [f32],
    before: usize,
    first: usize,
    out: &'a mut [f32],
}

/// Where a tap finds `g`.
enum Source<'a> {
    /// The product of these two rows.
    Product(&'a [f32], &'a [f32]),
    /// This row of the history.
    Stored(&'a [f32]),
}

impl<'a> Tokens<'a> {
    /// `g` of token `first + offset - before + tap`, unless it is zero for lack of a token.
    #[inline(always)]
    fn source(&self, offset: usize, tap: usize) -> Option<Source<'a>> {
        let channels = self.kernel.channels();
        let shifted = self.first + offset + tap;
        if let Some(token) = shifted.checked_sub(self.before) {
            let row = self.bcx.chunks_exact(3 * channels).nth(token)?;
            Some(Source::Product(&row[..channels], &row[2 * channels..]))
        } else {
            let back = self.before - shifted;
            let rows = self.history.len() / channels;
            let row = rows.checked_sub(back)?;
            Some(Source::Stored(&self.history[row * channels..][..channels]))
        }
    }
}

impl Kernel for Tokens<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let channels = self.kernel.channels();
        let out = std::mem::take(&mut self.out);
        for (offset, out) in out.chunks_exact_mut(channels).enumerate() {
            out.copy_from_slice(&self.kernel.bias);
            for (tap, weight) in self.kernel.taps.chunks_exact(channels).enumerate() {
                match self.source(offset, tap) {
                    Some(Source::Product(b, u)) => add_product3(s, out, weight, b, u),
                    Some(Source::Stored(g)) => add_product(s, out, weight, g),
                    None => {}
                }
            }
            let token = &self.bcx[(self.first + offset) * 3 * channels..];
            multiply(s, out, &token[channels..2 * channels]);
        }
    }
}

/// `out += weight * (b * u)`
#[inline(always)]
fn add_product3<S: Simd>(s: S, out: &mut [f32], weight: &[f32], b: &[f32], u: &[f32]) {
    let inputs = weight
        .chunks(S::LANES)
        .zip(b.chunks(S::LANES))
        .zip(u.chunks(S::LANES));
    for (out, ((weight, b), u)) in out.chunks_mut(S::LANES).zip(inputs) {
        if out.len() == S::LANES {
            let g = s.mul(s.load(b), s.load(u));
            s.store(out, s.mul_add(s.load(weight), g, s.load(out)));
        } else {
            let g = s.mul(load_head(s, b), load_head(s, u));
            let sum = s.mul_add(load_head(s, weight), g, load_head(s, out));
            s.store_head(out, sum);
        }
    }
}

/// `out += weight * g`
#[inline(always)]
fn add_product<S: Simd>(s: S, out: &mut [f32], weight: &[f32], g: &[f32]) {
    let inputs = weight.chunks(S::LANES).zip(g.chunks(S::LANES));
    for (out, (weight, g)) in out.chunks_mut(S::LANES).zip(inputs) {
        if out.len() == S::LANES {
            s.store(out, s.mul_add(s.load(weight), s.load(g), s.load(out)));
        } else {
            let sum = s.mul_add(load_head(s, weight), load_head(s, g), load_head(s, out));
            s.store_head(out, sum);
        }
    }
}

/// `out *= c`
#[inline(always)]
fn multiply<S: Simd>(s: S, out: &mut [f32], c: &[f32]) {
    for (out, c) in out.chunks_mut(S::LANES).zip(c.chunks(S::LANES)) {
        if out.len() == S::LANES {
            s.store(out, s.mul(s.load(out), s.load(c)));
        } else {
            let product = s.mul(load_head(s, out), load_head(s, c));
            s.store_head(out, product);
        }
    }
}
