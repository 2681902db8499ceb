//! Operations on single rows: the norm, the rotation and the gated unit.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Error, Layout, Result, Shape, Tensor};
use lfm2_kernels as kernels;

use super::{isa, operand, result, tensor_like, view};
use crate::rope::RopeTable;

/// `w * x / sqrt(mean(x^2) + eps)` over the last dimension.
pub(in crate::ops) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let eps = eps as f32;
    x.contiguous()?
        .apply_op2(&weight.contiguous()?, RmsNorm { eps })
}

struct RmsNorm {
    eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (operand(x, x_layout)?, operand(w, w_layout)?);
        let mut y = vec![0.0; x.len()];
        kernels::rms_norm(isa()?, x, w, self.eps, &mut y).map_err(Error::wrap)?;
        result(y, x_layout.shape().clone())
    }

    /// With `r = 1 / sqrt(mean(x^2) + eps)`: `dx = r (dy w - x r^2 mean(dy w x))`, `dw = sum dy x r`.
    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (x_view, w_view, dy_view) = (view(x), view(w), view(&dy));
        let (xs, ws, dys) = (
            x_view.slice::<f32>()?,
            w_view.slice::<f32>()?,
            dy_view.slice::<f32>()?,
        );
        let dim = ws.len();
        let (mut dx, mut dw) = (vec![0.0; xs.len()], vec![0.0; dim]);
        let rows = xs
            .chunks_exact(dim)
            .zip(dys.chunks_exact(dim))
            .zip(dx.chunks_exact_mut(dim));
        for ((x, dy), dx) in rows {
            let r = (dot(x, x) / dim as f32 + self.eps).sqrt().recip();
            // The row of `dy w` is kept in `dx` until its mean with `x` is known.
            for ((dx, dy), w) in dx.iter_mut().zip(dy).zip(ws) {
                *dx = dy * w;
            }
            let pull = r * r * dot(dx, x) / dim as f32;
            for (((dx, x), dy), dw) in dx.iter_mut().zip(x).zip(dy).zip(&mut dw) {
                *dw += dy * x * r;
                *dx = r * (*dx - x * pull);
            }
        }
        Ok((Some(tensor_like(dx, x)?), Some(tensor_like(dw, w)?)))
    }
}

/// A sum of products in lanes, so that it becomes vector code.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0f32; LANES];
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_blocks
        .remainder()
        .iter()
        .zip(b_blocks.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a_blocks.zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// Rotates `(tokens, heads, head_dim)` by the table's angles.
pub(in crate::ops) fn rope(x: &Tensor, table: &RopeTable) -> Result<Tensor> {
    let table = table.clone();
    x.contiguous()?.apply_op1(Rotate {
        table,
        turn: Turn::Forth,
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Turn {
    Forth,
    /// By the negative angles: the gradient of a rotation.
    Back,
}

struct Rotate {
    table: RopeTable,
    turn: Turn,
}

impl Rotate {
    fn run(&self, mut values: Vec<f32>, shape: &Shape) -> Result<Vec<f32>> {
        let (_, heads, head_dim) = shape.dims3()?;
        let sin = match self.turn {
            Turn::Forth => self.table.sin.clone(),
            Turn::Back => self.table.sin.neg()?,
        };
        let (cos, sin) = (view(&self.table.cos), view(&sin));
        kernels::rope(
            isa()?,
            &mut values,
            cos.slice()?,
            sin.slice()?,
            heads,
            head_dim,
        )
        .map_err(Error::wrap)?;
        Ok(values)
    }
}

impl CustomOp1 for Rotate {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let values = self.run(operand(x, layout)?.to_vec(), layout.shape())?;
        result(values, layout.shape().clone())
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let back = Self {
            table: self.table.clone(),
            turn: Turn::Back,
        };
        let dy = dy.contiguous()?;
        let values = view(&dy).slice::<f32>()?.to_vec();
        Ok(Some(tensor_like(back.run(values, dy.shape())?, x)?))
    }
}

/// `silu(gate) * up`, element by element.
pub(in crate::ops) fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.contiguous()?.apply_op2(&up.contiguous()?, SiluMul)
}

struct SiluMul;

impl CustomOp2 for SiluMul {
    fn name(&self) -> &'static str {
        "silu-mul"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (operand(gate, gate_layout)?, operand(up, up_layout)?);
        let mut y = vec![0.0; gate.len()];
        kernels::silu_mul(isa()?, gate, up, &mut y).map_err(Error::wrap)?;
        result(y, gate_layout.shape().clone())
    }

    /// With `s = sigmoid(gate)`: `dgate = dy up s (1 + gate (1 - s))`, `dup = dy gate s`.
    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (gate_view, up_view, dy_view) = (view(gate), view(up), view(&dy));
        let gates = gate_view.slice::<f32>()?;
        let mut dgate = gates.to_vec();
        kernels::sigmoid(isa()?, &mut dgate);
        let mut dup = vec![0.0; gates.len()];
        let outputs = dgate.iter_mut().zip(&mut dup);
        let inputs = gates
            .iter()
            .zip(up_view.slice::<f32>()?)
            .zip(dy_view.slice::<f32>()?);
        for ((dgate, dup), ((gate, up), dy)) in outputs.zip(inputs) {
            let s = *dgate;
            *dup = dy * gate * s;
            *dgate = dy * up * s * (1.0 + gate * (1.0 - s));
        }
        Ok((Some(tensor_like(dgate, gate)?), Some(tensor_like(dup, up)?)))
    }
}
