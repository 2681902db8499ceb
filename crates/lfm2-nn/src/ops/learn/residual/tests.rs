//! Whole layers against the same layers in plain operations.

use candle_core::{DType, Device, Result, Tensor};

use super::super::attention::Attention;
use super::super::tests::{agree, naive_conv, random, spans};
use super::{AttentionWeights, ConvWeights, Norm, ROWS};
use crate::attention::Visibility;
use crate::ops::fast::Heads;
use crate::ops::{Mask, plain};
use crate::rope::Rope;
use crate::short_conv::Window;

const EPS: f64 = 1e-3;

fn norm(weight: &Tensor) -> Norm<'_> {
    Norm { weight, eps: EPS }
}

/// Segments that make one group, several groups, and a group of their own.
fn lens() -> [Vec<usize>; 3] {
    [vec![5, 1, 2], vec![100, 30, 3, 90], vec![ROWS + 9, 4]]
}

#[test]
fn feed_forward_layers() {
    for rows in [1, 7, ROWS, 2 * ROWS + 3] {
        let (x, n) = (random(&[rows, 12], 1), random(&[12], 2));
        let (w1, w3) = (random(&[20, 12], 3), random(&[20, 12], 4));
        let w2 = random(&[12, 20], 5);
        agree(
            &[&x, &n, &w1, &w2, &w3],
            || super::feed_forward(&x, norm(&n), [&w1, &w2, &w3]),
            || {
                let normed = plain::rms_norm(&x, &n, EPS)?;
                let gate = plain::matmul_t(&normed, &w1)?;
                let product = plain::silu_mul(&gate, &plain::matmul_t(&normed, &w3)?)?;
                &*x + plain::matmul_t(&product, &w2)?
            },
        );
    }
}

#[test]
fn convolution_layers() {
    for lens in lens() {
        let spans = spans(&lens);
        let rows = lens.iter().sum();
        for (width, window) in [(3, Window::Causal), (4, Window::Centred)] {
            let (x, n) = (random(&[rows, 6], 1), random(&[6], 2));
            let (input, output) = (random(&[18, 6], 3), random(&[6, 6], 4));
            let kernel = random(&[6, width], 5);
            let weights = ConvWeights {
                input: &input,
                kernel: &kernel,
                output: &output,
            };
            agree(
                &[&x, &n, &input, &kernel, &output],
                || super::short_conv(&x, norm(&n), weights, &spans, window),
                || {
                    let bcu = plain::matmul_t(&plain::rms_norm(&x, &n, EPS)?, &input)?;
                    let each = spans.iter().map(|s| {
                        naive_conv(
                            &bcu.narrow(0, s.start, s.len)?,
                            &kernel,
                            window.before(width),
                        )
                    });
                    let mixed = Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 0)?;
                    &*x + plain::matmul_t(&mixed, &output)?
                },
            );
        }
    }
}

#[test]
fn attention_layers() {
    let heads = Heads {
        query: 4,
        kv: 2,
        dim: 6,
    };
    for lens in lens() {
        let spans = spans(&lens);
        let rows = lens.iter().sum::<usize>();
        for visibility in [Visibility::Causal, Visibility::Bidirectional] {
            let (x, n) = (random(&[rows, 10], 1), random(&[10], 2));
            let (q, k, v) = (
                random(&[24, 10], 3),
                random(&[12, 10], 4),
                random(&[12, 10], 5),
            );
            let (q_norm, k_norm) = (random(&[6], 6), random(&[6], 7));
            let output = random(&[10, 24], 8);
            let positions: Vec<usize> = lens.iter().flat_map(|&len| 0..len).collect();
            let rope = Rope::new(6, 100.0)
                .table(&positions, DType::F32, &Device::Cpu)
                .unwrap();
            let weights = AttentionWeights {
                inputs: [&q, &k, &v],
                q_norm: norm(&q_norm),
                k_norm: norm(&k_norm),
                output: &output,
            };
            let core = Attention {
                heads,
                scale: 0.7,
                visibility,
            };
            let plain = || {
                let normed = plain::rms_norm(&x, &n, EPS)?;
                let split =
                    |w: &Tensor, heads| plain::matmul_t(&normed, w)?.reshape((rows, heads, 6));
                let turned =
                    |x: Tensor, norm: &Tensor| plain::rope(&plain::rms_norm(&x, norm, EPS)?, &rope);
                let (q, k) = (
                    turned(split(&q, 4)?, &q_norm)?,
                    turned(split(&k, 2)?, &k_norm)?,
                );
                let v = split(&v, 2)?;
                let each = spans.iter().map(|s| {
                    let own = |t: &Tensor| t.narrow(0, s.start, s.len);
                    let by_head = |t: &Tensor| own(t)?.transpose(0, 1)?.contiguous();
                    let mask = Mask {
                        visibility,
                        past: 0,
                        keys: s.keys,
                    };
                    plain::attention(&own(&q)?, &by_head(&k)?, &by_head(&v)?, 0.7, mask)
                });
                let mixed = Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 0)?;
                &*x + plain::matmul_t(&mixed.reshape((rows, 24))?, &output)?
            };
            agree(
                &[&x, &n, &q, &k, &v, &q_norm, &k_norm, &output],
                || super::attention(&x, norm(&n), weights, core, (&rope, &spans)),
                plain,
            );
        }
    }
}

#[test]
fn weights_that_stay_as_they_are_get_no_gradient_and_the_others_theirs() {
    let (x, n) = (random(&[9, 4], 1), random(&[4], 2));
    let (w1, w2, w3) = (random(&[8, 4], 3), random(&[4, 8], 4), random(&[8, 4], 5));
    let frozen = w2.as_detached_tensor();
    let y = super::feed_forward(&x, norm(&n), [&w1, &frozen, &w3]).unwrap();
    let grads = y.sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&frozen).is_none());
    for learnt in [&x, &n, &w1, &w3] {
        assert!(grads.get(learnt.as_tensor()).is_some());
    }

    let input = x.as_detached_tensor();
    let y = super::feed_forward(&input, norm(&n), [&w1, &frozen, &w3]).unwrap();
    let grads = y.sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&input).is_none() && grads.get(w1.as_tensor()).is_some());
}

#[test]
fn a_second_backward_pass_gives_the_same() {
    let (x, n) = (random(&[9, 4], 1), random(&[4], 2));
    let (w1, w2, w3) = (random(&[8, 4], 3), random(&[4, 8], 4), random(&[8, 4], 5));
    let y = super::feed_forward(&x, norm(&n), [&w1, &w2, &w3]).unwrap();
    let loss = y.sqr().unwrap().sum_all().unwrap();
    let of = |w: &Tensor| {
        let grads = loss.backward().unwrap();
        grads.get(w).unwrap().to_vec2::<f32>().unwrap()
    };
    assert_eq!(of(&w1), of(&w1));
    assert_eq!(of(&x), of(&x));
}
