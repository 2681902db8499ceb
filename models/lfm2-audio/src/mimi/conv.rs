//! Causal convolutions over `(steps, channels)`, as matrix products, with the little state that lets
//! them go on where they stopped.

use candle_core::{Result, bail};
use lfm2_nn::{Linear, Matrix, Module, Tensor, Weights};

/// What lies before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    Zeros,
    /// The first step itself.
    First,
}

/// A causal convolution: every output reads the `kernel` steps up to its own.
#[derive(Debug, Clone)]
pub(super) struct CausalConv {
    /// `(out, kernel * in)`, a step's channels side by side.
    product: Linear,
    inputs: usize,
    kernel: usize,
    stride: usize,
    before: Before,
}

/// The steps that the next output still reads, `None` before the first.
#[derive(Debug, Clone, Default)]
pub(super) struct ConvState(Option<Vec<f32>>);

impl CausalConv {
    /// Loads `weight` `[out, in, kernel]`, and `bias` where there is one.
    pub(super) fn load(
        weights: &Weights,
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        stride: usize,
    ) -> lfm2_hub::Result<Self> {
        let weight = if kernel == 1 {
            weights.tensor("weight", &[outputs, inputs])?.unsqueeze(2)?
        } else {
            weights.tensor("weight", &[outputs, inputs, kernel])?
        };
        let weight = weight.transpose(1, 2)?.contiguous()?;
        let weight = weight.reshape((outputs, kernel * inputs))?;
        let product = Linear::new(Matrix::Dense(weight), bias(weights, outputs)?)?.exact();
        Ok(Self {
            product,
            inputs,
            kernel,
            stride,
            before: Before::Zeros,
        })
    }

    /// With another past.
    pub(super) fn after(mut self, before: Before) -> Self {
        self.before = before;
        self
    }

    /// `(steps, in)` to `(steps / stride, out)`, counting what was left over before.
    pub(super) fn forward(&self, x: &Tensor, state: &mut ConvState) -> Result<Tensor> {
        let values = x.flatten_all()?.to_vec1::<f32>()?;
        let mut buffer = match state.0.take() {
            Some(left) => left,
            None => self.past(&values),
        };
        buffer.extend(values);
        let window = self.kernel * self.inputs;
        let hop = self.stride * self.inputs;
        let outputs = match buffer.len().checked_sub(window) {
            Some(rest) => rest / hop + 1,
            None => 0,
        };
        let mut rows = Vec::with_capacity(outputs * window);
        for output in 0..outputs {
            rows.extend_from_slice(&buffer[output * hop..][..window]);
        }
        buffer.drain(..outputs * hop);
        state.0 = Some(buffer);
        let rows = Tensor::from_vec(rows, (outputs, window), x.device())?;
        self.product.forward(&rows)
    }

    /// The steps before the first.
    fn past(&self, first: &[f32]) -> Vec<f32> {
        let steps = self.kernel.saturating_sub(self.stride);
        match (self.before, first.get(..self.inputs)) {
            (Before::First, Some(first)) => first.repeat(steps),
            _ => vec![0.0; steps * self.inputs],
        }
    }
}

impl ConvState {
    pub(super) fn bytes(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |left| size_of_val(left.as_slice()))
    }
}

/// A causal transposed convolution whose kernel is twice its stride: every step adds to its own
/// `stride` outputs and to those of the next.
#[derive(Debug, Clone)]
pub(super) struct Upsampling {
    kind: UpsamplingKind,
    bias: Option<Tensor>,
    outputs: usize,
    stride: usize,
}

#[derive(Debug, Clone)]
enum UpsamplingKind {
    /// `(2 * stride * out, in)`.
    Full(Linear),
    /// One kernel per channel, `(2 * stride, channels)`.
    Depthwise(Tensor),
}

/// What the last step adds to the next outputs.
#[derive(Debug, Clone, Default)]
pub(super) struct UpsamplingState(Option<Vec<f32>>);

impl Upsampling {
    /// Loads `weight` `[in, out, 2 * stride]`, and `bias` where there is one.
    pub(super) fn load(
        weights: &Weights,
        [inputs, outputs]: [usize; 2],
        stride: usize,
    ) -> lfm2_hub::Result<Self> {
        let weight = weights.tensor("weight", &[inputs, outputs, 2 * stride])?;
        let weight = weight.permute((2, 1, 0))?.contiguous()?;
        let weight = weight.reshape((2 * stride * outputs, inputs))?;
        let product = Linear::new(Matrix::Dense(weight), None)?.exact();
        Ok(Self {
            kind: UpsamplingKind::Full(product),
            bias: bias(weights, outputs)?,
            outputs,
            stride,
        })
    }

    /// Loads `weight` `[channels, 1, 2 * stride]`.
    pub(super) fn load_depthwise(
        weights: &Weights,
        channels: usize,
        stride: usize,
    ) -> lfm2_hub::Result<Self> {
        let kernel = weights.conv_kernel(channels, 2 * stride)?;
        Ok(Self {
            kind: UpsamplingKind::Depthwise(kernel.t()?.contiguous()?),
            bias: bias(weights, channels)?,
            outputs: channels,
            stride,
        })
    }

    /// `(steps, in)` to `(steps * stride, out)`.
    pub(super) fn forward(&self, x: &Tensor, state: &mut UpsamplingState) -> Result<Tensor> {
        let steps = x.dim(0)?;
        let both = match &self.kind {
            UpsamplingKind::Full(product) => product.forward(x)?,
            UpsamplingKind::Depthwise(kernel) => {
                x.unsqueeze(1)?.broadcast_mul(kernel)?.flatten_from(1)?
            }
        };
        let half = self.stride * self.outputs;
        let both = both.flatten_all()?.to_vec1::<f32>()?;
        let mut over = state.0.take().unwrap_or_else(|| vec![0.0; half]);
        let mut out = Vec::with_capacity(steps * half);
        for step in both.chunks_exact(2 * half) {
            let (own, next) = step.split_at(half);
            out.extend(own.iter().zip(&over).map(|(own, over)| own + over));
            over.copy_from_slice(next);
        }
        state.0 = Some(over);
        let out = Tensor::from_vec(out, (steps * self.stride, self.outputs), x.device())?;
        match &self.bias {
            Some(bias) => out.broadcast_add(bias),
            None => Ok(out),
        }
    }
}

impl UpsamplingState {
    pub(super) fn bytes(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |over| size_of_val(over.as_slice()))
    }
}

fn bias(weights: &Weights, outputs: usize) -> lfm2_hub::Result<Option<Tensor>> {
    if weights.contains("bias") {
        weights.tensor("bias", &[outputs]).map(Some)
    } else {
        Ok(None)
    }
}

/// Refuses sound that no whole number of steps can be made of.
pub(super) fn check_whole(len: usize, step: usize) -> Result<()> {
    if len.is_multiple_of(step) {
        Ok(())
    } else {
        bail!("{len} samples are not whole frames of {step}")
    }
}
