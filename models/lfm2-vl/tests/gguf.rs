//! A model in two GGUF files is the model they were made of.

mod support;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use lfm2_hub::gguf::{
    Array, Metadata, NewTensor, Quantization, QuantizeInput, QuantizeOptions, Value, quantize,
    write_gguf,
};
use lfm2_hub::{
    Bos, Checkpoint, Error, Limits, Mapping, ModelSource, OpenOptions, Overwrite, SpecialTokens,
};
use lfm2_nn::{Accuracy, CacheSpec, Decoder, Input, Step, Want};
use lfm2_text::LoadOptions;
use lfm2_vl::{Mmproj, Picture, VlModel, VlOptions};
use serde_json::json;
use support::{Renamed, sets};

const TOWERS: [&str; 2] = ["model.vision_tower.vision_model", "model.vision_tower"];

fn options() -> VlOptions {
    LoadOptions::default()
        .with_accuracy(Accuracy::Exact)
        .strict()
        .into()
}

/// The name of a tensor of the text model when it is alone.
fn alone(name: &str) -> Option<String> {
    match name.strip_prefix("model.language_model.") {
        Some(rest) => Some(format!("model.{rest}")),
        None => (name == "lm_head.weight").then(|| name.to_owned()),
    }
}

fn write_text(checkpoint: &Checkpoint, folder: &Path, path: &Path) -> Result<()> {
    let mut config = checkpoint.config()["text_config"].clone();
    config["tie_word_embeddings"] = checkpoint.config()["tie_word_embeddings"].clone();
    let tensors = Renamed::new(checkpoint.tensors(), alone);
    let input = QuantizeInput {
        config: &config,
        generation_config: checkpoint.generation_config(),
        tokenizer: &std::fs::read(folder.join("tokenizer.json"))?,
        chat_template: None,
        tensors: &tensors,
    };
    quantize(
        &input,
        path,
        &QuantizeOptions::new(Quantization::F32, "tiny"),
        |_| {},
    )?;
    Ok(())
}

/// Tower and projector as llama.cpp writes them: other names, and the patches as a convolution.
fn write_vision(checkpoint: &Checkpoint, model: &VlModel, path: &Path) -> Result<()> {
    let (vision, projector) = (&model.config().vision, &model.config().projector);
    let settings = model.processor().settings();
    let mut metadata = Metadata::new(path);
    let text = |text: &str| Value::String(text.to_owned());
    let number = |number: usize| Value::U32(number as u32);
    let floats = |numbers: [f64; 3]| Value::Array(Array::F32(numbers.map(|n| n as f32).to_vec()));
    for (key, value) in [
        ("general.architecture", text("clip")),
        ("clip.projector_type", text("lfm2")),
        ("clip.use_gelu", Value::Bool(true)),
        ("clip.vision.image_size", number(256)),
        ("clip.vision.patch_size", number(vision.patch_size)),
        ("clip.vision.embedding_length", number(vision.hidden_size)),
        ("clip.vision.feed_forward_length", number(vision.ffn_width)),
        ("clip.vision.block_count", number(vision.layers)),
        ("clip.vision.attention.head_count", number(vision.heads)),
        (
            "clip.vision.attention.layer_norm_epsilon",
            Value::F32(vision.norm_eps as f32),
        ),
        (
            "clip.vision.projector.scale_factor",
            number(projector.factor),
        ),
        ("clip.vision.image_mean", floats(settings.image_mean)),
        ("clip.vision.image_std", floats(settings.image_std)),
    ] {
        metadata.insert(key, value)?;
    }
    let tensors = checkpoint.tensors();
    let tower = TOWERS
        .into_iter()
        .find(|p| {
            tensors
                .info(&format!("{p}.post_layernorm.weight"))
                .is_some()
        })
        .context("no tower")?;
    let mut names = Vec::new();
    for name in tensors.names() {
        let part = match name.strip_prefix(tower) {
            Some(rest) => rest.strip_prefix('.').context("odd name")?.to_owned(),
            None => match name.strip_prefix("model.multi_modal_projector.") {
                Some(rest) => format!("projector.{rest}"),
                None => continue,
            },
        };
        let mut own = part;
        for (published, file) in [
            ("embeddings.patch_embedding", "v.patch_embd"),
            ("embeddings.position_embedding", "v.position_embd"),
            ("post_layernorm", "v.post_ln"),
            ("encoder.layers", "v.blk"),
            ("layer_norm1", "ln1"),
            ("layer_norm2", "ln2"),
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.out_proj", "attn_out"),
            ("mlp.fc1", "ffn_up"),
            ("mlp.fc2", "ffn_down"),
            ("projector.linear_", "mm."),
            ("projector.layer_norm", "mm.input_norm"),
        ] {
            own = own.replace(published, file);
        }
        names.push((own, name));
    }
    let values = |own: &str, name: &str| -> lfm2_hub::Result<Tensor> {
        let tensor = tensors.dense(name, DType::F32, &Device::Cpu)?;
        if own != "v.patch_embd.weight" {
            return Ok(tensor);
        }
        let side = vision.patch_size;
        let patches = tensor.reshape((vision.hidden_size, side, side, 3))?;
        Ok(patches.permute((0, 3, 1, 2))?.contiguous()?)
    };
    let mut plan = Vec::new();
    for (own, name) in &names {
        plan.push(NewTensor {
            name: own.clone(),
            shape: values(own, name)?.dims().to_vec(),
            kind: Quantization::F32,
        });
    }
    write_gguf(path, Overwrite::Refuse, &metadata, &plan, |index, out| {
        let (own, name) = &names[index];
        let numbers = values(own, name)?.flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        out.write_all(&bytes).map_err(|e| Error::io(path, e))
    })?;
    Ok(())
}

