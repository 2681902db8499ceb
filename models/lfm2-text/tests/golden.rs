//! Every golden case against the reference: logits, each layer, routing, caches, padding, GGUF.

mod support;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use lfm2_hub::{Checkpoint, ModelSource, OpenOptions};
use lfm2_nn::{
    Accuracy, Cache, CacheSpec, DType, Decoder, Input, LayerCache, Observer, PaddedBatch, Routing,
    Step, Tensor, Want,
};
use lfm2_text::{LoadOptions, TextConfig, TextModel};
use support::{
    Case, Dequantized, ensure_accurate, ensure_close, feed, for_every_case, id_rows, logits,
    mean_diff,
};

/// Keeps everything a pass shows.
#[derive(Default)]
struct Trace {
    embedded: Option<Tensor>,
    layers: Vec<Tensor>,
    routings: Vec<(usize, Routing)>,
}

impl Observer for Trace {
    fn embedded(&mut self, x: &Tensor) -> candle_core::Result<()> {
        self.embedded = Some(x.clone());
        Ok(())
    }

    fn layer(&mut self, layer: usize, x: &Tensor) -> candle_core::Result<()> {
        assert_eq!(layer, self.layers.len());
        self.layers.push(x.clone());
        Ok(())
    }

    fn routed(&mut self, layer: usize, routing: &Routing) -> candle_core::Result<()> {
        self.routings.push((layer, routing.clone()));
        Ok(())
    }
}

/// The golden input, both rows packed one after another.
fn packed_input(case: &Case) -> Result<(Tensor, Step)> {
    let ids = case.get("fwd.input_ids")?;
    let (rows, len) = ids.dims2()?;
    Ok((
        ids.flatten_all()?.to_dtype(DType::U32)?,
        Step::rows(&vec![len; rows]),
    ))
}

fn packed(expected: &Tensor) -> Result<Tensor> {
    Ok(expected.flatten(0, 1)?)
}

#[test]
fn every_layer_and_the_logits_are_the_references() -> Result<()> {
    for_every_case(|case| {
        let model = case.model()?;
        let tolerance = case.number("/tolerance/f32_hidden_abs")?;
        let (ids, step) = packed_input(case)?;
        for mut cache in [model.new_cache(CacheSpec::rows(2)), Cache::stateless(2)] {
            let mut trace = Trace::default();
            let found = model.forward_observed(
                Input::Ids(&ids),
                &step,
                &mut cache,
                Want::AllLogits,
                Some(&mut trace),
            )?;
            let embedded = trace.embedded.context("no embeddings seen")?;
            ensure_close(
                "fwd.embed",
                &embedded,
                &packed(case.get("fwd.embed")?)?,
                tolerance,
            )?;
            ensure!(trace.layers.len() == model.config().layers.len());
            for (i, x) in trace.layers.iter().enumerate() {
                let name = format!("fwd.layer.{i}");
                ensure_close(&name, x, &packed(case.get(&name)?)?, tolerance)?;
            }
            check_routing(case, &trace.routings, tolerance)?;
            let allowed = case.number("/tolerance/f32_abs")?;
            ensure_close(
                "fwd.logits",
                &found,
                &packed(case.get("fwd.logits")?)?,
                allowed,
            )?;
        }
        let hidden = model.forward(
            Input::Ids(&ids),
            &step,
            &mut Cache::stateless(2),
            Want::Hidden,
        )?;
        ensure_close(
            "fwd.final",
            &hidden,
            &packed(case.get("fwd.final")?)?,
            tolerance,
        )?;
        let embeddings = model.embed_tokens(&ids)?;
        let mut cache = model.new_cache(CacheSpec::rows(2));
        let last = model.forward(
            Input::Embeddings(&embeddings),
            &step,
            &mut cache,
            Want::LastLogits,
        )?;
        let expected = case.get("fwd.logits")?;
        let expected = expected.narrow(1, expected.dim(1)? - 1, 1)?.squeeze(1)?;
        ensure_close(
            "last logits from embeddings",
            &last,
            &expected,
            case.number("/tolerance/f32_abs")?,
        )
    })
}

