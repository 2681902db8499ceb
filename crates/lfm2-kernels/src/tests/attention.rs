use std::num::NonZeroUsize;

use half::{bf16, f16};
use proptest::prelude::*;

use super::{Random, Stored, assert_near, assert_near_by, config, isas, most, naive};
use crate::{
    AttentionSpec, Isa, KvRef, KvShape, MatRef, RelativeSpec, Visibility, append_kv, attention,
    encoder_attention_bf16, relative_attention,
};

/// Sizes of one attention call.
#[derive(Debug, Clone, Copy)]
struct Case {
    tokens: usize,
    kv_heads: usize,
    group: usize,
    dim: usize,
    len: usize,
    spec: AttentionSpec,
}

fn visibility() -> impl Strategy<Value = Visibility> {
    prop_oneof![
        Just(Visibility::All),
        Just(Visibility::Causal),
        (1_usize..300).prop_map(|size| Visibility::Window(NonZeroUsize::new(size).unwrap())),
    ]
}

prop_compose! {
    fn case(max_tokens: usize, max_past: usize)(
        tokens in 1..=max_tokens, past in 0..=max_past, kv_heads in 1_usize..=2,
        group in 1..=most(5, 3), dim in 1..=most(140, 20), visibility in visibility(), hidden in 0_usize..=3,
    ) -> Case {
        let spec = AttentionSpec { heads: kv_heads * group, scale: 0.7, past, visibility };
        let len = (past + tokens).saturating_sub(hidden);
        Case { tokens, kv_heads, group, dim, len, spec }
    }
}

