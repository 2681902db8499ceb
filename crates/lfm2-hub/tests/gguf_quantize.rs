//! Writing checkpoints as GGUF files and opening them again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};
use lfm2_hub::gguf::{
    Array, GgufFile, Metadata, NewTensor, Quantization, QuantizeInput, QuantizeOptions,
    QuantizeReport, Value, quantize, write_gguf,
};
use lfm2_hub::{
    Checkpoint, Error, ErrorKind, Limits, Mapping, ModelSource, OpenOptions, Overwrite, StoredType,
    TensorInfo, TensorSource,
};
use serde_json::{Value as Json, json};

const TOKENIZER: &[u8] = include_bytes!("golden/text/dense_gqa2/tokenizer.json");
const EMBEDDING: &str = "model.embed_tokens.weight";

/// Tensors in memory.
#[derive(Clone, Default)]
struct Weights(HashMap<String, Tensor>);

impl Weights {
    fn add(&mut self, name: &str, shape: &[usize]) {
        // Different values everywhere, spread like weights, the same in every run.
        let count = shape.iter().product::<usize>();
        let seed = name.len() as f32;
        let value = |i: usize| ((i as f32 * 12.9898 + seed).sin() * 43758.547).fract() * 0.5;
        let values: Vec<f32> = (0..count).map(value).collect();
        self.0.insert(
            name.to_owned(),
            Tensor::from_vec(values, shape, &Device::Cpu).expect("a valid shape"),
        );
    }

    fn set(&mut self, name: &str, tensor: Tensor) {
        self.0.insert(name.to_owned(), tensor);
    }
}

impl TensorSource for Weights {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let tensor = self.0.get(name)?;
        Some(TensorInfo {
            shape: tensor.dims().to_vec(),
            stored: StoredType::Dense(tensor.dtype()),
        })
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> lfm2_hub::Result<Tensor> {
        let missing = || Error::MissingTensor {
            name: name.to_owned(),
        };
        Ok(self
            .0
            .get(name)
            .ok_or_else(missing)?
            .to_device(device)?
            .to_dtype(dtype)?)
    }

    fn quantized(&self, _: &str, _: &Device) -> lfm2_hub::Result<Option<Arc<QTensor>>> {
        Ok(None)
    }
}

/// A dense model with a convolution and then attention layers; every row of a weight matrix has `hidden` or `ffn` elements.
fn dense_model(layers: usize, hidden: usize, ffn: usize) -> (Json, Weights) {
    let config = json!({
        "model_type": "lfm2", "vocab_size": 384, "hidden_size": hidden, "intermediate_size": 7,
        "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2, "full_attn_idxs": (1..layers).collect::<Vec<_>>(),
        "conv_L_cache": 3, "norm_eps": 1e-5, "rope_theta": 1e6, "max_position_embeddings": 128,
        "bos_token_id": 1, "eos_token_id": [7, 2], "pad_token_id": 0,
    });
    let mut weights = Weights::default();
    weights.add(EMBEDDING, &[384, hidden]);
    weights.add("model.embedding_norm.weight", &[hidden]);
    for layer in 0..layers {
        let mut add = |name: &str, shape: &[usize]| {
            weights.add(&format!("model.layers.{layer}.{name}.weight"), shape);
        };
        add("operator_norm", &[hidden]);
        add("ffn_norm", &[hidden]);
        add("feed_forward.w1", &[ffn, hidden]);
        add("feed_forward.w3", &[ffn, hidden]);
        add("feed_forward.w2", &[hidden, ffn]);
        if layer == 0 {
            add("conv.conv", &[hidden, 1, 3]);
            add("conv.in_proj", &[3 * hidden, hidden]);
            add("conv.out_proj", &[hidden, hidden]);
        } else {
            add("self_attn.q_proj", &[hidden, hidden]);
            add("self_attn.k_proj", &[hidden / 2, hidden]);
            add("self_attn.v_proj", &[hidden / 2, hidden]);
            add("self_attn.out_proj", &[hidden, hidden]);
            add("self_attn.q_layernorm", &[hidden / 4]);
            add("self_attn.k_layernorm", &[hidden / 4]);
        }
    }
    (config, weights)
}

