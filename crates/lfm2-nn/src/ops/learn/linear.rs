//! `x Wᵀ` and its two gradients.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use lfm2_kernels::{Panels, Sum};

use super::{
    FORWARD, Matrix, TO_INPUTS, TO_WEIGHTS, add_product_tn, isa, multiply_nn, multiply_nt,
    multiply_panels, operand, product_span, result, tensor_like, view,
};

/// `x (tokens, in)`, `weight (out, in)`; `(tokens, out)`.
pub(in crate::ops) fn matmul_t(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2(&weight.contiguous()?, Linear)
}

struct Linear;

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (tokens, inputs) = x_layout.shape().dims2()?;
        let (outputs, _) = w_layout.shape().dims2()?;
        let mut y = vec![0.0; tokens * outputs];
        let (x, w) = (operand(x, x_layout)?, operand(w, w_layout)?);
        let w = Matrix::new(w, outputs, inputs);
        if tokens > outputs {
            // One of both is read across its rows: the smaller one.
            let across = Panels::across(isa()?, w.view()?);
            multiply_panels(FORWARD, x, &across, &mut y, Sum::Replace)?;
        } else {
            let _span = product_span(FORWARD, [tokens, inputs, outputs]);
            multiply_nt(Matrix::new(x, tokens, inputs), w, &mut y, outputs)?;
        }
        result(y, (tokens, outputs))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (tokens, inputs) = x.dims2()?;
        let outputs = w.dim(0)?;
        let dy = dy.contiguous()?;
        let dy_view = view(&dy);
        let dy = Matrix::new(dy_view.slice()?, tokens, outputs);
        let dx = if x.track_op() {
            let _span = product_span(TO_INPUTS, [tokens, outputs, inputs]);
            let w_view = view(w);
            let w = Matrix::new(w_view.slice()?, outputs, inputs);
            let mut dx = vec![0.0; tokens * inputs];
            multiply_nn(dy, w, &mut dx, inputs, Sum::Replace)?;
            Some(tensor_like(dx, x)?)
        } else {
            None
        };
        let dw = if w.track_op() {
            let _span = product_span(TO_WEIGHTS, [outputs, tokens, inputs]);
            let x_view = view(x);
            let x = Matrix::new(x_view.slice()?, tokens, inputs);
            let mut dw = vec![0.0; outputs * inputs];
            add_product_tn(dy, x, &mut dw, inputs)?;
            Some(tensor_like(dw, w)?)
        } else {
            None
        };
        Ok((dx, dw))
    }
}
