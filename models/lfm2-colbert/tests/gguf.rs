//! A GGUF file of llama.cpp's making: trunk, `dense_2` and so on, no settings.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use lfm2_colbert::{ColbertModel, RetrievalModel, RetrievalSettings};
use lfm2_hub::gguf::{Quantization, QuantizeInput, QuantizeOptions, quantize};
use lfm2_hub::{Checkpoint, ErrorKind, ModelSource, OpenOptions};
use lfm2_nn::Accuracy;
use lfm2_text::LoadOptions;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/two-dense-tiny")
}

fn open(source: &ModelSource) -> Result<Checkpoint> {
    Ok(Checkpoint::open(source, &OpenOptions::default())?)
}

/// Writes the trunk of the committed model as a GGUF file, and then its linear layers into it.
fn write(path: &Path, width: u32) -> Result<()> {
    let checkpoint = open(&ModelSource::Dir(folder()))?;
    let trunk = path.with_extension("trunk");
    let (tokenizer, tensors) = (
        std::fs::read(folder().join("tokenizer.json"))?,
        checkpoint.tensors(),
    );
    let input = QuantizeInput {
        config: checkpoint.config(),
        generation_config: None,
        tokenizer: &tokenizer,
        chat_template: None,
        tensors: &*tensors,
    };
    quantize(
        &input,
        &trunk,
        &QuantizeOptions::new(Quantization::F32, "tiny"),
        |_| {},
    )?;

    let mut file = BufReader::new(File::open(&trunk)?);
    let content = gguf_file::Content::read(&mut file)?;
    let mut tensors = Vec::new();
    for name in content.tensor_infos.keys() {
        tensors.push((name.clone(), content.tensor(&mut file, name, &Device::Cpu)?));
    }
    for (number, part) in [(2, "1_Dense"), (3, "2_Dense")] {
        let layer = folder().join(part).join("model.safetensors");
        let layer: HashMap<String, Tensor> = candle_core::safetensors::load(layer, &Device::Cpu)?;
        for (name, tensor) in layer {
            let name = name.replace("linear", &format!("dense_{number}"));
            let tensor = tensor.to_dtype(candle_core::DType::F32)?;
            tensors.push((name, QTensor::quantize(&tensor, GgmlDType::F32)?));
        }
    }
    let length = gguf_file::Value::U32(width);
    let mut metadata: Vec<(&str, &gguf_file::Value)> = content
        .metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value))
        .collect();
    metadata.push(("lfm2.embedding_length_out", &length));
    let tensors: Vec<(&str, &QTensor)> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let mut file = BufWriter::new(File::create(path)?);
    gguf_file::write(&mut file, &metadata, &tensors)?;
    Ok(())
}

fn exact() -> LoadOptions {
    LoadOptions::default()
        .with_accuracy(Accuracy::Exact)
        .strict()
}

#[test]
fn a_gguf_file_gives_the_vectors_of_the_folder() -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let path = temporary.path().join("tiny.gguf");
    write(&path, 16)?;
    let checkpoint = open(&ModelSource::Gguf(path))?;
    let model = ColbertModel::from_checkpoint(&checkpoint, &exact())?;
    ensure!(
        *model.settings() == RetrievalSettings::default(),
        "settings"
    );

    let expected = ColbertModel::from_checkpoint(&open(&ModelSource::Dir(folder()))?, &exact())?;
    ensure!(
        model.reader().filler() == expected.reader().filler(),
        "filler"
    );
    let model = model.with_settings(expected.settings().clone())?;
    let texts = ["a question", "Punctuation, too: (yes)!", ""];
    let pairs = [
        (
            model.encode_queries(&texts)?,
            expected.encode_queries(&texts)?,
        ),
        (
            model.encode_documents(&texts)?,
            expected.encode_documents(&texts)?,
        ),
    ];
    for (found, expected) in pairs {
        for (found, expected) in found.iter().zip(&expected) {
            ensure!(found.ids() == expected.ids(), "ids");
            let numbers = found.as_slice().iter().zip(expected.as_slice());
            let apart = numbers.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            ensure!(apart < 1e-5, "differs by {apart}");
        }
    }
    Ok(())
}

#[test]
fn a_gguf_file_without_linear_layers_has_one_vector_per_text() -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let path = temporary.path().join("tiny.gguf");
    write(&path, 16)?;
    // The file before the layers were added.
    let trunk = open(&ModelSource::Gguf(path.with_extension("trunk")))?;
    let model = RetrievalModel::from_checkpoint(&trunk, &exact())?;
    let RetrievalModel::SingleVector(model) = model else {
        anyhow::bail!("not one vector per text");
    };
    ensure!(model.settings().query_prompt == "query: ");
    ensure!(
        model
            .encode_queries(&["x"])?
            .first()
            .context("no vector")?
            .len()
            == model.dim()
    );
    Ok(())
}

#[test]
fn a_width_that_contradicts_the_last_layer_is_refused() -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let path = temporary.path().join("tiny.gguf");
    write(&path, 17)?;
    let error = ColbertModel::open(&ModelSource::Gguf(path)).unwrap_err();
    ensure!(error.kind() == ErrorKind::InvalidModel, "{error}");
    ensure!(
        error.to_string().contains("embedding_length_out"),
        "{error}"
    );
    Ok(())
}
