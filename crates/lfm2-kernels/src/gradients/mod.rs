//! Backward passes of the kernels on rows, in closed form.
//!
//! Those of matrix products are products, see [`matmul_nn`](crate::matmul_nn) and
//! [`matmul_tn`](crate::matmul_tn). What several rows share, a weight, gets its gradient added, so that a
//! caller can go through a long matrix a piece at a time. All run on the calling thread: training keeps
//! cores busy with a part of the batch each.

mod activation;
mod conv;
mod norm;

pub use activation::{silu_mul_gradient, softmax_gradient};
pub use conv::{ConvGradient, short_conv_gradient};
pub use norm::{RmsNormed, rms_norm_gradient};

use crate::element::load_head;
use crate::simd::Simd;

/// As many values as a vector has, or fewer at the end of a row, with zeros behind them.
#[inline(always)]
fn load_part<S: Simd>(s: S, values: &[f32]) -> S::V {
    if values.len() == S::LANES {
        s.load(values)
    } else {
        load_head(s, values)
    }
}

/// The reverse of [`load_part`].
#[inline(always)]
fn store_part<S: Simd>(s: S, values: &mut [f32], v: S::V) {
    if values.len() == S::LANES {
        s.store(values, v);
    } else {
        s.store_head(values, v);
    }
}
