//! Layouts of checkpoints: tied tensors left out, shards, four GGUF files, and what is refused.
#![cfg(feature = "audio-files")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lfm2_audio::{
    AudioConfig, AudioModel, AudioOptions, Clip, DetokenizerConfig, Event, GenerationOptions, Mode,
    Piece, Sampling, Sequence, Vocoder, Voice, shapes,
};
use lfm2_hub::gguf::{Array, Metadata, NewTensor, Quantization, Value as GgufValue, write_gguf};
use lfm2_hub::{
    Error, ErrorKind, Limits, ModelSource, OpenOptions, Overwrite, Result as HubResult,
    write_safetensors,
};
use lfm2_nn::{Accuracy, DType, Device, Tensor};
use lfm2_text::LoadOptions;
use serde_json::{Value, json};
use support::random::{Numbers, tensors};
use support::{ensure_close, options};

/// The committed checkpoint without weights: config and tokenizer.
fn tiny() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny/checkpoint")
}

fn config_json() -> Value {
    serde_json::from_slice(&std::fs::read(tiny().join("config.json")).unwrap()).unwrap()
}

fn config() -> AudioConfig {
    AudioConfig::from_json(&config_json(), &Limits::default()).unwrap()
}

fn detokenizer_json() -> Value {
    let path = tiny().join("audio_detokenizer/config.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn save(path: &Path, tensors: &HashMap<String, Tensor>) -> Result<()> {
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    Ok(write_safetensors(
        path,
        named,
        &BTreeMap::new(),
        Overwrite::Replace,
    )?)
}

/// A folder in the released layout.
fn write_folder(folder: &Path, weights: &HashMap<String, Tensor>) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(tiny().join(file), folder.join(file))?;
    }
    save(&folder.join("model.safetensors"), weights)
}

fn write_detokenizer(folder: &Path) -> Result<HashMap<String, Tensor>> {
    let folder = folder.join("audio_detokenizer");
    std::fs::create_dir_all(&folder)?;
    let json = detokenizer_json();
    std::fs::write(folder.join("config.json"), json.to_string())?;
    let config = DetokenizerConfig::from_json(&json, &Limits::default())?;
    let weights = tensors(&shapes::detokenizer(&config, 8), 9)?;
    save(&folder.join("model.safetensors"), &weights)?;
    Ok(weights)
}

fn weights() -> Result<HashMap<String, Tensor>> {
    tensors(&shapes::model(&config()), 4)
}

fn open(folder: &Path) -> HubResult<AudioModel> {
    AudioModel::open(&ModelSource::Dir(folder.to_path_buf()), &options())
}

/// Every part of the model, on made-up inputs.
fn outputs(model: &AudioModel) -> Result<Vec<(&'static str, Tensor)>> {
    let mut numbers = Numbers::new(2);
    let clip = Clip::new((0..9_000).map(|_| numbers.next()).collect(), 16_000)?;
    let mel = model.front_end().features(&clip)?;
    let frames = vec![lfm2_audio::Frame::new((0..8).map(|k| k * 17).collect())];
    let pieces = vec![
        Piece::Text(vec![1, 300]),
        Piece::Clip(mel),
        Piece::Frames(frames),
    ];
    let x = model.embed(&Sequence::from(pieces))?;
    let codes = Tensor::new(&[[1u32, 2, 3, 4, 5, 6, 7, 8]], &Device::Cpu)?;
    let hidden = x.narrow(0, 0, 1)?;
    Ok(vec![
        ("embeddings", x),
        ("logits", model.text_model().head(&hidden)?),
        ("codes", model.depthformer().forced(&hidden, &codes)?),
    ])
}

fn ensure_same(a: &AudioModel, b: &AudioModel, tolerance: f64) -> Result<()> {
    for ((name, a), (_, b)) in outputs(a)?.iter().zip(outputs(b)?) {
        ensure_close(name, a, &b, tolerance)?;
    }
    Ok(())
}

#[test]
fn tied_heads_may_be_stored_or_left_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stored = weights()?;
    write_folder(&folder.path().join("once"), &stored)?;
    for k in 0..8 {
        let table = stored[&format!("depth_embeddings.{k}.embedding.weight")].clone();
        stored.insert(format!("depth_embeddings.{k}.to_logits.weight"), table);
    }
    let (hidden, rows) = (config().text.hidden_size, 8 * 2049);
    let unused = Tensor::zeros((rows, hidden), DType::F32, &Device::Cpu)?;
    stored.insert("audio_embedding.to_logits.weight".into(), unused);
    write_folder(&folder.path().join("twice"), &stored)?;
    let once = open(&folder.path().join("once"))?;
    // Strictly opened, so what is stored twice counts as known.
    let twice = open(&folder.path().join("twice"))?;
    ensure_same(&once, &twice, 0.0)
}

