//! Operations of any number of operands.
//!
//! Candle's own have up to three, and each costs the sum of gradients a pass over memory or two per
//! operand. A whole layer as one operation needs its weights as operands: they are strung on a chain of
//! small operations whose results mean nothing, the end of which is the second operand of the layer. When
//! the layer gets its gradient, it puts those of the weights aside; the chain comes later in the order of
//! the graph and hands them over.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor};

use super::{operand, result, tensor_like, view};

/// An operation of a matrix and some weights, with a result of the matrix's shape.
pub(super) trait Layer: Send + Sync + 'static {
    /// The operation's name in messages.
    const NAME: &'static str;

    /// The result.
    fn forward(&self, x: &[f32], weights: &[&[f32]]) -> Result<Vec<f32>>;

    /// The gradient of `x` where the result has `dy`. Those of weights are added to `dweights`; `None`
    /// where nobody asks.
    fn backward(
        &self,
        x: &[f32],
        weights: &[&[f32]],
        dy: &[f32],
        dweights: &mut [Option<Vec<f32>>],
    ) -> Result<Vec<f32>>;
}

/// Applies `layer`.
pub(super) fn apply(layer: impl Layer, x: &Tensor, weights: &[&Tensor]) -> Result<Tensor> {
    let weights = weights.iter().map(|w| w.contiguous());
    let weights = weights.collect::<Result<Vec<_>>>()?;
    let aside = Aside::default();
    let nothing = Tensor::zeros(1, DType::F32, x.device())?;
    let mut chain = nothing.clone();
    for (index, pair) in weights.chunks(2).enumerate() {
        let link = Link {
            aside: aside.clone(),
            first: 2 * index,
        };
        chain = pair[0].apply_op3(pair.get(1).unwrap_or(&nothing), &chain, link)?;
    }
    let op = Whole {
        layer,
        weights,
        aside,
    };
    x.contiguous()?.apply_op2(&chain, op)
}

/// Gradients of weights between the layer's backward pass and that of the chain.
#[derive(Clone, Default)]
struct Aside(Arc<Mutex<Vec<Option<Tensor>>>>);

impl Aside {
    /// A panic leaves whole tensors.
    fn lock(&self) -> MutexGuard<'_, Vec<Option<Tensor>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, index: usize) -> Option<Tensor> {
        self.lock().get_mut(index).and_then(Option::take)
    }
}

struct Whole<L> {
    layer: L,
    weights: Vec<Tensor>,
    aside: Aside,
}

impl<L: Layer> CustomOp2 for Whole<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        _chain: &CpuStorage,
        _chain_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let views: Vec<_> = self.weights.iter().map(view).collect();
        let weights = views
            .iter()
            .map(|v| v.slice())
            .collect::<Result<Vec<_>>>()?;
        let y = self.layer.forward(operand(x, x_layout)?, &weights)?;
        result(y, x_layout.shape().clone())
    }

    fn bwd(
        &self,
        x: &Tensor,
        chain: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (x_view, dy_view) = (view(x), view(&dy));
        let views: Vec<_> = self.weights.iter().map(view).collect();
        let weights = views
            .iter()
            .map(|v| v.slice())
            .collect::<Result<Vec<_>>>()?;
        let wanted = |w: &Tensor| w.track_op().then(|| vec![0.0; w.elem_count()]);
        let mut dweights: Vec<_> = self.weights.iter().map(wanted).collect();
        let (xs, dys) = (x_view.slice()?, dy_view.slice()?);
        let dx = self.layer.backward(xs, &weights, dys, &mut dweights)?;
        let tensors = self.weights.iter().zip(dweights);
        let tensors = tensors.map(|(w, dw)| dw.map(|dw| tensor_like(dw, w)).transpose());
        *self.aside.lock() = tensors.collect::<Result<_>>()?;
        let dx = x.track_op().then(|| tensor_like(dx, x)).transpose()?;
        let dchain = chain.track_op().then(|| chain.zeros_like()).transpose()?;
        Ok((dx, dchain))
    }
}

/// Two weights of a layer and the rest of its chain.
struct Link {
    aside: Aside,
    /// The place of the first of both.
    first: usize,
}

impl CustomOp3 for Link {
    fn name(&self) -> &'static str {
        "weights-of-layer"
    }

    fn cpu_fwd(
        &self,
        _first: &CpuStorage,
        _first_layout: &Layout,
        _second: &CpuStorage,
        _second_layout: &Layout,
        _rest: &CpuStorage,
        _rest_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        result(vec![0.0], 1)
    }

    fn bwd(
        &self,
        _first: &Tensor,
        _second: &Tensor,
        rest: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let own = |index| self.aside.take(self.first + index);
        Ok((own(0), own(1), rest.track_op().then(|| dy.clone())))
    }
}