/// How a mixture checkpoint keeps its experts.
#[derive(Clone, Copy, PartialEq)]
enum Experts {
    Single,
    Packed,
    Switch,
}

/// A mixture of one layer with four experts.
fn moe_model(experts: Experts) -> (Json, Weights) {
    let config = json!({
        "model_type": "lfm2_moe", "vocab_size": 384, "hidden_size": 64, "intermediate_size": 96,
        "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2, "num_dense_layers": 0,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "layer_types": ["conv"],
        "routed_scaling_factor": 2.5, "norm_topk_prob": false, "bos_token_id": 1, "eos_token_id": 7,
    });
    let mut weights = Weights::default();
    weights.add(EMBEDDING, &[384, 64]);
    weights.add("model.embedding_norm.weight", &[64]);
    let layer = |name: &str| format!("model.layers.0.{name}");
    for (name, shape) in [
        ("operator_norm.weight", &[64][..]),
        ("ffn_norm.weight", &[64]),
        ("conv.conv.weight", &[64, 1, 3]),
        ("conv.in_proj.weight", &[192, 64]),
        ("conv.out_proj.weight", &[64, 64]),
        ("feed_forward.gate.weight", &[4, 64]),
        ("feed_forward.expert_bias", &[4]),
    ] {
        weights.add(&layer(name), shape);
    }
    let mut stacks = Weights::default();
    stacks.add("w1", &[4, 32, 64]);
    stacks.add("w3", &[4, 32, 64]);
    stacks.add("w2", &[4, 64, 32]);
    let stack = |name: &str| stacks.0[name].clone();
    match experts {
        Experts::Single => {
            for (name, tensor) in &stacks.0 {
                for expert in 0..4 {
                    let name = layer(&format!("feed_forward.experts.{expert}.{name}.weight"));
                    weights.set(&name, tensor.get(expert).expect("four experts"));
                }
            }
        }
        Experts::Packed => {
            let both = Tensor::cat(&[stack("w1"), stack("w3")], 1).expect("equal shapes");
            weights.set(&layer("feed_forward.experts.gate_up_proj"), both);
            weights.set(&layer("feed_forward.experts.down_proj"), stack("w2"));
        }
        Experts::Switch => {
            for (ours, theirs) in [("w1", "gate"), ("w3", "up"), ("w2", "down")] {
                weights.set(
                    &layer(&format!("feed_forward.switch_mlp.{theirs}_proj.weight")),
                    stack(ours),
                );
            }
        }
    }
    (config, weights)
}

fn write(
    (config, weights): &(Json, Weights),
    path: &Path,
    options: &QuantizeOptions,
) -> lfm2_hub::Result<QuantizeReport> {
    let input = QuantizeInput {
        config,
        generation_config: None,
        tokenizer: TOKENIZER,
        chat_template: Some("{{ messages }}"),
        tensors: weights,
    };
    quantize(&input, path, options, |_| {})
}

/// Writes a model and opens it.
fn round_trip(model: &(Json, Weights), kind: Quantization) -> Result<(QuantizeReport, GgufFile)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.gguf");
    let report = write(model, &path, &QuantizeOptions::new(kind, "test"))?;
    Ok((
        report,
        GgufFile::open(&path, &Limits::default(), Mapping::Read)?,
    ))
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

fn dense(source: &dyn TensorSource, name: &str) -> Result<Vec<f32>> {
    values(&source.dense(name, DType::F32, &Device::Cpu)?)
}

