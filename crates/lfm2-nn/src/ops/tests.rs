//! The fast form of every operation against its plain form.

use candle_core::{DType, Device, Result, Tensor, Var};
use proptest::prelude::*;

use super::*;
use crate::Rope;

const CPU: Device = Device::Cpu;

fn random(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1f32, shape, &CPU).unwrap()
}

fn close(fast: &Tensor, plain: &Tensor) -> Result<f32> {
    assert_eq!(fast.dims(), plain.dims());
    let largest = |t: &Tensor| t.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>();
    let difference = (fast - plain)?;
    if difference.elem_count() == 0 {
        return Ok(0.0);
    }
    Ok(largest(&difference)? / largest(plain)?.max(1e-3))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn matmul(m in 1usize..20, n in 1usize..70, k in 1usize..70, dtype in prop_oneof![Just(DType::F32), Just(DType::BF16), Just(DType::F16)]) {
        let (x, w) = (random(&[m, k]), random(&[n, k]).to_dtype(dtype).unwrap());
        let error = close(&fast::linear(&x, &w, Accuracy::Exact, Tail::default()).unwrap(), &plain::matmul_t(&x, &w).unwrap()).unwrap();
        prop_assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn what_follows_a_product(m in 1usize..20, n in 1usize..70, k in 1usize..40, activation in prop_oneof![Just(None), Just(Some(Activation::Gelu)), Just(Some(Activation::GeluTanh)), Just(Some(Activation::Silu))]) {
        let (x, w, b) = (random(&[m, k]), random(&[n, k]), random(&[n]));
        for bias in [None, Some(&b)] {
            let tail = Tail { bias, activation };
            let found = linear(&x, &w, Accuracy::Exact, tail).unwrap();
            let mut plain = plain::matmul_t(&x, &w).unwrap();
            if let Some(bias) = bias {
                plain = plain.broadcast_add(bias).unwrap();
            }
            let plain = match activation {
                Some(Activation::Gelu) => plain.gelu_erf().unwrap(),
                Some(Activation::GeluTanh) => plain.gelu().unwrap(),
                Some(Activation::Silu) => plain.silu().unwrap(),
                None => plain,
            };
            let error = close(&found, &plain).unwrap();
            prop_assert!(error < 1e-5, "{tail:?} {error}");
        }
    }

    #[test]
    fn norm(rows in 1usize..9, dim in 1usize..130) {
        let (x, w) = (random(&[rows, dim]), random(&[dim]));
        let error = close(&fast::rms_norm(&x, &w, 1e-5).unwrap(), &plain::rms_norm(&x, &w, 1e-5).unwrap()).unwrap();
        prop_assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn rotation(tokens in 1usize..7, heads in 1usize..5, half in 1usize..40, factor in 0.0f64..=1.0, past in 0usize..5000) {
        let positions: Vec<usize> = (past..past + tokens).collect();
        let table = Rope::proportional(2 * half, 1e6, factor).table(&positions, DType::F32, &CPU).unwrap();
        let x = random(&[tokens, heads, 2 * half]);
        let error = close(&fast::rope(&x, &table).unwrap(), &plain::rope(&x, &table).unwrap()).unwrap();
        prop_assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn swiglu(rows in 1usize..9, dim in 1usize..130) {
        let (gate, up) = ((random(&[rows, dim]) * 5.0).unwrap(), random(&[rows, dim]));
        let error = close(&fast::silu_mul(&gate, &up).unwrap(), &plain::silu_mul(&gate, &up).unwrap()).unwrap();
        prop_assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn attention_of_every_kind(
        (len, past, spare) in (1usize..20, 0usize..40, 0usize..5), (kv_heads, group, half) in (1usize..4, 1usize..4, 1usize..20),
        visibility in prop_oneof![Just(Visibility::Causal), Just(Visibility::Bidirectional), (1usize..30).prop_map(|window| Visibility::Sliding { window })],
        dtype in prop_oneof![Just(DType::F32), Just(DType::F16), Just(DType::BF16)],
    ) {
        let keys = past + len;
        let q = random(&[len, kv_heads * group, 2 * half]);
        let cache = || random(&[kv_heads, keys + spare, 2 * half]).to_dtype(dtype).unwrap();
        let (k, v) = (cache(), cache());
        let mask = Mask { visibility, past, keys };
        let error = close(
            &fast::attention(&q, &k, &v, 0.3, mask).unwrap(),
            &plain::attention(&q, &k, &v, 0.3, mask).unwrap(),
        ).unwrap();
        prop_assert!(error < 2e-5, "{error}");
    }

    #[test]
    fn attention_inside_segments_hides_filler(
        lens in prop::collection::vec((1usize..20, 0usize..9), 1..5), (kv, group, half) in (1usize..4, 1usize..4, 1usize..20),
        visibility in prop_oneof![Just(Visibility::Causal), Just(Visibility::Bidirectional)],
    ) {
        let spans = spans(&lens);
        let tokens = lens.iter().map(|(len, filler)| len + filler).sum();
        let (q, k, v) = (random(&[tokens, kv * group, 2 * half]), random(&[tokens, kv, 2 * half]), random(&[tokens, kv, 2 * half]));
        let fast = fast::packed_attention([&q, &k, &v], &spans, 0.3, visibility).unwrap();
        for span in &spans {
            let own = |t: &Tensor| t.narrow(0, span.start, span.len).unwrap();
            let by_head = |t: &Tensor| own(t).transpose(0, 1).unwrap().contiguous().unwrap();
            let mask = Mask { visibility, past: 0, keys: span.keys };
            let plain = plain::attention(&own(&q), &by_head(&k), &by_head(&v), 0.3, mask).unwrap();
            let error = close(&own(&fast), &plain).unwrap();
            prop_assert!(error < 2e-5, "{error}");
        }
    }

    #[test]
    fn convolution_inside_segments_is_that_of_each_alone(
        lens in prop::collection::vec((1usize..9, 0usize..3), 1..5), channels in 1usize..20, width in 1usize..6,
        window in prop_oneof![Just(Window::Causal), Just(Window::Centred)],
    ) {
        let spans = spans(&lens);
        let tokens = lens.iter().map(|(len, filler)| len + filler).sum();
        let (bcu, kernel, bias) = (random(&[tokens, 3 * channels]), random(&[channels, width]), random(&[channels]));
        let prepared = fast::conv_kernel(&kernel, Some(&bias)).unwrap();
        let fast = fast::packed_conv(&bcu, &prepared, &spans, window).unwrap();
        let before = match window {
            Window::Causal => width - 1,
            Window::Centred => width / 2,
        };
        for span in &spans {
            let own = bcu.narrow(0, span.start, span.len).unwrap();
            let part = |i: usize| own.narrow(1, i * channels, channels).unwrap();
            // Zeros on both sides, of which the first `len` windows are taken.
            let gated = (part(0) * part(2)).unwrap().pad_with_zeros(0, before, width).unwrap();
            let tap = |tap: usize| {
                let met = gated.narrow(0, tap, span.len).unwrap();
                met.broadcast_mul(&kernel.narrow(1, tap, 1).unwrap().t().unwrap()).unwrap()
            };
            let sum = (1..width).fold(tap(0), |sum, i| (sum + tap(i)).unwrap());
            let plain = (sum.broadcast_add(&bias).unwrap() * part(1)).unwrap();
            let found = fast.narrow(0, span.start, span.len).unwrap();
            let error = close(&found, &plain).unwrap();
            prop_assert!(error < 2e-5, "{error}");
        }
    }
}

/// Segments of some tokens and some filler each.
fn spans(lens: &[(usize, usize)]) -> Vec<Span> {
    let mut start = 0;
    let span = |(row, &(keys, filler)): (usize, &(usize, usize))| {
        let len = keys + filler;
        start += len;
        Span {
            row,
            start: start - len,
            len,
            past: 0,
            keys,
        }
    };
    lens.iter().enumerate().map(span).collect()
}

#[test]
fn gradients_keep_the_plain_form() -> Result<()> {
    let w = Var::randn(0f32, 1f32, (4, 3), &CPU)?;
    let x = random(&[2, 3]);
    let y = matmul_t(&x, w.as_tensor(), Accuracy::Exact)?;
    let grads = y.sum_all()?.backward()?;
    assert!(
        grads.get(w.as_tensor()).is_some(),
        "the weight got no gradient"
    );

    let norm = Var::randn(0f32, 1f32, 3, &CPU)?;
    let grads = rms_norm(&x, norm.as_tensor(), 1e-5)?
        .sum_all()?
        .backward()?;
    assert!(
        grads.get(norm.as_tensor()).is_some(),
        "the norm got no gradient"
    );
    Ok(())
}
