//! Attention of encoders: every token of a segment sees all of it, and nothing else.

use candle_core::{Result, Tensor, bail};

use crate::attention::Visibility;
use crate::ops::{self, Mask};
use crate::pass::Span;

/// Softmax attention inside each of the consecutive segments that are `lens` tokens long.
///
/// `q`, `k` and `v` are `(tokens, heads, head_dim)`, and so is the result; `k` and `v` may have fewer
/// heads, which then serve several of `q` each. Scores are multiplied by `scale`.
///
/// # Errors
/// When the lengths do not add up to the tokens, shapes disagree or the device fails.
pub fn attend_within(qkv: [&Tensor; 3], lens: &[usize], scale: f64) -> Result<Tensor> {
    let spans = checked_spans(&qkv, lens)?;
    let visibility = Visibility::Bidirectional;
    if let Some(mixed) = ops::packed_attention(qkv, &spans, scale, visibility) {
        return mixed;
    }
    let [q, k, v] = qkv;
    let one = |span: &Span| {
        let own = |t: &Tensor| t.narrow(0, span.start, span.len);
        let by_head = |t: &Tensor| own(t)?.transpose(0, 1)?.contiguous();
        let mask = Mask {
            visibility,
            past: 0,
            keys: span.len,
        };
        ops::attention(&own(q)?, &by_head(k)?, &by_head(v)?, scale, mask)
    };
    match &spans[..] {
        [only] => one(only),
        several => Tensor::cat(&several.iter().map(one).collect::<Result<Vec<_>>>()?, 0),
    }
}

/// [`attend_within`] with everything rounded to `bf16` where that is faster, for encoders whose weights are no
/// finer either.
///
/// # Errors
/// As [`attend_within`].
pub fn attend_within_coarse(qkv: [&Tensor; 3], lens: &[usize], scale: f64) -> Result<Tensor> {
    let spans = checked_spans(&qkv, lens)?;
    match ops::rounded_attention(qkv, &spans, scale)? {
        Some(mixed) => Ok(mixed),
        None => attend_within(qkv, lens, scale),
    }
}

fn checked_spans(qkv: &[&Tensor; 3], lens: &[usize]) -> Result<Vec<Span>> {
    let tokens = qkv[0].dim(0)?;
    let total: usize = lens.iter().sum();
    if total != tokens || lens.is_empty() {
        bail!("segments of {lens:?} tokens for {tokens}");
    }
    Ok(spans(lens))
}

fn spans(lens: &[usize]) -> Vec<Span> {
    let mut start = 0;
    let place = |(row, &len): (usize, &usize)| {
        let span = Span {
            row,
            start,
            len,
            past: 0,
            keys: len,
        };
        start += len;
        span
    };
    lens.iter().enumerate().map(place).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Device, Var};

    use super::*;

    fn random(tokens: usize, heads: usize, dim: usize) -> Result<Tensor> {
        Tensor::randn(0f32, 1., (tokens, heads, dim), &Device::Cpu)
    }

    /// One segment, head by head, in plain matrix products.
    fn naive(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
        let mut heads = Vec::new();
        for head in 0..q.dim(1)? {
            let of = |t: &Tensor| t.narrow(1, head, 1)?.squeeze(1)?.contiguous();
            let scores = (of(q)?.matmul(&of(k)?.t()?)? * scale)?;
            heads.push(candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&of(v)?)?);
        }
        Tensor::stack(&heads, 1)
    }

    fn difference(a: &Tensor, b: &Tensor) -> Result<f32> {
        (a - b)?.abs()?.max_all()?.to_scalar()
    }

    #[test]
    fn segments_are_blind_to_each_other_and_see_all_of_themselves() -> Result<()> {
        // 72 / 8 = 9 values per head: no whole vectors.
        let (q, k, v) = (random(23, 3, 9)?, random(23, 3, 9)?, random(23, 3, 9)?);
        let found = attend_within([&q, &k, &v], &[4, 1, 18], 0.3)?;
        let part = |t: &Tensor, start, len| t.narrow(0, start, len);
        for (start, len) in [(0, 4), (4, 1), (5, 18)] {
            let [q, k, v] = [&q, &k, &v].map(|t| part(t, start, len));
            let alone = naive(&q?, &k?, &v?, 0.3)?;
            let error = difference(&part(&found, start, len)?, &alone)?;
            assert!(error < 1e-5, "{start}: {error}");
        }
        Ok(())
    }

    #[test]
    fn the_coarse_form_is_near() -> Result<()> {
        let (q, k, v) = (random(150, 4, 9)?, random(150, 2, 9)?, random(150, 2, 9)?);
        let lens = [130, 1, 19];
        let found = attend_within_coarse([&q, &k, &v], &lens, 0.3)?;
        let exact = attend_within([&q, &k, &v], &lens, 0.3)?;
        let error = difference(&found, &exact)?;
        assert!(error < 0.05, "{error}");
        assert!(attend_within_coarse([&q, &k, &v], &[2], 0.3).is_err());
        Ok(())
    }

    #[test]
    fn the_form_with_gradients_gives_the_same() -> Result<()> {
        let (q, k, v) = (random(9, 2, 6)?, random(9, 2, 6)?, random(9, 2, 6)?);
        let plain = attend_within([&q, &k, &v], &[5, 4], 0.4)?;
        let tracked = Var::from_tensor(&k)?;
        let learnt = attend_within([&q, tracked.as_tensor(), &v], &[5, 4], 0.4)?;
        assert!(difference(&plain, &learnt)? < 1e-5);
        let grads = learnt.sqr()?.sum_all()?.backward()?;
        assert!(grads.get(tracked.as_tensor()).is_some());
        Ok(())
    }

    #[test]
    fn lengths_have_to_add_up() -> Result<()> {
        let x = random(3, 1, 4)?;
        assert!(attend_within([&x, &x, &x], &[2], 1.0).is_err());
        assert!(attend_within([&x, &x, &x], &[], 1.0).is_err());
        Ok(())
    }
}