#[test]
fn parts_that_are_quantised_while_they_are_loaded_stay_close() -> Result<()> {
    let folder = tempfile::tempdir()?;
    write_folder(folder.path(), &weights()?)?;
    write_detokenizer(folder.path())?;
    let source = ModelSource::Dir(folder.path().to_path_buf());
    let load = LoadOptions::default().with_quantize(Quantization::Q4_0);
    let narrow = AudioModel::open(&source, &AudioOptions::default().with_load(load.strict()))?;
    let exact = open(folder.path())?;
    let pairs = outputs(&exact)?.into_iter().zip(outputs(&narrow)?);
    for ((name, a), (_, b)) in pairs {
        let flat = |t: Tensor| t.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>();
        let (a, b) = (flat(a)?, flat(b)?);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let cosine = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
        ensure!(a != b, "{name} is not quantised");
        ensure!(cosine > 0.998, "{name}: {cosine}");
    }
    Ok(())
}

#[test]
fn shards_make_the_same_model() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let all = weights()?;
    write_folder(&folder.path().join("whole"), &all)?;
    let sharded = folder.path().join("sharded");
    write_folder(&sharded, &all)?;
    std::fs::remove_file(sharded.join("model.safetensors"))?;
    let mut shards = [HashMap::new(), HashMap::new()];
    let mut map = serde_json::Map::new();
    for (i, (name, tensor)) in all.into_iter().enumerate() {
        map.insert(name.clone(), json!(format!("part-{}.safetensors", i % 2)));
        shards[i % 2].insert(name, tensor);
    }
    for (i, shard) in shards.iter().enumerate() {
        save(&sharded.join(format!("part-{i}.safetensors")), shard)?;
    }
    let index = json!({"metadata": {}, "weight_map": map});
    std::fs::write(
        sharded.join("model.safetensors.index.json"),
        index.to_string(),
    )?;
    ensure_same(&open(&folder.path().join("whole"))?, &open(&sharded)?, 0.0)
}

#[test]
fn missing_and_misshapen_tensors_are_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let name = "conformer.layers.1.conv.batch_norm.running_var";
    let mut weights = weights()?;
    let tensor = weights.remove(name).context(name)?;
    write_folder(folder.path(), &weights)?;
    let error = open(folder.path()).unwrap_err();
    assert!(
        matches!(&error, Error::MissingTensor { name: found } if found == name),
        "{error}"
    );
    weights.insert(name.to_owned(), tensor.narrow(0, 0, 5)?.copy()?);
    write_folder(folder.path(), &weights)?;
    let error = open(folder.path()).unwrap_err();
    assert!(
        matches!(&error, Error::TensorShape { name: found, .. } if found == name),
        "{error}"
    );
    Ok(())
}

#[test]
fn another_generation_is_refused_before_its_weights_are_read() -> Result<()> {
    let folder = tempfile::tempdir()?;
    write_folder(folder.path(), &HashMap::new())?;
    let mut json = config_json();
    json["architectures"] = json!(["Lfm3AudioForConditionalGeneration"]);
    std::fs::write(folder.path().join("config.json"), json.to_string())?;
    let error = open(folder.path()).unwrap_err();
    ensure!(error.kind() == ErrorKind::Unsupported, "{error}");
    Ok(())
}

