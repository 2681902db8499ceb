//! Results are the same bits on any number of threads.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use half::f16;

use super::{Random, isas, most};
use crate::threads::{alone, count, set_threads};
use crate::{
    AttentionSpec, ConvKernel, KvRef, KvShape, MatMut, MatRef, Visibility, attention, matmul,
    rms_norm, short_conv, silu,
};

/// Runs `f` on one thread, on three and on five, and compares the bits.
fn check(f: impl Fn() -> Vec<f32>) {
    /// The number of threads is everybody's.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let bits = || f().into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let expected = alone(bits);
    for threads in [3, 5] {
        set_threads(NonZeroUsize::new(threads).unwrap());
        assert_eq!(count(), threads);
        assert!(bits() == expected, "{threads} threads");
    }
}

#[test]
fn products_do_not_depend_on_threads() {
    // Enough that several threads are worth it.
    let n = most(700, 250);
    for isa in isas() {
        for m in [1, most(40, 9)] {
            check(|| {
                let mut random = Random(1);
                let (x, w) = (random.values(m * 600, 0), random.values(n * 600, 0));
                let mut y = vec![0.0; m * n];
                let (x, w) = (
                    MatRef::new(&x, m, 600).unwrap(),
                    MatRef::new(&w, n, 600).unwrap(),
                );
                matmul(isa, x, w, MatMut::new(&mut y, m, n).unwrap()).unwrap();
                y
            });
        }
    }
}

#[test]
fn attention_does_not_depend_on_threads() {
    for isa in isas() {
        for tokens in [1, most(50, 2)] {
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
    let (tokens, channels) = (most(100, 20), 700);
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