#[test]
fn every_type_reads_back_within_its_precision() -> Result<()> {
    let model = dense_model(1, 256, 256);
    // The largest error as a part of the largest weight, which is 0.5 everywhere.
    let tolerance = |kind| match kind {
        Quantization::F32 => 0.0,
        Quantization::F16 => 0.0005,
        Quantization::BF16 => 0.004,
        Quantization::Q8_0 => 0.005,
        Quantization::Q6K => 0.04,
        Quantization::Q5_0 | Quantization::Q5_1 | Quantization::Q5K => 0.07,
        Quantization::Q4_0 | Quantization::Q4_1 | Quantization::Q4K => 0.14,
    };
    for kind in Quantization::ALL {
        let (report, file) = round_trip(&model, kind)?;
        ensure!(
            report.fallbacks.is_empty() && report.unused.is_empty(),
            "{kind}: {report:?}"
        );
        let source = file.tensors();
        ensure!(source.names().len() == model.1.0.len(), "{kind}");
        for name in model.1.names() {
            let (ours, own) = (dense(&*source, &name)?, dense(&model.1, &name)?);
            let worst = ours
                .iter()
                .zip(&own)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            ensure!(worst <= 0.5 * tolerance(kind), "{kind} {name}: {worst}");
            ensure!(
                source.info(&name).context("no facts")?.shape
                    == model.1.info(&name).context("no facts")?.shape
            );
        }
        let stored = file.stored_as("model.layers.0.conv.in_proj.weight");
        ensure!(stored == Some(kind), "{stored:?}");
        ensure!(file.metadata().usize("general.file_type")? == kind.file_type() as usize);
    }
    Ok(())
}

#[test]
fn the_embedding_keeps_eight_bits_and_the_small_tensors_all() -> Result<()> {
    let (_, file) = round_trip(&dense_model(1, 256, 256), Quantization::Q6K)?;
    ensure!(file.stored_as(EMBEDDING) == Some(Quantization::Q8_0));
    for name in [
        "operator_norm.weight",
        "conv.conv.weight",
        "ffn_norm.weight",
    ] {
        ensure!(
            file.stored_as(&format!("model.layers.0.{name}")) == Some(Quantization::F32),
            "{name}"
        );
    }
    let blocks = file
        .tensors()
        .quantized(EMBEDDING, &Device::Cpu)?
        .context("no blocks")?;
    ensure!(blocks.shape().dims() == [384, 256]);
    ensure!(
        file.tensors()
            .quantized("model.embedding_norm.weight", &Device::Cpu)?
            .is_none()
    );
    Ok(())
}

#[test]
fn the_embedding_type_is_a_choice() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.gguf");
    let mut options = QuantizeOptions::new(Quantization::Q4_0, "test");
    options.embedding = Quantization::Q6K;
    write(&dense_model(1, 256, 256), &path, &options)?;
    let file = GgufFile::open(&path, &Limits::default(), Mapping::Map)?;
    ensure!(file.stored_as(EMBEDDING) == Some(Quantization::Q6K));
    Ok(())
}

