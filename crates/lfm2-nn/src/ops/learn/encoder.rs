//! What encoders have besides: the norm with a mean, the smooth unit, the bias of a matrix.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use lfm2_kernels as kernels;

use super::super::fast::{lane_sum, layer_norm_rows};
use super::pointwise::dot;
use super::{isa, operand, result, tensor_like, view};

/// `w * (x - mean(x)) / sqrt(var(x) + eps) + b` over the last dimension.
pub(in crate::ops) fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let eps = eps as f32;
    let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
    x.contiguous()?.apply_op3(&weight, &bias, LayerNorm { eps })
}

struct LayerNorm {
    eps: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = operand(x, x_layout)?;
        let mut y = vec![0.0; x.len()];
        let affine = [operand(w, w_layout)?, operand(b, b_layout)?];
        layer_norm_rows(x, affine, self.eps, &mut y);
        result(y, x_layout.shape().clone())
    }

    /// With `r = 1 / sqrt(var + eps)`, `n = (x - mean) r` and `g = dy w`:
    /// `dx = r (g - mean(g) - n mean(g n))`, `dw = sum dy n`, `db = sum dy`.
    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (x_view, w_view, dy_view) = (view(x), view(w), view(&dy));
        let (xs, ws, dys) = (
            x_view.slice::<f32>()?,
            w_view.slice::<f32>()?,
            dy_view.slice::<f32>()?,
        );
        let dim = ws.len().max(1);
        let mut dx = vec![0.0; xs.len()];
        let (mut dw, mut db) = (vec![0.0; ws.len()], vec![0.0; ws.len()]);
        let mut normed = vec![0.0; ws.len()];
        let rows = xs
            .chunks_exact(dim)
            .zip(dys.chunks_exact(dim))
            .zip(dx.chunks_exact_mut(dim));
        for ((x, dy), dx) in rows {
            let mean = lane_sum(x, |v| v) / dim as f32;
            normed.iter_mut().zip(x).for_each(|(n, x)| *n = x - mean);
            let r = (dot(&normed, &normed) / dim as f32 + self.eps)
                .sqrt()
                .recip();
            normed.iter_mut().for_each(|n| *n *= r);
            for ((dx, dy), w) in dx.iter_mut().zip(dy).zip(ws) {
                *dx = dy * w;
            }
            let (mean, pull) = (
                lane_sum(dx, |v| v) / dim as f32,
                dot(dx, &normed) / dim as f32,
            );
            let sums = dw.iter_mut().zip(&mut db);
            for (((dx, n), dy), (dw, db)) in dx.iter_mut().zip(&normed).zip(dy).zip(sums) {
                *dw += dy * n;
                *db += dy;
                *dx = r * (*dx - mean - n * pull);
            }
        }
        Ok((
            Some(tensor_like(dx, x)?),
            Some(tensor_like(dw, w)?),
            Some(tensor_like(db, b)?),
        ))
    }
}

/// `x * (1 + tanh(u)) / 2` with `u = sqrt(2 / pi) * (x + 0.044715 x^3)`, element by element.
pub(in crate::ops) fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(GeluTanh)
}

struct GeluTanh;

impl CustomOp1 for GeluTanh {
    fn name(&self) -> &'static str {
        "gelu-tanh"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut y = operand(x, layout)?.to_vec();
        kernels::gelu_tanh(isa()?, &mut y);
        result(y, layout.shape().clone())
    }

    /// As `(1 + tanh(u)) / 2 = sigmoid(2 u) = s`: `dx = dy (s + x s (1 - s) 2 du/dx)`.
    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        const CUBE: f32 = 0.044_715;
        let slope = 2.0 * (2.0 / std::f32::consts::PI).sqrt();
        let dy = dy.contiguous()?;
        let (x_view, dy_view) = (view(x), view(&dy));
        let (xs, dys) = (x_view.slice::<f32>()?, dy_view.slice::<f32>()?);
        let inside = xs.iter().map(|x| slope * x * (1.0 + CUBE * x * x));
        let mut dx: Vec<f32> = inside.collect();
        kernels::sigmoid(isa()?, &mut dx);
        for ((dx, x), dy) in dx.iter_mut().zip(xs).zip(dys) {
            let s = *dx;
            let steep = slope * (1.0 + 3.0 * CUBE * x * x);
            // Far out `s (1 - s)` is 0 before the polynomial is infinite.
            *dx = dy * (s + x * s * (1.0 - s) * steep);
        }
        Ok(Some(tensor_like(dx, x)?))
    }
}

/// `x (tokens, out)` plus `bias (out)`.
pub(in crate::ops) fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2(&bias.contiguous()?, AddBias)
}

struct AddBias;

impl CustomOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let bias = operand(bias, bias_layout)?;
        let mut y = operand(x, x_layout)?.to_vec();
        for row in y.chunks_exact_mut(bias.len().max(1)) {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
        result(y, x_layout.shape().clone())
    }

    fn bwd(
        &self,
        _x: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let dy_view = view(&dy);
        let mut sum = vec![0.0; bias.elem_count()];
        for row in dy_view.slice::<f32>()?.chunks_exact(sum.len().max(1)) {
            sum.iter_mut().zip(row).for_each(|(sum, dy)| *sum += dy);
        }
        let sum = tensor_like(sum, bias)?;
        drop(dy_view);
        Ok((Some(dy), Some(sum)))
    }
}