fn logits(model: &VlModel) -> Result<Vec<f32>> {
    let picture = Picture::from_fn(300, 190, |x, y| [x as u8, (x + y) as u8, (x * y) as u8])?;
    let views = model.process_images(&[picture])?;
    let text = "<image>describe the image";
    let ids = model
        .tokenizer()
        .encode(text, SpecialTokens::Parse, Bos::Omit)?;
    let album = model.album();
    let prompt = album.prompt(&ids, &[&views[0]])?;
    let input = Tensor::new(prompt.as_slice(), album.device())?;
    let mut cache = album.new_cache(CacheSpec::rows(1));
    let step = Step::single(prompt.len());
    let logits = album.forward(Input::Ids(&input), &step, &mut cache, Want::AllLogits)?;
    Ok(logits.flatten_all()?.to_vec1()?)
}

#[test]
fn two_files_give_the_logits_of_the_checkpoint() -> Result<()> {
    for set in sets() {
        for name in set.models()? {
            let folder = set.folder.join("models").join(&name);
            let checkpoint =
                Checkpoint::open(&ModelSource::Dir(folder.clone()), &OpenOptions::default())?;
            let expected = VlModel::from_checkpoint(&checkpoint, &options())?;
            let files = tempfile::tempdir()?;
            let text = files.path().join("model-F32.gguf");
            write_text(&checkpoint, &folder, &text)?;
            write_vision(
                &checkpoint,
                &expected,
                &files.path().join("mmproj-F32.gguf"),
            )?;

            let mmproj = Mmproj::beside(&text, &Limits::default(), Mapping::default())?;
            let text = Checkpoint::open(&ModelSource::Gguf(text), &OpenOptions::default())?;
            // What the files do not say.
            let settings = expected.processor().settings();
            let overrides = json!({
                "tile_size": settings.tile_size, "min_tiles": settings.min_tiles,
                "max_tiles": settings.max_tiles, "min_image_tokens": settings.min_image_tokens,
                "max_image_tokens": settings.max_image_tokens,
                "max_pixels_tolerance": settings.max_pixels_tolerance,
                "resample": if settings.resample == lfm2_vl::Filter::Bicubic { 3 } else { 2 },
            });
            let found = VlModel::from_gguf(&text, &mmproj, &overrides, &options())?;
            let (found, expected) = (logits(&found)?, logits(&expected)?);
            let error = found
                .iter()
                .zip(&expected)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            ensure!(
                found.len() == expected.len() && error < 1e-3,
                "{name}: {error}"
            );
        }
    }
    Ok(())
}

#[test]
fn files_of_other_families_are_refused() -> Result<()> {
    let files = tempfile::tempdir()?;
    let write = |name: &str, entries: &[(&str, &str)]| -> Result<()> {
        let path = files.path().join(name);
        let mut metadata = Metadata::new(&path);
        for (key, value) in entries {
            metadata.insert(*key, Value::String((*value).to_owned()))?;
        }
        Ok(write_gguf(
            &path,
            Overwrite::Refuse,
            &metadata,
            &[],
            |_, _| Ok(()),
        )?)
    };
    let open = |name: &str| {
        Mmproj::open(
            files.path().join(name),
            &Limits::default(),
            Mapping::default(),
        )
    };
    write("text.gguf", &[("general.architecture", "lfm2")])?;
    ensure!(matches!(open("text.gguf"), Err(Error::Unsupported { .. })));
    write(
        "llava.gguf",
        &[
            ("general.architecture", "clip"),
            ("clip.projector_type", "mlp"),
        ],
    )?;
    ensure!(matches!(open("llava.gguf"), Err(Error::Unsupported { .. })));
    write(
        "bare.gguf",
        &[
            ("general.architecture", "clip"),
            ("clip.projector_type", "lfm2"),
        ],
    )?;
    ensure!(open("bare.gguf")?.config().is_err(), "keys are missing");

    let beside = || {
        Mmproj::beside(
            &files.path().join("text.gguf"),
            &Limits::default(),
            Mapping::default(),
        )
    };
    ensure!(matches!(beside(), Err(Error::NotFound { .. })));
    for name in ["mmproj-a.gguf", "MMPROJ-b.GGUF"] {
        write(
            name,
            &[
                ("general.architecture", "clip"),
                ("clip.projector_type", "lfm2"),
            ],
        )?;
    }
    ensure!(matches!(beside(), Err(Error::InvalidInput(_))));
    Ok(())
}
