//! Where a new model begins.
//!
//! A batch norm is trained with the statistics of each batch as a rule, and used with those of all batches. Clips of
//! a few words are too few for that, and what is trained would not be what is used; so the statistics are taken once,
//! from clips in the new encoder, and stay.

use std::collections::BTreeMap;

use candle_core::Tensor;
use lfm2_audio::{AudioConfig, AudioModel, DetokenizerConfig, Mel, shapes};
use lfm2_text::{TensorRole, TensorSpec};

use crate::variables::{Init, Parameters};
use crate::{Error, Result};

/// The tensors of a model, with what each is for.
pub(super) fn specs(config: &AudioConfig) -> Vec<TensorSpec> {
    let backbone = config.text.tensors().into_iter().map(|spec| {
        let name = spec.name.strip_prefix("model.").unwrap_or(&spec.name);
        TensorSpec {
            name: format!("lfm.{name}"),
            ..spec
        }
    });
    let others = shapes::model(config).into_iter();
    let others = others.filter(|(name, _)| !name.starts_with("lfm."));
    let others = others.map(|(name, shape)| TensorSpec {
        role: role(&name, &shape),
        name,
        shape,
    });
    backbone.chain(others).collect()
}

/// The tensors of a detokenizer, with what each is for.
pub(crate) fn detokenizer_specs(config: &DetokenizerConfig, codebooks: usize) -> Vec<TensorSpec> {
    let backbone = config.text.tensors().into_iter();
    let backbone = backbone.map(|spec| (spec.name.replacen("model.", "lfm.", 1), spec.role));
    let backbone: BTreeMap<String, TensorRole> = backbone.collect();
    let all = shapes::detokenizer(config, codebooks).into_iter();
    // The table of tokens is in published files, and nobody reads it.
    let all = all.filter(|(name, _)| name != "lfm.embed_tokens.weight");
    let spec = |(name, shape): (String, Vec<usize>)| TensorSpec {
        role: match (backbone.get(&name), name.as_str()) {
            (Some(role), _) => *role,
            (None, "emb.emb.weight") => TensorRole::Embedding,
            (None, _) => role(&name, &shape),
        },
        name,
        shape,
    };
    all.map(spec).collect()
}

fn role(name: &str, shape: &[usize]) -> TensorRole {
    let (module, last) = name.rsplit_once('.').unwrap_or(("", name));
    let module = module.rsplit('.').next().unwrap_or_default();
    match (module, last) {
        (_, "running_var") => TensorRole::Norm,
        (_, "bias" | "running_mean" | "pos_bias_u" | "pos_bias_v") => TensorRole::Bias,
        ("embedding", _) => TensorRole::Embedding,
        ("to_logits", _) => TensorRole::Head,
        ("linear2" | "linear_out" | "pointwise_conv2" | "out_proj" | "w2", _) => {
            TensorRole::OutputProjection
        }
        _ if shape.len() == 1 => TensorRole::Norm,
        _ if shape.get(1) == Some(&1) => TensorRole::ConvKernel,
        _ => TensorRole::Projection,
    }
}

/// Whether a tensor is of what the model says, which no speech run trains.
fn says(name: &str) -> bool {
    [
        "audio_embedding.",
        "depthformer.",
        "depth_linear.",
        "depth_embeddings.",
    ]
    .iter()
    .any(|part| name.starts_with(part))
}

/// Empties the tables and matrices of what the model says, which stay as they are.
pub(super) fn silence(parameters: &Parameters) -> Result<()> {
    for parameter in parameters.iter() {
        if says(parameter.name()) && parameter.role() != TensorRole::Norm {
            parameter.set(&parameter.tensor().zeros_like()?)?;
        }
    }
    Ok(())
}

/// Draws what [`silence`] emptied, so that it can be learnt: through zeros alone no gradient comes.
pub(super) fn give_voice(parameters: &Parameters, (init, seed): (Init, u64)) -> Result<()> {
    for parameter in parameters.iter() {
        let tensor = parameter.tensor();
        let is_matrix = says(parameter.name()) && tensor.rank() > 1;
        if is_matrix && parameter.values()?.iter().all(|x| *x == 0.0) {
            let spec = TensorSpec {
                name: parameter.name().to_string(),
                shape: tensor.dims().to_vec(),
                role: parameter.role(),
            };
            let values = init.values(&spec, 1, seed);
            parameter.set(&Tensor::from_vec(values, spec.shape, tensor.device())?)?;
        }
    }
    Ok(())
}

/// Gives the batch norms of `model`, which is built over `parameters`, the statistics of `clips`, layer by layer.
pub(super) fn statistics(model: &AudioModel, parameters: &Parameters, clips: &[Mel]) -> Result<()> {
    let features = clips.iter().map(|mel| mel.tensor(model.device()));
    let features = features.collect::<candle_core::Result<Vec<_>>>()?;
    for layer in 0..model.encoder().layers() {
        let seen = model.encoder().before_norm(&features, layer)?.detach();
        let mean = seen.mean(0)?;
        let variance = seen.broadcast_sub(&mean)?.sqr()?.mean(0)?;
        for (name, values) in [("running_mean", mean), ("running_var", variance)] {
            let name = format!("conformer.layers.{layer}.conv.batch_norm.{name}");
            set(parameters, &name, &values)?;
        }
    }
    Ok(())
}

fn set(parameters: &Parameters, name: &str, values: &Tensor) -> Result<()> {
    match parameters.iter().find(|p| p.name() == name) {
        Some(parameter) => Ok(parameter.set(values)?),
        None => Err(Error::option(name, "expected this tensor, found none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_tensor_begins_as_it_should() {
        use TensorRole::{Bias, ConvKernel, Embedding, Norm, OutputProjection, Projection};
        for (name, shape, expected) in [
            (
                "conformer.pre_encode.conv.0.weight",
                &[8, 1, 3, 3][..],
                ConvKernel,
            ),
            (
                "conformer.pre_encode.conv.3.weight",
                &[8, 8, 1, 1],
                Projection,
            ),
            ("conformer.pre_encode.out.bias", &[16], Bias),
            ("conformer.layers.0.norm_out.weight", &[16], Norm),
            ("conformer.layers.0.self_attn.pos_bias_u", &[2, 8], Bias),
            (
                "conformer.layers.0.conv.batch_norm.running_var",
                &[16],
                Norm,
            ),
            (
                "conformer.layers.0.conv.batch_norm.running_mean",
                &[16],
                Bias,
            ),
            (
                "conformer.layers.0.conv.depthwise_conv.weight",
                &[16, 1, 9],
                ConvKernel,
            ),
            (
                "conformer.layers.0.feed_forward2.linear2.weight",
                &[16, 64],
                OutputProjection,
            ),
            ("audio_adapter.model.0.weight", &[16], Norm),
            ("audio_adapter.model.3.weight", &[16, 16], Projection),
            ("audio_embedding.embedding.weight", &[2049, 16], Embedding),
            ("depth_embeddings.0.embedding_norm.weight", &[64], Norm),
            (
                "depthformer.layers.0.operator.qkv_proj.weight",
                &[96, 64],
                Projection,
            ),
        ] {
            assert_eq!(role(name, shape), expected, "{name}");
        }
    }
}
