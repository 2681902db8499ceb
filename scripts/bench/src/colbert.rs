//! This project as a contender of `colbert.py`: times documents and a query, and keeps the vectors.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lfm2::hub::gguf::Quantization;
use lfm2::hub::{Checkpoint, OpenOptions, Overwrite, write_safetensors};
use lfm2::nn::keep_freed_memory;
use lfm2::retrieval::{ColbertModel, TokenVectors};
use lfm2::text::LoadOptions;
use lfm2::{Device, ModelSource, Tensor};
use serde_json::json;

use crate::ColbertArgs;

/// Prints one JSON object, as `pylate_peer.py` does.
pub fn run(args: &ColbertArgs) -> Result<()> {
    // As the command does.
    keep_freed_memory();
    let texts = std::fs::read_to_string(&args.texts).with_context(|| args.texts.display().to_string())?;
    let (query, documents) = texts.split_once('\n').context("a query and documents, one per line")?;
    let documents: Vec<&str> = documents.lines().collect();
    ensure!(!documents.is_empty(), "{} holds no documents", args.texts.display());

    let model = open(args)?;
    model.encode_documents(&documents[..1])?;
    let begun = Instant::now();
    let mut vectors: Vec<TokenVectors> = model.stream(&documents, Default::default()).collect::<Result<_, _>>()?;
    let seconds = begun.elapsed().as_secs_f64();

    vectors.push(model.encode_query(query)?);
    let mut query_seconds = Vec::new();
    for _ in 0..args.queries {
        let begun = Instant::now();
        model.encode_query(query)?;
        query_seconds.push(begun.elapsed().as_secs_f64());
    }
    query_seconds.sort_by(f64::total_cmp);
    if let Some(path) = &args.vectors {
        write(path, &vectors)?;
    }
    let result = json!({
        "documents_per_second": documents.len() as f64 / seconds,
        "query_seconds": query_seconds.get(query_seconds.len() / 2),
    });
    println!("{result}");
    Ok(())
}

fn open(args: &ColbertArgs) -> Result<ColbertModel> {
    let source = ModelSource::from_path(args.model.as_path());
    let checkpoint = Checkpoint::open(&source, &OpenOptions::default())?;
    let mut options = LoadOptions::default();
    match args.storage {
        None | Some(Quantization::F32 | Quantization::BF16) => {}
        Some(kind) => options = options.with_quantize(kind),
    }
    Ok(ColbertModel::from_checkpoint(&checkpoint, &options)?)
}

/// All vectors as one matrix: the documents in their order, then the query.
fn write(path: &std::path::Path, vectors: &[TokenVectors]) -> Result<()> {
    let values: Vec<f32> = vectors.iter().flat_map(TokenVectors::iter).flatten().copied().collect();
    let dim = vectors.first().map_or(1, TokenVectors::dim);
    let matrix = Tensor::from_vec(values.clone(), (values.len() / dim, dim), &Device::Cpu)?;
    write_safetensors(path, [("vectors", &matrix)], &BTreeMap::new(), Overwrite::Replace)?;
    Ok(())
}