#[test]
fn without_a_decoder_of_sound_there_is_text_only() -> Result<()> {
    let folder = tempfile::tempdir()?;
    write_folder(folder.path(), &weights()?)?;
    let model = open(folder.path())?;
    assert!(model.vocoder().is_none());
    let options = GenerationOptions::speech().with_max_new_tokens(4);
    let error = model.speak("hello", &Voice::UkMale, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let clip = Clip::new(vec![0.1; 4_000], 16_000)?;
    model
        .transcribe(&clip, &options)?
        .take(3)
        .collect::<HubResult<Vec<_>>>()?;
    Ok(())
}

#[test]
fn answers_come_as_text_frames_and_sound() -> Result<()> {
    let folder = tempfile::tempdir()?;
    write_folder(folder.path(), &weights()?)?;
    write_detokenizer(folder.path())?;
    let model = open(folder.path())?;
    assert!(matches!(model.vocoder(), Some(Vocoder::Detokenizer(_))));
    let clip = Clip::new(vec![0.1; 4_000], 16_000)?;
    let mut options = GenerationOptions::chat()
        .with_max_new_tokens(30)
        .with_seed(5);
    options.text = Sampling::new(3.0, 100);
    let run = || -> Result<Vec<Event>> {
        Ok(model.converse(&clip, &options)?.collect::<HubResult<_>>()?)
    };
    let events = run()?;
    let frames = events
        .iter()
        .filter(|e| matches!(e, Event::Frame(f) if f.is_sound()))
        .count();
    let samples: usize = events
        .iter()
        .map(|e| {
            if let Event::Samples(samples) = e {
                samples.len()
            } else {
                0
            }
        })
        .sum();
    ensure!(frames >= 12, "{frames} frames");
    ensure!(
        samples == frames * lfm2_audio::FRAME_SAMPLES,
        "{samples} samples of {frames} frames"
    );
    ensure!(events == run()?, "the same seed gives the same answer");

    // Another turn goes on in the same session.
    let mut reply = model.converse(&clip, &options)?;
    for event in reply.by_ref() {
        event?;
    }
    let session = reply.into_session()?;
    let before = session.positions();
    let reply = session.reply(Mode::Interleaved, &options)?;
    ensure!(reply.into_session()?.positions() > before);
    Ok(())
}

/// Writes tensors of full width under other names.
fn write_gguf_file(
    path: &Path,
    metadata: Vec<(&str, GgufValue)>,
    named: &[(String, Tensor)],
) -> Result<()> {
    let mut head = Metadata::new(path);
    for (key, value) in metadata {
        head.insert(key, value)?;
    }
    let kind = Quantization::F32;
    let new = |(name, tensor): &(String, Tensor)| NewTensor {
        name: name.clone(),
        shape: tensor.dims().to_vec(),
        kind,
    };
    let tensors: Vec<NewTensor> = named.iter().map(new).collect();
    write_gguf(
        path,
        Overwrite::Replace,
        &head,
        &tensors,
        |i, out: &mut dyn Write| {
            let values = named[i].1.flatten_all()?.to_vec1::<f32>()?;
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            out.write_all(&bytes)
                .map_err(|error| Error::io(path, error))
        },
    )?;
    Ok(())
}

fn text(value: &str) -> GgufValue {
    GgufValue::String(value.to_owned())
}

/// What the converter makes of an encoder: other names, and batch norms folded.
fn encoder_tensors(all: &HashMap<String, Tensor>) -> Result<Vec<(String, Tensor)>> {
    const NAMES: [(&str, &str); 19] = [
        ("norm_feed_forward1", "ffn_norm"),
        ("feed_forward1.linear1", "ffn_up"),
        ("feed_forward1.linear2", "ffn_down"),
        ("norm_self_att", "ln1"),
        ("self_attn.linear_q", "attn_q"),
        ("self_attn.linear_k", "attn_k"),
        ("self_attn.linear_v", "attn_v"),
        ("self_attn.linear_out", "attn_out"),
        ("self_attn.linear_pos", "linear_pos"),
        ("self_attn.pos_bias", "pos_bias"),
        ("norm_conv", "norm_conv"),
        ("conv.pointwise_conv1", "conv_pw1"),
        ("conv.depthwise_conv", "conv_dw"),
        ("conv.batch_norm", "conv_norm"),
        ("conv.pointwise_conv2", "conv_pw2"),
        ("norm_feed_forward2", "ffn_norm_1"),
        ("feed_forward2.linear1", "ffn_up_1"),
        ("feed_forward2.linear2", "ffn_down_1"),
        ("norm_out", "ln2"),
    ];
    let mut named = Vec::new();
    for (name, tensor) in all {
        let mut tensor = tensor.clone();
        if let Some(rest) = name.strip_prefix("audio_adapter.model.") {
            named.push((format!("mm.a.mlp.{rest}"), tensor));
            continue;
        }
        let Some(rest) = name.strip_prefix("conformer.") else {
            continue;
        };
        if name.contains("running_") {
            continue;
        }
        if let Some(norm) = name.strip_suffix(".batch_norm.weight") {
            let variance = &all[&format!("{norm}.batch_norm.running_var")];
            tensor = (tensor / (variance + 1e-5)?.sqrt()?)?;
        }
        if let Some(norm) = name.strip_suffix(".batch_norm.bias") {
            let get = |part: &str| &all[&format!("{norm}.batch_norm.{part}")];
            let scale = (get("weight") / (get("running_var") + 1e-5)?.sqrt()?)?;
            tensor = (tensor - (get("running_mean") * scale)?)?;
        }
        if name.ends_with("depthwise_conv.weight") {
            tensor = tensor.squeeze(1)?;
        }
        if name.contains("pointwise_conv") && name.ends_with("weight") {
            tensor = tensor.squeeze(2)?;
        }
        let own = match rest.strip_prefix("layers.") {
            Some(layer) => {
                let own = NAMES.iter().find(|(from, _)| layer.contains(from));
                let (from, to) = own.with_context(|| name.clone())?;
                format!("a.blk.{}", layer.replace(from, to))
            }
            None => format!("a.{}", rest.replace("pre_encode.conv.", "conv1d.")),
        };
        named.push((own, tensor));
    }
    Ok(named)
}

/// What the converter makes of a stack of LFM2 layers.
fn stack_tensors(all: &HashMap<String, Tensor>) -> Result<Vec<(String, Tensor)>> {
    const NAMES: [(&str, &str); 14] = [
        ("operator_norm", "attn_norm"),
        ("ffn_norm", "ffn_norm"),
        ("conv.conv", "shortconv.conv"),
        ("conv.in_proj", "shortconv.in_proj"),
        ("conv.out_proj", "shortconv.out_proj"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.out_proj", "attn_output"),
        ("self_attn.q_layernorm", "attn_q_norm"),
        ("self_attn.k_layernorm", "attn_k_norm"),
        ("feed_forward.w1", "ffn_gate"),
        ("feed_forward.w3", "ffn_up"),
        ("feed_forward.w2", "ffn_down"),
    ];
    let mut named = Vec::new();
    for (name, tensor) in all {
        let Some(rest) = name.strip_prefix("lfm.") else {
            continue;
        };
        let own = match rest.strip_prefix("layers.") {
            Some(layer) => {
                let own = NAMES
                    .iter()
                    .find(|(from, _)| layer.contains(&format!(".{from}.")));
                let (from, to) = own.with_context(|| name.clone())?;
                format!("blk.{}", layer.replace(from, to))
            }
            None => rest
                .replace("embed_tokens", "token_embd")
                .replace("embedding_norm", "token_embd_norm"),
        };
        let short = own.ends_with("shortconv.conv.weight");
        let tensor = if short {
            tensor.squeeze(1)?
        } else {
            tensor.clone()
        };
        named.push((own, tensor));
    }
    Ok(named)
}

/// The keys of a stack of LFM2 layers.
fn stack_metadata(config: &lfm2_text::TextConfig) -> Vec<(&'static str, GgufValue)> {
    let number = |n: usize| GgufValue::U32(n as u32);
    let kv = config.layers.iter().map(|kind| {
        if kind.is_attention() {
            config.kv_heads as i32
        } else {
            0
        }
    });
    vec![
        ("general.architecture", text("lfm2")),
        ("lfm2.block_count", number(config.layers.len())),
        (
            "lfm2.context_length",
            number(config.max_position_embeddings),
        ),
        ("lfm2.embedding_length", number(config.hidden_size)),
        ("lfm2.feed_forward_length", number(config.ffn_width)),
        ("lfm2.attention.head_count", number(config.heads)),
        (
            "lfm2.attention.head_count_kv",
            GgufValue::Array(Array::I32(kv.collect())),
        ),
        (
            "lfm2.attention.layer_norm_rms_epsilon",
            GgufValue::F32(config.norm_eps as f32),
        ),
        (
            "lfm2.rope.freq_base",
            GgufValue::F32(config.rope.theta as f32),
        ),
        ("lfm2.shortconv.l_cache", number(config.conv_width)),
        ("lfm2.vocab_size", number(config.vocab_size)),
    ]
}

/// The committed tokenizer as the keys of a GGUF file.
fn tokenizer_metadata() -> Result<Vec<(&'static str, GgufValue)>> {
    let json: Value = serde_json::from_slice(&std::fs::read(tiny().join("tokenizer.json"))?)?;
    let vocab = json["model"]["vocab"].as_object().context("vocab")?;
    let mut tokens = vec![String::new(); vocab.len()];
    for (token, id) in vocab {
        tokens[id.as_u64().context("id")? as usize] = token.clone();
    }
    let special = json["added_tokens"].as_array().context("added")?.len();
    let types = (0..tokens.len()).map(|id| if id < special { 3 } else { 1 });
    Ok(vec![
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("lfm2")),
        (
            "tokenizer.ggml.token_type",
            GgufValue::Array(Array::I32(types.collect())),
        ),
        (
            "tokenizer.ggml.tokens",
            GgufValue::Array(Array::String(tokens)),
        ),
        (
            "tokenizer.ggml.merges",
            GgufValue::Array(Array::String(Vec::new())),
        ),
        ("tokenizer.ggml.bos_token_id", GgufValue::U32(1)),
        ("tokenizer.ggml.eos_token_id", GgufValue::U32(7)),
    ])
}

#[test]
fn four_gguf_files_make_the_same_model() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let all = weights()?;
    write_folder(&whole, &all)?;
    let sound = write_detokenizer(&whole)?;
    std::fs::create_dir(&parts)?;
    let config = config();
    let stack = DetokenizerConfig::from_json(&detokenizer_json(), &Limits::default())?.text;
    let path = |part: &str| parts.join(format!("{part}Tiny-F32.gguf"));
    let mut metadata = stack_metadata(&config.text);
    metadata.extend(tokenizer_metadata()?);
    write_gguf_file(&path(""), metadata, &stack_tensors(&all)?)?;
    let number = |n: usize| GgufValue::U32(n as u32);
    let encoder = vec![
        ("general.architecture", text("clip")),
        ("clip.projector_type", text("lfm2a")),
        ("clip.audio.block_count", number(config.encoder.layers)),
        ("clip.audio.embedding_length", number(config.encoder.width)),
        (
            "clip.audio.attention.head_count",
            number(config.encoder.heads),
        ),
        ("clip.audio.num_mel_bins", number(config.encoder.features)),
    ];
    write_gguf_file(&path("mmproj-"), encoder, &encoder_tensors(&all)?)?;
    let vocoder = vec![
        ("general.architecture", text("lfm2-audio")),
        ("depthformer_n_layer", number(config.depth.layers)),
        ("depthformer_n_embd", number(config.depth.width)),
    ];
    let depth = |name: &&String| name.starts_with("depth") || name.starts_with("audio_embedding");
    let named = all.iter().filter(|(name, _)| depth(name));
    let table = sound.iter().filter(|(name, _)| name.starts_with("emb."));
    let renamed = named.chain(table).map(|(name, tensor)| {
        (
            name.replace(".bounded_attention.", ".attention."),
            tensor.clone(),
        )
    });
    let renamed: Vec<(String, Tensor)> = renamed.collect();
    write_gguf_file(&path("vocoder-"), vocoder, &renamed)?;
    let mut metadata = stack_metadata(&stack);
    metadata.push((
        "lfm2.attention.sliding_window",
        number(stack.sliding_window),
    ));
    let mut named = stack_tensors(&sound)?;
    for part in ["weight", "bias"] {
        named.push((
            format!("dense_2.{part}"),
            sound[&format!("lin.{part}")].clone(),
        ));
    }
    write_gguf_file(&path("tokenizer-"), metadata, &named)?;

    let expected = open(&whole)?;
    // Not strictly: the tables of codes of the detokenizer lie among the tensors of the depth model.
    let load = LoadOptions::default().with_accuracy(Accuracy::Exact);
    let source = ModelSource::Gguf(path(""));
    let found = AudioModel::open(&source, &AudioOptions::default().with_load(load))?;
    ensure_same(&found, &expected, 1e-5)?;
    // What the caller allows holds for all four files.
    let mut tight = Limits::default();
    tight.vocabulary = 100;
    let tight = OpenOptions::default().limits(tight);
    let error = AudioModel::open(&source, &AudioOptions::default().with_open(tight)).unwrap_err();
    ensure!(error.kind() == ErrorKind::Limit, "{error}");
    let frames = Numbers::new(3).frames(4, 8);
    let decode = |model: &AudioModel| match model.vocoder() {
        Some(Vocoder::Detokenizer(detokenizer)) => Ok(detokenizer.decode(&frames)?),
        _ => anyhow::bail!("no detokenizer"),
    };
    support::ensure_wave("sound", &decode(&found)?, &decode(&expected)?, 1e-5)
}
