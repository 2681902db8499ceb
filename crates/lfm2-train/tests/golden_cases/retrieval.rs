//! Losses over MaxSim scores.

use anyhow::{Context, Result};
use candle_core::{D, DType, Tensor, Var};
use lfm2_train::loss::retrieval::{
    Pairing, Scaling, TextRows, Uncounted, contrastive, distillation, max_sim, positives,
};

use super::{PRECISIONS, close, flat, for_every, number, prefix, scalar};

/// Vectors `(.., rows, dim)` as unit vectors `(all rows, dim)`.
fn unit(x: &Tensor) -> Result<Tensor> {
    let dim = x.dim(D::Minus1)?;
    let rows = x.reshape(((), dim))?;
    let norms = rows.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    Ok(rows.broadcast_div(&norms)?)
}

#[test]
fn losses_over_max_sim_and_their_gradients() -> Result<()> {
    for_every("retrieval", |golden| {
        let (queries, documents) = (golden.tensor("query")?, golden.tensor("documents")?);
        let (n, query_rows, _) = queries.dims3()?;
        let (_, per_query, document_rows, _) = documents.dims4()?;
        let mask = golden.values("document_mask")?;
        let texts = TextRows::new(&vec![query_rows; n]);
        let others = TextRows::new(&vec![document_rows; n * per_query])
            .counting(mask.iter().map(|&m| m != 0.0).collect())?;
        let teacher = golden.values("teacher_scores")?;
        for case in golden.cases()? {
            let prefix = prefix(case)?;
            for (dtype, of_loss, of_gradient) in PRECISIONS {
                let (q, d) = (
                    Var::from_tensor(&queries.to_dtype(dtype)?)?,
                    Var::from_tensor(&documents.to_dtype(dtype)?)?,
                );
                let scores = |pairing| -> Result<Tensor> {
                    let (q, d) = (unit(&q)?, unit(&d)?);
                    Ok(max_sim(
                        (&q, &texts),
                        (&d, &others),
                        pairing,
                        Uncounted::LeftOut,
                    )?)
                };
                let own = scores(Pairing::Own)?;
                let all = scores(Pairing::All)?;
                close(&flat(&own)?, &golden.values("maxsim")?, of_loss, "maxsim")?;
                close(
                    &flat(&all)?,
                    &golden.values("maxsim_all")?,
                    of_loss,
                    "maxsim_all",
                )?;
                let loss = match case["temperature"].as_f64() {
                    Some(temperature) => {
                        let right = positives(n, per_query);
                        contrastive(&all, &right, temperature, n as f64)?
                    }
                    None => {
                        let scaling = if prefix.contains("minmax") {
                            Scaling::MinMax
                        } else {
                            Scaling::Temperature(1.0)
                        };
                        distillation(&own, &teacher, &vec![1.0; n], scaling, n as f64)?
                    }
                };
                // A small temperature magnifies the rounding of scores.
                let worse = 1.0 / case["temperature"].as_f64().unwrap_or(1.0);
                let loss_tolerance = if dtype == DType::F32 {
                    of_loss * worse
                } else {
                    of_loss
                };
                close(
                    &[scalar(&loss)?],
                    &[number(case, "loss")?],
                    loss_tolerance,
                    prefix,
                )?;
                let grads = loss.backward()?;
                for (var, key) in [(&q, "grad_query"), (&d, "grad_documents")] {
                    let found = flat(grads.get(var).context("a gradient")?)?;
                    let key = format!("{prefix}{key}");
                    close(&found, &golden.values(&key)?, of_gradient * worse, &key)?;
                }
            }
        }
        Ok(())
    })
}
