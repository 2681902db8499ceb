//! Losses over MaxSim and their gradients, with masks as the reference library applies them.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use lfm2_train::loss::retrieval::{
    Pairing, Scaling, TextRows, Uncounted, contrastive, distillation, max_sim, positives,
};

use super::maxsim::folders;

/// Largest difference, beside a number of size 1. The references were computed in `f32`.
const TOLERANCE: f64 = 2e-5;

/// The tensors of one kind of loss.
struct Kind<'a> {
    tensors: &'a HashMap<String, Tensor>,
    name: &'a str,
}

impl Kind<'_> {
    fn get(&self, name: &str) -> Result<&Tensor> {
        let name = format!("{}.{name}", self.name);
        self.tensors
            .get(&name)
            .with_context(|| format!("no golden {name}"))
    }

    /// What stands between the name of the kind and `.loss` in the names of its cases.
    fn cases(&self) -> Vec<&str> {
        let names = self.tensors.keys();
        let case = |name: &'_ String| -> Option<(usize, usize)> {
            let start = name.strip_prefix(self.name)?.strip_prefix('.')?;
            Some((name.len() - start.len(), start.strip_suffix(".loss")?.len()))
        };
        let mut cases: Vec<&str> = names
            .filter_map(|name| case(name).map(|(start, len)| &name[start..start + len]))
            .collect();
        cases.sort_unstable();
        cases
    }
}

fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

fn ensure_close(what: &str, found: &Tensor, expected: &Tensor, magnified: f64) -> Result<()> {
    let (found, expected) = (numbers(found)?, numbers(expected)?);
    ensure!(
        found.len() == expected.len(),
        "{what}: {} numbers",
        found.len()
    );
    for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
        let allowed = TOLERANCE * magnified * b.abs().max(1.0);
        ensure!(
            (a - b).abs() <= allowed,
            "{what}, element {i}: {a}, expected {b}"
        );
    }
    Ok(())
}

/// Scores of all queries with the documents that `pairing` says, and the leaves they were made from.
fn scores(
    kind: &Kind<'_>,
    queries: &Tensor,
    pairing: Pairing,
    dtype: DType,
) -> Result<(Tensor, [Var; 2])> {
    let (n, query_rows, dim) = queries.dims3()?;
    let (_, per_query, document_rows, _) = kind.get("d")?.dims4()?;
    let counted = numbers(kind.get("d_mask")?)?
        .iter()
        .map(|m| *m != 0.0)
        .collect();
    let leaf = |t: &Tensor| Var::from_tensor(&t.reshape(((), dim))?.to_dtype(dtype)?);
    let (q, d) = (leaf(queries)?, leaf(kind.get("d")?)?);
    let own = TextRows::new(&vec![query_rows; n]);
    let others = TextRows::new(&vec![document_rows; n * per_query]).counting(counted)?;
    let scores = max_sim((&q, &own), (&d, &others), pairing, Uncounted::Zero)?;
    Ok((scores, [q, d]))
}

fn check(
    kind: &Kind<'_>,
    case: &str,
    loss: &Tensor,
    leaves: &[Var; 2],
    magnified: f64,
) -> Result<()> {
    let name = |part: &str| format!("{case}.{part}");
    ensure_close(&name("loss"), loss, kind.get(&name("loss"))?, magnified)?;
    let gradients = loss.backward()?;
    for (leaf, part) in leaves.iter().zip(["grad_q", "grad_d"]) {
        let found = gradients.get(leaf).context("no gradient")?;
        ensure_close(&name(part), found, kind.get(&name(part))?, magnified)?;
    }
    Ok(())
}

fn tensors_of_every_folder(
    check: impl Fn(&HashMap<String, Tensor>) -> Result<usize>,
) -> Result<()> {
    for folder in folders()? {
        let tensors =
            candle_core::safetensors::load(folder.join("maxsim.safetensors"), &Device::Cpu)?;
        let cases = check(&tensors).with_context(|| folder.display().to_string())?;
        ensure!(cases > 0, "no losses in {}", folder.display());
    }
    Ok(())
}

#[test]
fn contrastive_losses_and_gradients_are_the_references() -> Result<()> {
    tensors_of_every_folder(|tensors| {
        let kind = Kind {
            tensors,
            name: "contrastive",
        };
        let queries = kind.get("q")?;
        let (n, per_query) = (queries.dim(0)?, kind.get("d")?.dim(1)?);
        for case in kind.cases() {
            let temperature: f64 = case.trim_start_matches('t').parse()?;
            for dtype in [DType::F64, DType::F32] {
                let (scores, leaves) = scores(&kind, queries, Pairing::All, dtype)?;
                ensure_close("scores", &scores, kind.get("scores")?, 1.0)?;
                let loss = contrastive(&scores, &positives(n, per_query), temperature, n as f64)?;
                // A small temperature magnifies what is rounded.
                check(&kind, case, &loss, &leaves, 1.0 + 1.0 / temperature)?;
            }
        }
        Ok(kind.cases().len())
    })
}

#[test]
fn distillation_losses_and_gradients_are_the_references() -> Result<()> {
    tensors_of_every_folder(|tensors| {
        let kind = Kind {
            tensors,
            name: "distill",
        };
        let queries = tensors
            .get("contrastive.q")
            .context("no golden contrastive.q")?;
        let teacher = numbers(kind.get("teacher")?)?;
        let n = queries.dim(0)?;
        for case in kind.cases() {
            let scaling = match case {
                "norm0" => Scaling::Temperature(1.0),
                _ => Scaling::MinMax,
            };
            for dtype in [DType::F64, DType::F32] {
                let (scores, leaves) = scores(&kind, queries, Pairing::Own, dtype)?;
                ensure_close("scores", &scores, kind.get("scores")?, 1.0)?;
                let weights = vec![1.0; n];
                let loss = distillation(&scores, &teacher, &weights, scaling, n as f64)?;
                check(&kind, case, &loss, &leaves, 4.0)?;
            }
        }
        Ok(kind.cases().len())
    })
}