#[test]
fn tr_07_rows_that_are_no_whole_blocks_fall_back() -> Result<()> {
    use Quantization::{F32, Q4_0, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    for (wanted, used) in [(Q4K, Q5_0), (Q5K, Q5_1), (Q6K, Q8_0)] {
        let (report, file) = round_trip(&dense_model(2, 64, 96), wanted)?;
        let fallback = report
            .fallbacks
            .iter()
            .find(|f| f.tensor == "blk.0.ffn_down.weight");
        let fallback = fallback.with_context(|| format!("{wanted}: {report:?}"))?;
        ensure!(
            (fallback.row, fallback.wanted, fallback.used) == (96, wanted, used),
            "{fallback:?}"
        );
        ensure!(file.stored_as("model.layers.0.feed_forward.w2.weight") == Some(used));
        ensure!(
            report
                .fallbacks
                .iter()
                .all(|f| f.tensor != "token_embd.weight")
        );
    }
    let (report, file) = round_trip(&dense_model(2, 64, 80), Q4_0)?;
    let used: Vec<_> = report.fallbacks.iter().map(|f| (f.row, f.used)).collect();
    ensure!(used == [(80, F32), (80, F32)], "{used:?}");
    ensure!(file.stored_as(EMBEDDING) == Some(Q8_0));
    Ok(())
}

#[test]
fn experts_of_every_layout_become_one_stack() -> Result<()> {
    let (_, single) = round_trip(&moe_model(Experts::Single), Quantization::F32)?;
    let single = single.tensors();
    for layout in [Experts::Packed, Experts::Switch] {
        let (report, file) = round_trip(&moe_model(layout), Quantization::F32)?;
        ensure!(report.unused.is_empty(), "{report:?}");
        for name in single.names() {
            ensure!(
                dense(&*file.tensors(), &name)? == dense(&*single, &name)?,
                "{name}"
            );
        }
    }
    let stacked = "model.layers.0.feed_forward.experts.w2.weight";
    ensure!(single.info(stacked).context("no stack")?.shape == [4, 64, 32]);
    let (_, file) = round_trip(&moe_model(Experts::Single), Quantization::Q4_0)?;
    ensure!(file.stored_as(stacked) == Some(Quantization::Q4_0));
    ensure!(file.stored_as("model.layers.0.feed_forward.gate.weight") == Some(Quantization::F32));
    Ok(())
}

#[test]
fn a_mixture_keeps_its_settings() -> Result<()> {
    let (_, file) = round_trip(&moe_model(Experts::Packed), Quantization::Q8_0)?;
    let config = file.config();
    ensure!(config["model_type"] == "lfm2_moe");
    ensure!(config["routed_scaling_factor"] == 2.5);
    ensure!(config["norm_topk_prob"] == false);
    ensure!(config["use_expert_bias"] == true);
    ensure!(config["num_dense_layers"] == 0 && config["num_experts_per_tok"] == 2);
    Ok(())
}

#[test]
fn biases_an_own_head_and_several_end_tokens_survive() -> Result<()> {
    let mut model = dense_model(2, 64, 96);
    model.0["conv_bias"] = true.into();
    model.0["tie_embedding"] = false.into();
    model.1.add("lm_head.weight", &[384, 64]);
    for (name, size) in [("conv", 64), ("in_proj", 192), ("out_proj", 64)] {
        model
            .1
            .add(&format!("model.layers.0.conv.{name}.bias"), &[size]);
    }
    let (_, file) = round_trip(&model, Quantization::F32)?;
    let config = file.config();
    ensure!(config["conv_bias"] == true && config["tie_word_embeddings"] == false);
    ensure!(config["eos_token_id"] == json!([7, 2]));
    ensure!(
        config["intermediate_size"] == 96,
        "the width of the weights, not of the config"
    );
    for name in model.1.names() {
        ensure!(
            dense(&*file.tensors(), &name)? == dense(&model.1, &name)?,
            "{name}"
        );
    }
    Ok(())
}

#[test]
fn other_prefixes_and_extra_tensors() -> Result<()> {
    let (config, weights) = dense_model(2, 64, 96);
    let mut renamed = Weights::default();
    for (name, tensor) in weights.0 {
        renamed.set(&name.replace("model.", "model.language_model."), tensor);
    }
    renamed.add("model.vision_tower.weight", &[3, 3]);
    let (report, file) = round_trip(&(config, renamed), Quantization::Q8_0)?;
    ensure!(report.unused == ["model.vision_tower.weight"], "{report:?}");
    ensure!(file.tensors().info(EMBEDDING).is_some());
    Ok(())
}

#[test]
fn fs_02_an_existing_file_is_kept() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, "mine")?;
    let model = dense_model(2, 64, 96);
    let mut options = QuantizeOptions::new(Quantization::Q8_0, "test");
    let error = write(&model, &path, &options).unwrap_err();
    ensure!(error.kind() == ErrorKind::InvalidInput && std::fs::read(&path)? == b"mine");
    options.overwrite = Overwrite::Replace;
    write(&model, &path, &options)?;
    ensure!(GgufFile::open(&path, &Limits::default(), Mapping::Map).is_ok());
    ensure!(
        std::fs::read_dir(folder.path())?.count() == 1,
        "a temporary file is left"
    );
    Ok(())
}