fn check_routing(case: &Case, routings: &[(usize, Routing)], tolerance: f64) -> Result<()> {
    let expected = case
        .names()
        .filter(|n| n.starts_with("moe.") && n.ends_with(".experts"))
        .count();
    ensure!(
        routings.len() == expected,
        "{} routers ran, {expected} are golden",
        routings.len()
    );
    for (layer, routing) in routings {
        ensure_close(
            "router logits",
            &routing.logits,
            case.get(&format!("moe.{layer}.logits"))?,
            tolerance,
        )?;
        let experts = id_rows(case.get(&format!("moe.{layer}.experts"))?)?;
        let weights: Vec<Vec<f32>> = case.get(&format!("moe.{layer}.weights"))?.to_vec2()?;
        for (token, (experts, weights)) in experts.iter().zip(&weights).enumerate() {
            // The order among a token's experts has no meaning, so compare them by number.
            let pairs = |e: &[u32], w: &[f32]| {
                let mut pairs: Vec<(u32, f32)> = e.iter().copied().zip(w.iter().copied()).collect();
                pairs.sort_by_key(|p| p.0);
                pairs
            };
            let found = pairs(&routing.experts[token], &routing.token_weights(token)?);
            for (found, expected) in found.iter().zip(pairs(experts, weights)) {
                ensure!(
                    found.0 == expected.0,
                    "layer {layer} token {token}: experts {found:?}, {expected:?}"
                );
                ensure!(
                    (found.1 - expected.1).abs() < 1e-4,
                    "layer {layer} token {token}: weight {found:?}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn greedy_tokens_are_the_references() -> Result<()> {
    for_every_case(|case| {
        let model = case.model()?;
        let expected = case.ids("/gen_tokens")?;
        let golden = case.get("gen.logits")?;
        let mut cache = model.new_cache(CacheSpec::rows(1));
        let mut next = feed(
            &model,
            &case.ids("/gen_prompt")?,
            &mut cache,
            Want::LastLogits,
        )?;
        for (i, &token) in expected.iter().enumerate() {
            ensure_close("gen.logits", &next, &golden.narrow(0, i, 1)?, 5e-3)?;
            let found = next.argmax(1)?.to_vec1::<u32>()?[0];
            ensure!(found == token, "token {i}: {found}, expected {token}");
            next = feed(&model, &[token], &mut cache, Want::LastLogits)?;
        }
        Ok(())
    })
}

#[test]
fn a_prompt_in_pieces_equals_the_whole_and_leaves_the_references_state() -> Result<()> {
    for_every_case(|case| {
        let model = case.model()?;
        let tolerance = case.number("/tolerance/f32_abs")?;
        let ids = id_rows(case.get("chunk.input_ids")?)?.remove(0);
        let expected = case.get("chunk.logits")?.squeeze(0)?;
        let mut cache = model.new_cache(CacheSpec::rows(1).with_capacity(1));
        let mut at = 0;
        for len in case.sizes("/chunk_sizes")? {
            let found = feed(&model, &ids[at..at + len], &mut cache, Want::AllLogits)?;
            ensure_close(
                "chunk.logits",
                &found,
                &expected.narrow(0, at, len)?,
                tolerance,
            )?;
            at += len;
        }
        check_state(case, &cache)?;
        for (i, id) in ids.iter().enumerate().skip(at) {
            let found = feed(&model, &[*id], &mut cache, Want::AllLogits)?;
            ensure_close(
                "one token at a time",
                &found,
                &expected.narrow(0, i, 1)?,
                tolerance,
            )?;
        }
        Ok(())
    })
}

fn check_state(case: &Case, cache: &Cache) -> Result<()> {
    let row = cache.row(0).context("no row")?;
    for layer in 0..cache.layout().layers.len() {
        match row.layer(layer).context("no layer")? {
            LayerCache::Conv(state) => {
                // The reference keeps one column more than is needed, the newest input included.
                let golden = case.get(&format!("cache.conv.{layer}"))?.squeeze(0)?.t()?;
                let kept = state.dim(0)?;
                let golden = golden.narrow(0, golden.dim(0)? - kept, kept)?;
                ensure_close(&format!("conv state {layer}"), state, &golden, 2e-3)?;
            }
            LayerCache::Kv(slot) => {
                for (name, found) in [("k", slot.keys()), ("v", slot.values())] {
                    let golden = case.get(&format!("cache.{name}.{layer}"))?.squeeze(0)?;
                    let found = found.narrow(1, 0, row.len())?;
                    // A sliding layer of the reference keeps its window only; ours keeps everything.
                    let kept = golden.dim(1)?;
                    let found = found.narrow(1, row.len() - kept, kept)?;
                    ensure_close(&format!("cache.{name}.{layer}"), &found, &golden, 2e-3)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn padded_rows_equal_the_rows_alone() -> Result<()> {
    for_every_case(|case| {
        let model = case.model()?;
        let tolerance = case.number("/tolerance/f32_abs")?;
        for side in ["left", "right"] {
            let ids = case.get(&format!("pad.{side}_ids"))?.to_dtype(DType::U32)?;
            let mask = id_rows(case.get(&format!("pad.{side}_mask"))?)?;
            let mask: Vec<Vec<bool>> = mask
                .iter()
                .map(|r| r.iter().map(|&m| m != 0).collect())
                .collect();
            let batch = PaddedBatch::from_mask(&mask)?;
            let mut cache = model.new_cache(CacheSpec::rows(mask.len()));
            let input = batch.pack(&ids)?;
            let found = model.forward(
                Input::Ids(&input),
                batch.step(),
                &mut cache,
                Want::AllLogits,
            )?;
            let found = batch.unpack(&found)?;
            for (row, mask) in mask.iter().enumerate() {
                let start = mask.iter().position(|&m| m).context("empty row")?;
                let expected = case.get(&format!("pad.logits.{row}"))?;
                let len = expected.dim(0)?;
                let found = found.get(row)?.narrow(0, start, len)?;
                ensure_close(
                    &format!("pad.logits.{row}, {side} padding"),
                    &found,
                    expected,
                    tolerance,
                )?;
                ensure!(cache.len(row) == len);
            }
        }
        Ok(())
    })
}

#[test]
fn bf16_arithmetic_stays_near_the_references() -> Result<()> {
    for_every_case(|case| {
        let model = case.model_with(&LoadOptions::default().with_dtype(DType::BF16))?;
        let (ids, step) = packed_input(case)?;
        let mut cache = model.new_cache(CacheSpec::rows(2));
        let found = model.forward(Input::Ids(&ids), &step, &mut cache, Want::AllLogits)?;
        let expected = packed(case.get("bf16.logits")?)?;
        let allowed = case.number("/tolerance/bf16_mean_abs")?;
        let difference = mean_diff(&found, &expected)?;
        if f64::from(difference) <= allowed {
            return Ok(());
        }
        // A sigmoid in bf16 makes ties among the scores, and the reference's choice among ties is
        // not defined: a token sent to another expert moves its whole row. Chance would agree once
        // in `vocab` rows.
        let agree = arg_max_agreement(&found, &expected)?;
        ensure!(
            model.config().moe.is_some() && agree >= 0.5,
            "mean difference {difference} of {allowed}, arg-max agreement {agree}"
        );
        Ok(())
    })
}

fn arg_max_agreement(a: &Tensor, b: &Tensor) -> Result<f64> {
    let best =
        |t: &Tensor| Ok::<_, anyhow::Error>(t.to_dtype(DType::F32)?.argmax(1)?.to_vec1::<u32>()?);
    let (a, b) = (best(a)?, best(b)?);
    Ok(a.iter().zip(&b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64)
}

#[test]
fn gguf_files_give_the_logits_of_their_weights() -> Result<()> {
    for_every_case(|case| {
        let kinds = case
            .names()
            .filter_map(|n| n.strip_prefix("gguf.")?.strip_suffix(".logits"));
        for kind in kinds {
            let source = ModelSource::Gguf(case.folder.join(format!("model-{kind}.gguf")));
            let checkpoint = Checkpoint::open(&source, &OpenOptions::default())?;
            let expected = packed(case.get(&format!("gguf.{kind}.logits"))?)?;
            let (ids, step) = packed_input(case)?;
            let run = |model: &TextModel| {
                let mut cache = model.new_cache(CacheSpec::rows(2));
                model.forward(Input::Ids(&ids), &step, &mut cache, Want::AllLogits)
            };

            let config = TextConfig::from_json(checkpoint.config())?;
            let dense = Arc::new(Dequantized(checkpoint.tensors()));
            let exact = LoadOptions::default()
                .with_accuracy(Accuracy::Exact)
                .strict();
            let dense = TextModel::from_tensors(config, dense, &exact)?;
            ensure_close(
                kind,
                &run(&dense)?,
                &expected,
                case.number("/tolerance/f32_abs")?,
            )?;

            let blocks = TextModel::from_checkpoint(&checkpoint, &LoadOptions::default().strict())?;
            ensure_accurate(kind, blocks.config(), &run(&blocks)?, &expected)?;
        }
        Ok(())
    })
}

#[test]
fn weights_widened_beforehand_give_the_same_logits() -> Result<()> {
    for_every_case(|case| {
        let ids = id_rows(case.get("fwd.input_ids")?)?.remove(0);
        let expected = case.get("fwd.logits")?.get(0)?;
        let tensors = case.checkpoint_tensors()?;
        let wide: std::collections::HashMap<String, Tensor> = tensors
            .names()
            .into_iter()
            .map(|n| Ok((n.clone(), tensors.dense(&n, DType::F32, &support::CPU)?)))
            .collect::<lfm2_hub::Result<_>>()?;
        let bytes = safetensors::serialize(&wide, None)?;
        let source =
            lfm2_hub::SafetensorsSource::from_bytes("wide", bytes, &lfm2_hub::Limits::default())?;
        let wide =
            TextModel::from_tensors(case.config()?, Arc::new(source), &LoadOptions::default())?;
        let stored = case.model()?;
        ensure_close("f32 copy", &logits(&wide, &ids)?, &expected, 2e-3)?;
        ensure_close(
            "as stored",
            &logits(&stored, &ids)?,
            &logits(&wide, &ids)?,
            1e-3,
        )?;
        Ok(())
    })
}
