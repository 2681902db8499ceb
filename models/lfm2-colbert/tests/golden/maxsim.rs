//! MaxSim of plain random vectors, by definition and as the reference library computes it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lfm2_colbert::{TokenVectors, max_sim, rerank};
use lfm2_nn::{DType, Device, Tensor};

/// Largest difference of a score, relative to the score where that is above 1.
const TOLERANCE: f32 = 1e-4;

/// Every folder with such cases below `folder`.
fn find(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.join("maxsim.safetensors").is_file() {
            found.push(path);
        } else if path.is_dir() {
            find(&path, found)?;
        }
    }
    Ok(())
}

/// Every folder with such cases.
pub(crate) fn folders() -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    find(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
        &mut folders,
    )?;
    if let Some(more) = lfm2_golden::folder() {
        let committed = folders.len();
        find(&more.join("colbert"), &mut folders)?;
        ensure!(folders.len() > committed, "no scores in {}", more.display());
    }
    ensure!(!folders.is_empty(), "no scores");
    Ok(folders)
}

/// The texts of `vectors (texts, rows, dim)` with the rows that `mask (texts, rows)` has, and whether
/// each lacks any.
fn texts(vectors: &Tensor, mask: &Tensor) -> Result<Vec<(TokenVectors, bool)>> {
    let vectors: Vec<Vec<Vec<f32>>> = vectors.to_vec3()?;
    let mask: Vec<Vec<u8>> = mask.to_dtype(DType::U8)?.to_vec2()?;
    let text = |(rows, mask): (&Vec<Vec<f32>>, &Vec<u8>)| {
        let dim = rows.first().map_or(1, Vec::len);
        let kept: Vec<&Vec<f32>> = rows
            .iter()
            .zip(mask)
            .filter(|(_, mask)| **mask != 0)
            .map(|(row, _)| row)
            .collect();
        let values = kept.iter().flat_map(|row| row.iter().copied()).collect();
        let ids = (0..).take(kept.len()).collect();
        let vectors = TokenVectors::new(values, dim, ids)?;
        Ok::<_, anyhow::Error>((vectors, kept.len() < rows.len()))
    };
    vectors.iter().zip(&mask).map(text).collect()
}

/// The vectors with one more that is all zeros: what a factor of 0 on masked similarities comes to.
pub(crate) fn with_zero_row(vectors: &TokenVectors) -> Result<TokenVectors> {
    let mut values = vectors.as_slice().to_vec();
    values.resize(values.len() + vectors.dim(), 0.0);
    let ids = (0..).take(vectors.rows() + 1).collect();
    Ok(TokenVectors::new(values, vectors.dim(), ids)?)
}

fn ensure_close(what: &str, found: f32, expected: f32) -> Result<()> {
    let allowed = TOLERANCE * expected.abs().max(1.0);
    ensure!(
        (found - expected).abs() <= allowed,
        "{what}: {found}, expected {expected}"
    );
    Ok(())
}

fn check(tensors: &HashMap<String, Tensor>, case: &str) -> Result<()> {
    let get = |name: &str| {
        let name = format!("{case}.{name}");
        tensors
            .get(&name)
            .with_context(|| format!("no golden {name}"))
    };
    let queries = texts(get("q")?, get("q_mask")?)?;
    let documents = texts(get("d")?, get("d_mask")?)?;
    let exact: Vec<Vec<f32>> = get("exact")?.to_vec2()?;
    let pylate: Vec<Vec<f32>> = get("pylate")?.to_vec2()?;
    for (i, (query, _)) in queries.iter().enumerate() {
        let ranked = rerank(
            query.view()?,
            documents.iter().map(|(d, _)| d.view().unwrap()),
        )?;
        ensure!(ranked.len() == documents.len());
        ensure!(
            ranked.windows(2).all(|pair| pair[0].score >= pair[1].score),
            "{case}: order"
        );
        for ranked in ranked {
            ensure_close(
                &format!("{case}: rank of {i}"),
                ranked.score,
                exact[i][ranked.index],
            )?;
        }
        for (j, (document, masked)) in documents.iter().enumerate() {
            let score = max_sim(query.view()?, document.view()?)?;
            ensure_close(&format!("{case}: exact {i}, {j}"), score, exact[i][j])?;
            let padded = if *masked {
                with_zero_row(document)?
            } else {
                document.clone()
            };
            let score = max_sim(query.view()?, padded.view()?)?;
            ensure_close(&format!("{case}: pylate {i}, {j}"), score, pylate[i][j])?;
        }
    }
    Ok(())
}

#[test]
fn scores_of_plain_vectors_are_the_references() -> Result<()> {
    for folder in folders()? {
        let tensors =
            candle_core::safetensors::load(folder.join("maxsim.safetensors"), &Device::Cpu)?;
        let mut cases: Vec<&str> = tensors
            .keys()
            .filter_map(|name| name.strip_suffix(".exact"))
            .collect();
        cases.sort_unstable();
        ensure!(!cases.is_empty(), "no cases in {}", folder.display());
        for case in cases {
            check(&tensors, case).with_context(|| folder.display().to_string())?;
        }
    }
    Ok(())
}