/// Appends keys and values in two steps, attends, compares.
fn check<T: Stored>(case: Case, seed: u64, tolerance: f64) {
    let Case {
        tokens,
        kv_heads,
        group,
        dim,
        len,
        spec,
    } = case;
    let mut random = Random(seed);
    let shape = KvShape {
        kv_heads,
        capacity: len + 2,
        head_dim: dim,
    };
    let q = random.values(tokens * kv_heads * group * dim, 1);
    // What nobody may read is NaN.
    let mut caches = [
        vec![T::round(f32::NAN); shape.size().unwrap()],
        vec![T::round(f32::NAN); shape.size().unwrap()],
    ];
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for cache in &mut caches {
        let new = random.values(len * kv_heads * dim, 1);
        let cut = len / 3;
        let (first, second) = new.split_at(cut * kv_heads * dim);
        append_kv(first, shape, 0, cache).unwrap();
        append_kv(second, shape, cut, cache).unwrap();
        // Rounded as stored, and heads first.
        let stored: Vec<f32> = T::widened(&new.iter().map(|&v| T::round(v)).collect::<Vec<_>>());
        let value =
            |head: usize, token: usize, i: usize| stored[(token * kv_heads + head) * dim + i];
        let heads_first = (0..kv_heads).flat_map(|head| {
            (0..len).flat_map(move |token| (0..dim).map(move |i| (head, token, i)))
        });
        rows.push(
            heads_first
                .map(|(head, token, i)| value(head, token, i))
                .collect(),
        );
    }
    let expected = naive::attention(&q, &rows[0], &rows[1], (kv_heads, len, dim), &spec);
    for isa in isas() {
        let mut out = random.values(q.len(), 1);
        let kv = KvRef::new(&caches[0], &caches[1], shape, len).unwrap();
        attention(isa, &q, kv, &spec, &mut out).unwrap();
        assert_near(&out, &expected, tolerance, &format!("{isa} {case:?}"));
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn few_queries_match(case in case(3, most(300, 20)), seed: u64) {
        check::<f32>(case, seed, 1e-5);
        check::<f16>(case, seed, 1e-5);
        check::<bf16>(case, seed, 1e-5);
    }

    #[test]
    fn many_queries_match(case in case(most(120, 10), most(130, 10)), seed: u64) {
        check::<f32>(case, seed, 1e-5);
        check::<f16>(case, seed, 1e-5);
        check::<bf16>(case, seed, 1e-5);
    }
}

/// With everything rounded but the weights of the softmax, which may be off by a part in 512, of values
/// below 1.
fn check_rounded(tokens: usize, kv_heads: usize, group: usize, dim: usize, seed: u64) {
    let mut random = Random(seed);
    let mut rounded = |len: usize| -> Vec<f32> {
        let values = random.values(len, 0);
        values.iter().map(|&v| bf16::from_f32(v).to_f32()).collect()
    };
    let heads = kv_heads * group;
    let q = rounded(tokens * heads * dim);
    let kv = [
        rounded(tokens * kv_heads * dim),
        rounded(tokens * kv_heads * dim),
    ];
    let spec = AttentionSpec {
        heads,
        scale: 0.5,
        past: 0,
        visibility: Visibility::All,
    };
    let heads_first = |rows: &[f32]| -> Vec<f32> {
        let at = |i: usize| {
            let (head, token) = (i / (tokens * dim), i / dim % tokens);
            rows[(token * kv_heads + head) * dim + i % dim]
        };
        (0..rows.len()).map(at).collect()
    };
    let rows = [heads_first(&kv[0]), heads_first(&kv[1])];
    let expected = naive::attention(&q, &rows[0], &rows[1], (kv_heads, tokens, dim), &spec);
    let shape = KvShape {
        kv_heads,
        capacity: tokens,
        head_dim: dim,
    };
    for isa in isas() {
        let mut out = vec![7.0; q.len()];
        let qkv = [&q[..], &kv[0][..], &kv[1][..]];
        if encoder_attention_bf16(isa, qkv, (heads, shape), 0.5, &mut out).unwrap() {
            let what = format!("{isa} {tokens} {kv_heads}x{group} {dim}");
            assert_near_by(&out, &expected, 2e-3, &what);
        } else {
            assert!(out.iter().all(|&v| v == 7.0), "{isa}");
        }
        let short = [&q[..], &kv[0][..], &kv[1][..kv[1].len() - 1]];
        let found = encoder_attention_bf16(isa, short, (heads, shape), 0.5, &mut out);
        assert!(matches!(found, Ok(false) | Err(_)), "{isa}");
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn rounded_attention_of_encoders_is_near(
        tokens in 1..=most(230, 10), kv_heads in 1_usize..=2, group in 1_usize..=2, dim in 1..=most(90, 9), seed: u64,
    ) {
        check_rounded(tokens, kv_heads, group, dim, seed);
    }
}

fn causal(tokens: usize, past: usize, group: usize, dim: usize) -> Case {
    let spec = AttentionSpec {
        heads: 2 * group,
        scale: 0.125,
        past,
        visibility: Visibility::Causal,
    };
    Case {
        tokens,
        kv_heads: 2,
        group,
        dim,
        len: past + tokens,
        spec,
    }
}

#[test]
#[cfg_attr(miri, ignore = "too large")]
fn deep_caches_are_split_and_merged() {
    check::<f16>(causal(1, 2500, 4, 64), 1, 1e-5);
    check::<f16>(causal(4, 1600, 3, 128), 2, 1e-5);
    check::<f32>(causal(1, 1024, 1, 20), 3, 1e-5);
}

#[test]
#[cfg_attr(miri, ignore = "too large")]
fn heads_wider_than_a_block_are_added_up() {
    check::<f32>(causal(40, 7, 2, 300), 4, 1e-5);
    check::<bf16>(causal(1, 200, 2, 300), 5, 1e-5);
}

#[test]
fn queries_that_see_nothing_get_zeros() {
    let shape = KvShape {
        kv_heads: 1,
        capacity: 4,
        head_dim: 8,
    };
    let cache = [f32::NAN; 32];
    let window = Visibility::Window(NonZeroUsize::new(2).unwrap());
    for isa in isas() {
        for tokens in [1, 30] {
            for (len, past, visibility) in [(0, 0, Visibility::All), (3, 9, window)] {
                let q = vec![1.0; tokens * 8];
                let mut out = vec![5.0; tokens * 8];
                let spec = AttentionSpec {
                    heads: 1,
                    scale: 1.0,
                    past,
                    visibility,
                };
                let kv = KvRef::new(&cache, &cache, shape, len).unwrap();
                attention(isa, &q, kv, &spec, &mut out).unwrap();
                assert!(
                    out.iter().all(|&value| value == 0.0),
                    "{isa} {tokens} {len}"
                );
            }
        }
    }
}

#[test]
fn huge_scores_do_not_overflow() {
    let shape = KvShape {
        kv_heads: 1,
        capacity: 3,
        head_dim: 2,
    };
    let keys = [-1e15, 0.0, 1e15, 0.0, -1e15, 0.0_f32];
    let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0_f32];
    for isa in isas() {
        for tokens in [1, 40] {
            let q = [1e15, 0.0].repeat(tokens);
            let mut out = vec![0.0; tokens * 2];
            let spec = AttentionSpec {
                heads: 1,
                scale: 1.0,
                past: 0,
                visibility: Visibility::All,
            };
            let kv = KvRef::new(&keys, &values, shape, 3).unwrap();
            attention(isa, &q, kv, &spec, &mut out).unwrap();
            assert_eq!(out, [3.0, 4.0].repeat(tokens), "{isa}");
            let q = [-1e15, 0.0].repeat(tokens);
            attention(
                isa,
                &q,
                KvRef::new(
                    &keys[2..4],
                    &values[2..4],
                    KvShape {
                        capacity: 1,
                        ..shape
                    },
                    1,
                )
                .unwrap(),
                &spec,
                &mut out,
            )
            .unwrap();
            assert_eq!(out, [3.0, 4.0].repeat(tokens), "{isa}");
        }
    }
}

#[test]
fn a_query_far_below_every_score_still_averages() {
    // Rows of one decode step and of one prefill must agree on the same positions.
    let case = causal(33, 0, 1, 16);
    check::<f32>(
        Case {
            spec: AttentionSpec {
                scale: 60.0,
                ..case.spec
            },
            ..case
        },
        6,
        3e-5,
    );
}

#[test]
fn nan_in_a_query_stays_in_its_head() {
    let (heads, dim) = (4, 16);
    let shape = KvShape {
        kv_heads: 2,
        capacity: 50,
        head_dim: dim,
    };
    let keys = Random(7).values(shape.size().unwrap(), 0);
    for isa in isas() {
        for tokens in [1, 40] {
            let mut q = vec![0.5; tokens * heads * dim];
            q[dim + 3] = f32::NAN;
            let mut out = vec![0.0; q.len()];
            let spec = AttentionSpec {
                heads,
                scale: 1.0,
                past: 0,
                visibility: Visibility::All,
            };
            let kv = KvRef::new(&keys, &keys, shape, 50).unwrap();
            attention(isa, &q, kv, &spec, &mut out).unwrap();
            let clean = |i: usize| !(dim..2 * dim).contains(&i);
            assert!(
                out.iter()
                    .enumerate()
                    .all(|(i, y)| y.is_finite() == clean(i)),
                "{isa}"
            );
        }
    }
}

#[test]
fn appended_values_are_rounded_to_nearest_even() {
    let shape = KvShape {
        kv_heads: 1,
        capacity: 1,
        head_dim: 4,
    };
    // Halfway between two bf16 numbers, twice; one that overflows; NaN.
    let new = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, f32::MAX, f32::NAN];
    let mut cache = [bf16::ZERO; 4];
    append_kv(&new, shape, 0, &mut cache).unwrap();
    assert_eq!(cache[0].to_f32(), 1.0);
    assert_eq!(cache[1].to_f32(), 1.0 + 1.0 / 64.0);
    assert_eq!(cache[2], bf16::INFINITY);
    assert!(cache[3].is_nan());
}

