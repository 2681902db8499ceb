//! Operations on single rows: the norm, the rotation and the gated unit.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Error, Layout, Result, Shape, Tensor};
use lfm2_kernels::gradients::{RmsNormed, rms_norm_gradient, silu_mul_gradient};
use lfm2_kernels::{self as kernels, Sum};

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
        let (mut dx, mut dw) = (vec![0.0; xs.len()], vec![0.0; ws.len()]);
        let of = RmsNormed {
            x: xs,
            weight: ws,
            eps: self.eps,
        };
        rms_norm_gradient(isa()?, of, dys, &mut dx, Sum::Replace, &mut dw).map_err(Error::wrap)?;
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

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (gate_view, up_view, dy_view) = (view(gate), view(up), view(&dy));
        let inputs = [gate_view.slice::<f32>()?, up_view.slice::<f32>()?];
        let mut product = dy_view.slice::<f32>()?.to_vec();
        let (mut dgate, mut dup) = (vec![0.0; product.len()], vec![0.0; product.len()]);
        let grads = [&mut dgate[..], &mut dup[..]];
        silu_mul_gradient(isa()?, inputs, &mut product, grads).map_err(Error::wrap)?;
        Ok((Some(tensor_like(dgate, gate)?), Some(tensor_like(dup, up)?)))
    }
}
