//! The same computations in the most obvious way, in double precision.

use crate::{AttentionSpec, MatRef, Visibility};

pub(super) fn matmul(x: &[f32], w: &[f32], m: usize, k: usize, n: usize) -> Vec<f64> {
    let mut y = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            y[i * n + j] = (0..k)
                .map(|p| f64::from(x[i * k + p]) * f64::from(w[j * k + p]))
                .sum();
        }
    }
    y
}

pub(super) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f64> {
    let dim = weight.len();
    let norm = |row: &[f32]| {
        let row: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
        let mean = row.iter().sum::<f64>() / dim as f64;
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / dim as f64;
        let factor = 1.0 / (variance + f64::from(eps)).sqrt();
        let affine = weight.iter().zip(bias);
        let scaled = row.iter().zip(affine);
        scaled
            .map(|(v, (&w, &b))| (v - mean) * factor * f64::from(w) + f64::from(b))
            .collect::<Vec<_>>()
    };
    x.chunks(dim).flat_map(norm).collect()
}

pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f64> {
    let dim = weight.len();
    let norm = |row: &[f32]| {
        let mean = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / dim as f64;
        let factor = 1.0 / (mean + f64::from(eps)).sqrt();
        let scaled = row
            .iter()
            .zip(weight)
            .map(|(&v, &w)| f64::from(v) * factor * f64::from(w));
        scaled.collect::<Vec<_>>()
    };
    x.chunks(dim).flat_map(norm).collect()
}

pub(super) fn rope(x: &[f32], cos: &[f32], sin: &[f32], heads: usize, dim: usize) -> Vec<f64> {
    let tokens = x.len() / (heads * dim);
    let pairs = cos.len() / tokens;
    let mut y: Vec<f64> = x.iter().copied().map(f64::from).collect();
    for token in 0..tokens {
        for head in 0..heads {
            for pair in 0..pairs {
                let i = (token * heads + head) * dim + pair;
                let j = i + dim / 2;
                let (c, s) = (
                    f64::from(cos[token * pairs + pair]),
                    f64::from(sin[token * pairs + pair]),
                );
                let (a, b) = (f64::from(x[i]), f64::from(x[j]));
                y[i] = a * c - b * s;
                y[j] = b * c + a * s;
            }
        }
    }
    y
}

pub(super) fn sigmoid(x: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(x)).exp())
}

pub(super) fn gelu_tanh(x: f32) -> f64 {
    let x = f64::from(x);
    let z = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
    0.5 * x * (1.0 + z.tanh())
}

pub(super) fn silu(x: f32) -> f64 {
    f64::from(x) * sigmoid(x)
}

pub(super) fn softmax(x: &[f32]) -> Vec<f64> {
    let max = x
        .iter()
        .copied()
        .map(f64::from)
        .fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = x.iter().map(|&v| (f64::from(v) - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

pub(super) fn log_sum_exp(x: &[f32]) -> f64 {
    let max = x
        .iter()
        .copied()
        .map(f64::from)
        .fold(f64::NEG_INFINITY, f64::max);
    max + x
        .iter()
        .map(|&v| (f64::from(v) - max).exp())
        .sum::<f64>()
        .ln()
}

pub(super) fn top_k(x: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| {
        let nan = x[a].is_nan().cmp(&x[b].is_nan());
        nan.then(x[b].partial_cmp(&x[a]).unwrap_or(std::cmp::Ordering::Equal))
            .then(a.cmp(&b))
    });
    order.truncate(k);
    order
}

/// The products `B * u` of rows `[B | C | u]`.
pub(super) fn gated(bcx: &[f32], channels: usize) -> Vec<Vec<f64>> {
    let product = |row: &[f32]| {
        (0..channels)
            .map(|c| f64::from(row[c]) * f64::from(row[2 * channels + c]))
            .collect()
    };
    bcx.chunks(3 * channels).map(product).collect()
}

/// `history` are the rows before the first token, oldest first; `weight` is `(channels, taps)`.
pub(super) fn short_conv(
    bcx: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    channels: usize,
    history: &[f32],
    before: usize,
) -> Vec<f64> {
    let taps = weight.len() / channels;
    let g = gated(bcx, channels);
    let past: Vec<&[f32]> = history.chunks(channels).collect();
    let at = |token: isize, channel: usize| -> f64 {
        if token >= 0 {
            g.get(token as usize).map_or(0.0, |row| row[channel])
        } else {
            let row = past.len() as isize + token;
            if row >= 0 {
                f64::from(past[row as usize][channel])
            } else {
                0.0
            }
        }
    };
    let mut out = Vec::new();
    for token in 0..g.len() {
        for channel in 0..channels {
            let mut sum = bias.map_or(0.0, |bias| f64::from(bias[channel]));
            for tap in 0..taps {
                let from = token as isize + tap as isize - before as isize;
                sum += f64::from(weight[channel * taps + tap]) * at(from, channel);
            }
            out.push(sum * f64::from(bcx[token * 3 * channels + channels + channel]));
        }
    }
    out
}

/// `keys` and `values` are `(kv_heads, len, dim)`.
pub(super) fn attention(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    (kv_heads, len, dim): (usize, usize, usize),
    spec: &AttentionSpec,
) -> Vec<f64> {
    let group = spec.heads / kv_heads;
    let mut out = Vec::new();
    for (index, query) in q.chunks(dim).enumerate() {
        let (token, head) = (index / spec.heads, index % spec.heads);
        let kv_head = head / group;
        let position = spec.past + token;
        let seen = |key: usize| match spec.visibility {
            Visibility::All => true,
            Visibility::Causal => key <= position,
            Visibility::Window(size) => key <= position && key + size.get() > position,
        };
        let seen: Vec<usize> = (0..len).filter(|&key| seen(key)).collect();
        let row = |data: &[f32], key: usize| data[(kv_head * len + key) * dim..][..dim].to_vec();
        let score = |key: usize| {
            let products = row(keys, key)
                .into_iter()
                .zip(query)
                .map(|(k, &q)| f64::from(k) * f64::from(q));
            products.sum::<f64>() * f64::from(spec.scale)
        };
        let scores: Vec<f64> = seen.iter().map(|&key| score(key)).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut sums = vec![0.0; dim];
        for (&key, weight) in seen.iter().zip(&weights) {
            for (sum, value) in sums.iter_mut().zip(row(values, key)) {
                *sum += weight / total * f64::from(value);
            }
        }
        out.extend(sums);
    }
    out
}

/// The largest product of each query row with a row of the document; nothing without rows.
pub(super) fn max_sim(query: MatRef<'_, f32>, document: &[f32]) -> Vec<f64> {
    let dim = query.cols();
    if document.is_empty() {
        return Vec::new();
    }
    let best = |i: usize| {
        let products = matmul(query.row(i), document, 1, dim, document.len() / dim);
        products.into_iter().fold(f64::NEG_INFINITY, f64::max)
    };
    (0..query.rows()).map(best).collect()
}