#[test]
fn a_failure_leaves_nothing_behind() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.gguf");
    let mut model = dense_model(2, 64, 96);
    let name = "model.layers.1.feed_forward.w2.weight";
    for bad in [f32::NAN, f32::INFINITY, 1e6] {
        let mut values = vec![0.1; 64 * 96];
        values[17] = bad;
        model
            .1
            .set(name, Tensor::from_vec(values, (64, 96), &Device::Cpu)?);
        let error = write(
            &model,
            &path,
            &QuantizeOptions::new(Quantization::Q4_0, "test"),
        )
        .unwrap_err();
        ensure!(
            error.kind() == ErrorKind::InvalidInput && error.to_string().contains(name),
            "{error}"
        );
        ensure!(std::fs::read_dir(folder.path())?.count() == 0);
    }
    Ok(())
}

#[test]
fn models_that_do_not_fit_are_refused() {
    let refuse = |change: &dyn Fn(&mut (Json, Weights))| {
        let mut model = dense_model(2, 64, 96);
        change(&mut model);
        round_trip(&model, Quantization::Q8_0)
            .unwrap_err()
            .to_string()
    };
    assert!(refuse(&|m| m.0["model_type"] = "lfm3".into()).contains("lfm3"));
    assert!(refuse(&|m| m.0["rope_parameters"] = json!({"rope_type": "yarn"})).contains("yarn"));
    assert!(refuse(&|m| m.0["vocab_size"] = 300.into()).contains("token"));
    assert!(refuse(&|m| m.0["num_hidden_layers"] = json!(1u64 << 40)).contains("limit"));
    assert!(refuse(&|m| m.0["full_attn_idxs"] = json!([2])).contains("full_attn_idxs"));
    assert!(refuse(&|m| m.0["layer_types"] = json!(["conv", "mamba"])).contains("mamba"));
    assert!(refuse(&|m| m.0["eos_token_id"] = json!([1, 2, 3])).contains("eos_token_id"));
    assert!(refuse(&|m| m.0["bos_token_id"] = 400.into()).contains("400"));
    assert!(
        refuse(&|m| drop(m.1.0.remove("model.layers.0.ffn_norm.weight")))
            .contains("layers.0.ffn_norm")
    );
    let swap =
        |m: &mut (Json, Weights)| m.1.add("model.layers.1.self_attn.k_proj.weight", &[64, 32]);
    assert!(refuse(&swap).contains("[32, 64]"));
}

#[test]
fn a_tokenizer_that_cannot_be_described_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (config, weights) = dense_model(2, 64, 96);
    let text = std::str::from_utf8(TOKENIZER)?;
    for (from, to) in [("\\\\p{N}{1,3}", "\\\\p{N}"), ("\"BPE\"", "\"WordPiece\"")] {
        let changed = text.replace(from, to);
        ensure!(changed != text, "{from} does not occur");
        let input = QuantizeInput {
            config: &config,
            generation_config: None,
            tokenizer: changed.as_bytes(),
            chat_template: None,
            tensors: &weights,
        };
        let options = QuantizeOptions::new(Quantization::F32, "test");
        let error =
            quantize(&input, &folder.path().join("model.gguf"), &options, |_| {}).unwrap_err();
        ensure!(error.kind() == ErrorKind::Unsupported, "{error}");
    }
    Ok(())
}

