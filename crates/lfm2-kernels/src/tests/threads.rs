//! Results are the same bits on any number of threads.
#![cfg(feature = "rayon")]

use half::f16;

use super::{Random, Stored, isas};
use crate::threads::{count, in_pool};
use crate::{
    AttentionSpec, ConvKernel, KvRef, KvShape, MatMut, MatRef, Visibility, attention, matmul,
    rms_norm, short_conv, silu,
};

/// Runs `f` on one thread and on three and compares the bits.
fn check(f: impl Fn() -> Vec<f32> + Sync) {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            assert_eq!(count(), threads);
            f().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        })
    };
    assert!(run(1) == run(3));
}

#[test]
fn products_do_not_depend_on_threads() {
    for isa in isas() {
        for m in [1, 40] {
            check(|| {
                let mut random = Random(1);
                let (x, w) = (random.values(m * 600, 0), random.values(700 * 600, 0));
                let mut y = vec![0.0; m * 700];
                let (x, w) = (
                    MatRef::new(&x, m, 600).unwrap(),
                    MatRef::new(&w, 700, 600).unwrap(),
                );
                matmul(isa, x, w, MatMut::new(&mut y, m, 700).unwrap()).unwrap();
                y
            });
        }
    }
}

#[test]
fn attention_does_not_depend_on_threads() {
    for isa in isas() {
        for tokens in [1, 50] {
            check(|| {
                let mut random = Random(2);
                let shape = KvShape {
                    kv_heads: 2,
                    capacity: 1500,
                    head_dim: 32,
                };
                let keys = random.stored::<f16>(shape.size().unwrap(), 0);
                let q = random.values(tokens * 4 * 32, 0);
                let mut out = vec![0.0; q.len()];
                let spec = AttentionSpec {
                    heads: 4,
                    scale: 1.0,
                    past: 1400,
                    visibility: Visibility::Causal,
                };
                let kv = KvRef::new(&keys, &keys, shape, 1400 + tokens).unwrap();
                attention(isa, &q, kv, &spec, &mut out).unwrap();
                out
            });
        }
    }
}

#[test]
fn row_kernels_do_not_depend_on_threads() {
    let (tokens, channels) = (100, 700);
    for isa in isas() {
        check(|| {
            let mut random = Random(3);
            let bcx = random.values(tokens * channels * 3, 0);
            let weight = random.values(channels * 3, 0);
            let kernel = ConvKernel::new(&weight, None, channels).unwrap();
            let mut state = vec![0.0; kernel.state_len()];
            let mut out = vec![0.0; tokens * channels];
            short_conv(isa, &bcx, &kernel, &mut state, &mut out).unwrap();
            let mut normed = vec![0.0; out.len()];
            rms_norm(isa, &out, &weight[..channels], 1e-5, &mut normed).unwrap();
            silu(isa, &mut normed);
            normed
        });
    }
}

#[test]
fn the_pool_gives_results_back() {
    assert_eq!(in_pool(|| f32::widened(&[1.0, 2.0])), [1.0, 2.0]);
}