/// Sizes of a clip with relative positions.
#[derive(Debug, Clone, Copy)]
struct Clip {
    tokens: usize,
    heads: usize,
    dim: usize,
    /// Distances there are beyond those of the clip, on either side.
    spare: usize,
    context: [Option<usize>; 2],
}

prop_compose! {
    fn clip()(
        tokens in 0..=most(150, 12), heads in 1_usize..=3, dim in 1..=most(70, 9), spare in 0_usize..=3,
        before in prop::option::of(0_usize..80), behind in prop::option::of(0_usize..80),
    ) -> Clip {
        Clip { tokens, heads, dim, spare, context: [before, behind] }
    }
}

fn check_relative(clip: Clip, seed: u64) {
    let Clip {
        tokens, heads, dim, ..
    } = clip;
    let width = heads * dim;
    let mut random = Random(seed);
    let qkv = [0, 1, 2].map(|_| random.values(tokens * width, 1));
    let biases = [0, 1].map(|_| random.values(width, 1));
    let longest = tokens.max(1) + clip.spare;
    let p = random.values((2 * longest - 1) * width, 1);
    let mut expected = Vec::new();
    let at = |values: &[f32], row: usize, head: usize, i: usize| {
        f64::from(values[row * width + head * dim + i])
    };
    for query in 0..tokens {
        for head in 0..heads {
            let mut scores: Vec<(usize, f64)> = Vec::new();
            for key in 0..tokens {
                if clip.context[0].is_some_and(|before| query > key + before)
                    || clip.context[1].is_some_and(|behind| key > query + behind)
                {
                    continue;
                }
                // Row 0 is the largest distance from a key to a later query.
                let row = longest + key - 1 - query;
                let products = (0..dim).map(|i| {
                    let q = at(&qkv[0], query, head, i);
                    (q + at(&biases[0], 0, head, i)) * at(&qkv[1], key, head, i)
                        + (q + at(&biases[1], 0, head, i)) * at(&p, row, head, i)
                });
                scores.push((key, (0.3 * products.sum::<f64>()).exp()));
            }
            let total: f64 = scores.iter().map(|(_, score)| score).sum();
            expected.extend((0..dim).map(|i| {
                let values = scores
                    .iter()
                    .map(|(key, score)| score * at(&qkv[2], *key, head, i));
                values.sum::<f64>() / total
            }));
        }
    }
    let spec = RelativeSpec {
        heads,
        scale: 0.3,
        content_bias: &biases[0],
        position_bias: &biases[1],
        context: clip.context,
    };
    for isa in isas() {
        let mut out = vec![f32::NAN; tokens * width];
        let distances = MatRef::new(&p, 2 * longest - 1, width).unwrap();
        let [q, k, v] = [0, 1, 2].map(|i| &*qkv[i]);
        relative_attention(isa, [q, k, v], distances, &spec, &mut out).unwrap();
        assert_near(&out, &expected, 2e-4, &format!("{isa} {clip:?}"));
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn attention_with_relative_positions_agrees_with_naive(clip in clip(), seed: u64) {
        check_relative(clip, seed);
    }
}

#[test]
fn relative_attention_checks_its_shapes() {
    let spec = |heads| RelativeSpec {
        heads,
        scale: 1.0,
        content_bias: &[0.0; 4],
        position_bias: &[0.0; 4],
        context: [None; 2],
    };
    let (isa, x, p) = (Isa::best(), [0.0; 12], [0.0; 20]);
    let attend = |heads, q: usize, rows: usize, out: usize| {
        let distances = MatRef::new(&p[..4 * rows], rows, 4).unwrap();
        let qkv = [&x[..q], &x, &x];
        relative_attention(isa, qkv, distances, &spec(heads), &mut [0.0; 12][..out])
    };
    assert!(attend(2, 12, 5, 12).is_ok());
    // No heads, heads that do not divide the width, too few values, an even number of distances, too few.
    for (heads, q, rows, out) in [
        (0, 12, 5, 12),
        (3, 12, 5, 12),
        (2, 8, 5, 12),
        (2, 12, 4, 12),
        (2, 12, 3, 12),
        (2, 12, 5, 8),
    ] {
        assert!(
            attend(heads, q, rows, out).is_err(),
            "{heads} {q} {rows} {out}"
        );
    }
}