#[test]
fn metadata_of_every_type_and_any_alignment_reads_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.gguf");
    let (_, file) = round_trip(&dense_model(2, 64, 96), Quantization::F32)?;
    let mut metadata = Metadata::new(&path);
    for (key, value) in file.metadata().iter() {
        metadata.insert(key, value.clone())?;
    }
    let extra = [
        Value::U8(1),
        Value::I8(-1),
        Value::U16(2),
        Value::I16(-2),
        Value::I32(-3),
        Value::U64(1 << 40),
        Value::I64(-(1 << 40)),
        Value::F64(0.1),
        Value::Array(Array::Array(vec![
            Array::Bool(vec![true, false]),
            Array::U8(vec![]),
        ])),
        Value::Array(Array::F64(vec![1.5])),
    ];
    for (number, value) in extra.iter().enumerate() {
        metadata.insert(format!("extra.{number}"), value.clone())?;
    }
    metadata.insert("general.alignment", Value::U32(128))?;
    let tensor = |name: &str, rows| NewTensor {
        name: name.to_owned(),
        shape: vec![rows, 64],
        kind: Quantization::Q8_0,
    };
    let tensors = [tensor("token_embd.weight", 384), tensor("other", 1)];
    write_gguf(
        &path,
        Overwrite::Refuse,
        &metadata,
        &tensors,
        |index, out| {
            let blocks = if index == 0 { 768 } else { 2 };
            out.write_all(&vec![index as u8; blocks * 34])
                .map_err(|source| Error::io("x", source))
        },
    )?;
    let read = GgufFile::open(&path, &Limits::default(), Mapping::Map)?;
    ensure!(read.metadata().iter().eq(metadata.iter()));
    ensure!(read.tensors().names() == ["model.embed_tokens.weight", "other"]);
    Ok(())
}

#[test]
fn a_writer_of_too_many_or_too_few_bytes_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.gguf");
    let tensors = [NewTensor {
        name: "x".to_owned(),
        shape: vec![4],
        kind: Quantization::F32,
    }];
    for count in [0, 15, 17] {
        let result = write_gguf(
            &path,
            Overwrite::Refuse,
            &Metadata::new(&path),
            &tensors,
            |_, out| {
                out.write_all(&vec![0; count])
                    .map_err(|source| Error::io("x", source))
            },
        );
        ensure!(result.is_err() && !path.exists(), "{count}");
    }
    let odd = [NewTensor {
        name: "x".to_owned(),
        shape: vec![33],
        kind: Quantization::Q8_0,
    }];
    ensure!(
        write_gguf(
            &path,
            Overwrite::Refuse,
            &Metadata::new(&path),
            &odd,
            |_, _| Ok(())
        )
        .is_err()
    );
    Ok(())
}

/// Every reference checkpoint that a GGUF file can hold, written as `F32`, is the checkpoint.
#[test]
fn reference_checkpoints_as_f32_lose_nothing() -> Result<()> {
    let Some(golden) = lfm2_golden::folder() else {
        return Ok(());
    };
    for folder in std::fs::read_dir(golden.join("text"))? {
        let folder = folder?.path();
        if !folder.join("config.json").exists() {
            continue;
        }
        let checkpoint =
            Checkpoint::open(&ModelSource::Dir(folder.clone()), &OpenOptions::default())?;
        let out = tempfile::tempdir()?;
        let path = out.path().join("model.gguf");
        let (source, template) = (checkpoint.tensors(), checkpoint.chat_template()?);
        let input = QuantizeInput {
            config: checkpoint.config(),
            generation_config: checkpoint.generation_config(),
            tokenizer: &std::fs::read(folder.join("tokenizer.json"))?,
            chat_template: template.as_deref(),
            tensors: &*source,
        };
        let options = QuantizeOptions::new(Quantization::F32, "test");
        if checkpoint.config()["model_type"] == "lfm3" {
            ensure!(
                quantize(&input, &path, &options, |_| {})
                    .unwrap_err()
                    .kind()
                    == ErrorKind::Unsupported
            );
            continue;
        }
        quantize(&input, &path, &options, |_| {}).with_context(|| folder.display().to_string())?;
        let file = GgufFile::open(&path, &Limits::default(), Mapping::Map)?;
        let mut compared = 0;
        for name in file.tensors().names() {
            if source.info(&name).is_some() {
                ensure!(
                    dense(&*file.tensors(), &name)? == dense(&*source, &name)?,
                    "{name}"
                );
                compared += 1;
            }
        }
        ensure!(compared > 10, "{}: {compared}", folder.display());
    }
    Ok(())
}
