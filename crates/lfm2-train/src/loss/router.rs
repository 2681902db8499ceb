//! Losses that balance the experts of a mixture by gradients, for comparison with the bias of
//! [`balance`](crate::balance).

use candle_core::{D, Result, Tensor};

/// The switch loss: experts times the sum over experts of (share of choices, mean probability).
///
/// `logits` are a router's, `(tokens, experts)`; the `per_token` most probable experts count as
/// chosen, ties to the lower one. It is at least 1, and 1 when both are even.
///
/// # Errors
/// When the shapes disagree or there is no token.
pub fn switch_loss(logits: &Tensor, per_token: usize) -> Result<Tensor> {
    let (tokens, experts) = logits.dims2()?;
    if tokens == 0 || per_token == 0 || per_token > experts {
        candle_core::bail!("{per_token} of {experts} experts for {tokens} tokens");
    }
    let mut share = vec![0.0; experts];
    for row in logits
        .detach()
        .to_dtype(candle_core::DType::F64)?
        .to_vec2::<f64>()?
    {
        let mut order: Vec<usize> = (0..experts).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        for &expert in &order[..per_token] {
            share[expert] += 1.0 / (tokens * per_token) as f64;
        }
    }
    let share = Tensor::new(share, logits.device())?.to_dtype(logits.dtype())?;
    let largest = logits.detach().max_keepdim(D::Minus1)?;
    let weights = logits.broadcast_sub(&largest)?.exp()?;
    let probabilities = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    (probabilities.mean(0)? * share)?.sum_all()? * experts as f64
}

/// The mean over tokens of the squared logarithm of the sum of a router's exponentials, which keeps
/// its logits small. `logits` are `(tokens, experts)`.
///
/// # Errors
/// When `logits` are not a matrix.
pub fn router_z_loss(logits: &Tensor) -> Result<Tensor> {
    logits.dims2()?;
    let largest = logits.detach().max_keepdim(D::Minus1)?;
    let sum = logits
        .broadcast_sub(&largest)?
        .exp()?
        .sum_keepdim(D::Minus1)?;
    (sum.log()? + largest)?.sqr()?.mean_all()
}
