//! What quantising a trunk while it is loaded costs: vectors against those of the weights as stored.
#![allow(clippy::unwrap_used)] // also in the helpers of tests
#![allow(
    clippy::print_stdout,
    reason = "figures for those who want to see them"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use lfm2_colbert::{ColbertModel, ColbertNetwork, DenseSpec, TokenVectors, cosine};
use lfm2_hub::gguf::Quantization;
use lfm2_hub::{Checkpoint, ModelSource, OpenOptions, StoredType, SyntheticSource, TensorSource};
use lfm2_nn::{Accuracy, Bias, DType, Device, Step, Tensor};
use lfm2_text::{LoadOptions, TextConfig, shapes};

/// Every type, and the least mean cosine it may have in a random model of full size: random weights have
/// no redundancy, and the errors of 16 layers of them add up.
const KINDS: [(Quantization, f32); 8] = [
    (Quantization::Q8_0, 0.997),
    (Quantization::Q6K, 0.95),
    (Quantization::Q5K, 0.8),
    (Quantization::Q5_1, 0.8),
    (Quantization::Q5_0, 0.8),
    (Quantization::Q4K, 0.4),
    (Quantization::Q4_1, 0.4),
    (Quantization::Q4_0, 0.4),
];

fn checkpoints() -> Result<Vec<PathBuf>> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")];
    if let Some(more) = lfm2_golden::folder() {
        folders.push(more.join("colbert"));
    }
    let mut found = Vec::new();
    for folder in folders {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.join("modules.json").is_file() {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Mean and least cosine of vectors that belong together.
fn cosines<'a>(pairs: impl Iterator<Item = (&'a [f32], &'a [f32])>) -> (f32, f32) {
    let cosines: Vec<f32> = pairs.map(|(a, b)| cosine(a, b)).collect();
    let mean = cosines.iter().sum::<f32>() / cosines.len() as f32;
    (mean, cosines.into_iter().fold(1.0, f32::min))
}

const TEXTS: [&str; 3] = [
    "boundary layer theory of a flat plate in supersonic flow",
    "Arc<Mutex<T>> is the idiomatic way to share mutable state across threads in Rust.",
    "検索システムは文書を単語に分割し、索引を作成します。",
];

fn rows(vectors: &[TokenVectors]) -> impl Iterator<Item = &[f32]> {
    vectors.iter().flat_map(TokenVectors::iter)
}

#[test]
fn tiny_checkpoints_keep_their_vectors() -> Result<()> {
    for folder in checkpoints()? {
        let name = folder.file_name().unwrap_or_default().to_owned();
        let checkpoint = Checkpoint::open(&ModelSource::Dir(folder), &OpenOptions::default())?;
        let open = |options: LoadOptions| ColbertModel::from_checkpoint(&checkpoint, &options);
        let exact = open(LoadOptions::default().with_accuracy(Accuracy::Exact))?;
        let expected = exact.encode_documents(&TEXTS)?;
        let stored = open(LoadOptions::default())?.encode_documents(&TEXTS)?;
        let (mean, least) = cosines(rows(&stored).zip(rows(&expected)));
        println!("{}: as stored {mean:.6}, least {least:.6}", name.display());
        ensure!(mean > 0.999, "as stored: {mean}");
        for (kind, allowed) in KINDS {
            let found =
                open(LoadOptions::default().with_quantize(kind))?.encode_documents(&TEXTS)?;
            let (mean, least) = cosines(rows(&found).zip(rows(&expected)));
            println!("{}: {kind} {mean:.6}, least {least:.6}", name.display());
            ensure!(mean >= allowed, "{}: {kind} {mean}", name.display());
        }
    }
    Ok(())
}

#[test]
#[ignore = "a model of full size: minutes"]
fn a_random_model_of_full_size_keeps_its_vectors() -> Result<()> {
    let shape = shapes::find("lfm2-350m")?;
    let mut json = shape.config_json();
    json["architectures"] = serde_json::json!(["Lfm2BidirectionalModel"]);
    let config = TextConfig::from_json(&json)?;
    let dense = [DenseSpec {
        prefix: "1_Dense.linear".to_owned(),
        input: config.hidden_size,
        output: 128,
        bias: Bias::Without,
    }];
    let specs = ColbertNetwork::tensors(&config, &dense);
    let tensors: Vec<_> = specs
        .into_iter()
        .map(|spec| (spec.name, spec.shape))
        .collect();
    let ids: Vec<u32> = (0..96).map(|i| (i * 7919 + 13) % 65_536).collect();
    let ids = Tensor::new(ids, &Device::Cpu)?;
    let vectors = |stored: DType, options: &LoadOptions| -> Result<Vec<f32>> {
        let stored = StoredType::Dense(stored);
        let source = SyntheticSource::new(tensors.clone(), stored, stored, 7)?;
        let weights = options.weights(Arc::new(source) as Arc<dyn TensorSource>);
        let network = ColbertNetwork::load(config.clone(), &dense, &weights)?;
        let step = Step::rows(&[32, 64]);
        Ok(network.forward(&ids, &step)?.flatten_all()?.to_vec1()?)
    };
    let exact = LoadOptions::default().with_accuracy(Accuracy::Exact);
    let expected = vectors(DType::F32, &exact)?;
    let mut below = Vec::new();
    let mut report = |name: &str, found: &[f32], allowed: f32| {
        let (mean, least) = cosines(found.chunks(128).zip(expected.chunks(128)));
        println!("{name}: {mean:.6}, least {least:.6}");
        if mean < allowed {
            below.push(format!("{name}: {mean}, allowed is {allowed}"));
        }
    };
    let stored = vectors(DType::BF16, &LoadOptions::default())?;
    report("bf16", &stored, 0.999);
    for (kind, allowed) in KINDS {
        let options = LoadOptions::default().with_quantize(kind);
        report(&kind.to_string(), &vectors(DType::F32, &options)?, allowed);
    }
    ensure!(below.is_empty(), "{}", below.join("\n"));
    Ok(())
}
