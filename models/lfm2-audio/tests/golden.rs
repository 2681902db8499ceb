//! Every golden set against the reference: features, encoder, sequences, traces, codecs, losses.
#![cfg(feature = "audio-files")]

mod support;

use anyhow::{Context, Result, ensure};
use lfm2_audio::{
    Chat, Clip, FRAME_SAMPLES, Frame, GenerationOptions, Mode, OUTPUT_RATE, Piece, Role, Sample,
    Sequence, Token,
};
use lfm2_nn::{CacheSpec, Decoder, Device, Input, Module, Step, Tensor, Want};
use serde_json::Value;
use support::{Set, ensure_close, ensure_wave, for_every_set, frames, ids, largest_difference};

/// Of encoder, hidden states and logits.
const TOLERANCE: f64 = 2e-4;
/// Of waves, as a share of their peak.
const WAVE: f64 = 1e-4;

#[test]
fn features_and_resampled_waves_are_the_references() -> Result<()> {
    for_every_set(|set| {
        let (Some(golden), Some(facts)) = (set.tensors("mel.safetensors")?, set.json("mel.json")?)
        else {
            return Ok(());
        };
        let front = set.front_end()?;
        for name in golden.ending(".mel") {
            let clip = set.clip(name)?;
            let facts = &facts[name];
            ensure!(facts["sample_rate"] == clip.rate(), "{name}: rate");
            ensure!(facts["samples"] == clip.samples().len(), "{name}: samples");
            let wave = clip.resampled(front.config().sample_rate)?;
            ensure!(
                facts["samples_16k"] == wave.samples().len(),
                "{name}: resampled"
            );
            if let Some(expected) = golden.find(&format!("{name}.wave16k")) {
                let difference =
                    largest_difference(name, wave.samples(), &expected.to_vec1::<f32>()?)?;
                ensure!(difference <= 2e-5, "{name}: wave differs by {difference}");
            }
            let mel = front.features(&clip)?;
            ensure!(facts["mel_frames"] == mel.frames(), "{name}: frames");
            let steps = Piece::Clip(mel.clone()).positions();
            ensure!(facts["embeddings"] == steps, "{name}: steps");
            let expected = golden.get(&format!("{name}.mel"))?.t()?.contiguous()?;
            // Nearly empty bins amplify the rounding of a resampled wave.
            let same_rate = clip.rate() == front.config().sample_rate;
            let tolerance = if same_rate { 1e-3 } else { 1e-2 };
            ensure_close(name, &mel.tensor(&Device::Cpu)?, &expected, tolerance)?;
        }
        Ok(())
    })
}

#[test]
fn constants_of_the_front_end_are_the_references() -> Result<()> {
    for_every_set(|set| {
        let Some(golden) = set.tensors("mel_constants.safetensors")? else {
            return Ok(());
        };
        let front = set.front_end()?;
        let expected = golden.get("mel_filters")?;
        let filters = Tensor::from_vec(front.filters(), expected.dims(), &Device::Cpu)?;
        ensure_close("mel filters", &filters, expected, 1e-6)?;
        let window = Tensor::new(front.window(), &Device::Cpu)?;
        ensure_close("window", &window, golden.get("window")?, 1e-6)
    })
}

#[test]
fn the_encoder_and_its_parts_are_the_references() -> Result<()> {
    for_every_set(|set| {
        let Some(golden) = set.tensors("encoder.safetensors")? else {
            return Ok(());
        };
        let Some(model) = set.model()? else {
            return Ok(());
        };
        let encoder = model.encoder();
        for name in golden.ending(".subsampled") {
            let get = |part: &str| golden.get(&format!("{name}.{part}"));
            let mel = set.mel(name)?.tensor(&Device::Cpu)?;
            let x = encoder.subsample(&mel)?;
            ensure_close(
                &format!("{name}.subsampled"),
                &x,
                get("subsampled")?,
                TOLERANCE,
            )?;
            let steps = [x.dim(0)?];
            let first = encoder.run_layers(&x, &steps, 0..1)?;
            ensure_close(&format!("{name}.layer0"), &first, get("layer0")?, TOLERANCE)?;
            let encoded = encoder.run_layers(&first, &steps, 1..encoder.layers())?;
            ensure_close(
                &format!("{name}.encoded"),
                &encoded,
                get("encoded")?,
                TOLERANCE,
            )?;
            let adapted = model.adapter().forward(&encoded)?;
            ensure_close(
                &format!("{name}.adapted"),
                &adapted,
                get("adapted")?,
                TOLERANCE,
            )?;
        }
        Ok(())
    })
}

/// Which clips a golden batch was made of is not written in it, so they are found by what they encode to
/// alone.
#[test]
fn clips_of_a_batch_are_the_references() -> Result<()> {
    for_every_set(|set| {
        let Some(golden) = set.tensors("encoder.safetensors")? else {
            return Ok(());
        };
        let Some(model) = set.model()? else {
            return Ok(());
        };
        let mut alone = Vec::new();
        for name in set.clips()? {
            let mel = set.mel(&name)?.tensor(&Device::Cpu)?;
            let encoded = model
                .encoder()
                .forward(std::slice::from_ref(&mel))?
                .remove(0);
            alone.push((mel, encoded));
        }
        let members = golden.ending(".encoded");
        let members = members.into_iter().filter(|name| name.starts_with("pair."));
        let (mut batch, mut expected) = (Vec::new(), Vec::new());
        for name in members {
            let golden = golden.get(&format!("{name}.encoded"))?;
            let same = |encoded: &Tensor| ensure_close(name, encoded, golden, TOLERANCE).is_ok();
            let found = alone.iter().find(|(_, encoded)| same(encoded));
            let (mel, _) = found.with_context(|| format!("no clip encodes to {name}"))?;
            batch.push(mel.clone());
            expected.push(golden);
        }
        for (encoded, expected) in model.encoder().forward(&batch)?.iter().zip(expected) {
            ensure_close("a clip of a batch", encoded, expected, TOLERANCE)?;
        }
        Ok(())
    })
}

/// The chat `name` of a set, with what was generated in earlier turns.
fn chat(set: &Set, name: &str) -> Result<Sequence> {
    let chats = set.json("chats.json")?.context("chats.json")?;
    let facts = &chats[name];
    let Some(before) = facts["after"].as_str() else {
        return set.chat(&facts["turns"]);
    };
    let traces = set.json("traces.json")?.context("traces.json")?;
    let (tokenizer, front) = (set.tokenizer()?, set.front_end()?);
    let mut chat = Chat::more(&tokenizer, &front);
    chat.pieces(set.chat(&chats[before]["turns"])?.pieces().to_vec());
    chat.pieces(steps(&traces[before]["steps"])?);
    chat.end()?.begin(Role::User)?;
    let clip = facts["then_user_audio"].as_str().context("audio")?;
    chat.pieces([Piece::Clip(set.mel(clip)?)]);
    chat.end()?.begin(Role::Assistant)?;
    Ok(chat.into_sequence())
}

/// What a trace consists of, a piece for each step.
fn steps(trace: &Value) -> Result<Vec<Piece>> {
    let steps = trace.as_array().context("steps")?.iter();
    let piece = |step: &Value| -> Result<Piece> {
        Ok(match step.as_u64() {
            Some(id) => Piece::Text(vec![id as u32]),
            None => Piece::Frames(vec![Frame::new(ids(step)?)]),
        })
    };
    steps.map(piece).collect()
}

/// One letter per position, and the ids and frames in order.
fn describe(sequence: &Sequence) -> (String, Vec<u32>, Vec<Vec<u32>>) {
    let (mut modality, mut text, mut said) = (String::new(), Vec::new(), Vec::new());
    for piece in sequence.pieces() {
        let letter = match piece {
            Piece::Text(ids) => {
                text.extend(ids);
                "T"
            }
            Piece::Frames(frames) => {
                said.extend(frames.iter().map(|f| f.codes().to_vec()));
                "O"
            }
            _ => "A",
        };
        modality.push_str(&letter.repeat(piece.positions()));
    }
    (modality, text, said)
}

fn names(json: &Value) -> Result<Vec<&str>> {
    let map = json.as_object().context("an object")?;
    Ok(map.keys().map(String::as_str).collect())
}

#[test]
fn chats_become_the_references_sequences() -> Result<()> {
    for_every_set(|set| {
        let Some(chats) = set.json("chats.json")? else {
            return Ok(());
        };
        for name in names(&chats)? {
            let (modality, text, said) = describe(&chat(set, name)?);
            ensure!(chats[name]["modality"] == modality, "{name}: {modality}");
            ensure!(ids(&chats[name]["text_ids"])? == text, "{name}: {text:?}");
            if chats[name]["audio_out"].is_array() {
                let expected = frames(&chats[name]["audio_out"])?;
                ensure!(
                    expected.iter().map(Frame::codes).eq(&said),
                    "{name}: {said:?}"
                );
            }
        }
        Ok(())
    })
}

#[test]
fn prefill_gives_the_references_states() -> Result<()> {
    for_every_set(|set| {
        let Some(golden) = set.tensors("prefill.safetensors")? else {
            return Ok(());
        };
        let Some(model) = set.model()? else {
            return Ok(());
        };
        for name in golden.ending(".text_logits") {
            let x = model.embed(&chat(set, name)?)?;
            if let Some(expected) = golden.find(&format!("{name}.embeddings")) {
                ensure_close(&format!("{name}.embeddings"), &x, expected, TOLERANCE)?;
            }
            let text = model.text_model();
            let mut cache = text.new_cache(CacheSpec::rows(1));
            let step = Step::single(x.dim(0)?);
            let hidden = text.forward(Input::Embeddings(&x), &step, &mut cache, Want::Hidden)?;
            if let Some(expected) = golden.find(&format!("{name}.hidden")) {
                ensure_close(&format!("{name}.hidden"), &hidden, expected, TOLERANCE)?;
            }
            let logits = text
                .head(&hidden.narrow(0, hidden.dim(0)? - 1, 1)?)?
                .squeeze(0)?;
            let expected = golden.get(&format!("{name}.text_logits"))?;
            ensure_close(&format!("{name}.text_logits"), &logits, expected, TOLERANCE)?;
        }
        Ok(())
    })
}

#[test]
fn the_depth_model_is_the_references() -> Result<()> {
    for_every_set(|set| {
        let Some(golden) = set.tensors("depthformer.safetensors")? else {
            return Ok(());
        };
        let Some(model) = set.model()? else {
            return Ok(());
        };
        let hidden = golden.get("hidden")?;
        let expected = golden.ids("greedy_frames")?;
        for (i, expected) in expected.iter().enumerate() {
            let codes = model
                .depthformer()
                .frame(&hidden.narrow(0, i, 1)?, |_, logits| {
                    let best = (0u32..).zip(logits).max_by(|a, b| a.1.total_cmp(b.1));
                    Ok(best.map_or(0, |best| best.0))
                })?;
            ensure!(&codes == expected, "frame {i}: {codes:?}, {expected:?}");
        }
        let forced = golden.ids("forced_codes")?;
        let flat: Vec<u32> = forced.concat();
        let codes = Tensor::from_vec(flat, (forced.len(), forced[0].len()), &Device::Cpu)?;
        let logits = model.depthformer().forced(hidden, &codes)?;
        for (name, from_end) in [("forced_logits_head", false), ("forced_logits_tail", true)] {
            let expected = golden.get(name)?;
            let width = expected.dim(2)?;
            let start = if from_end { logits.dim(2)? - width } else { 0 };
            ensure_close(name, &logits.narrow(2, start, width)?, expected, TOLERANCE)?;
        }
        let best = logits.argmax(2)?.to_vec2::<u32>()?;
        ensure!(
            best == golden.ids("forced_argmax")?,
            "forced_argmax: {best:?}"
        );
        let frames: Vec<Frame> = forced.into_iter().map(Frame::new).collect();
        let sums = model.embed_frames(&frames)?;
        ensure_close(
            "frame embedding",
            &sums,
            golden.get("forced_frame_embedding")?,
            TOLERANCE,
        )
    })
}

#[test]
fn greedy_traces_are_the_references() -> Result<()> {
    for_every_set(|set| {
        let (Some(traces), Some(model)) = (set.json("traces.json")?, set.model()?) else {
            return Ok(());
        };
        for name in names(&traces)? {
            let trace = &traces[name];
            let mode = match trace["mode"].as_str() {
                Some("sequential") => Mode::Sequential,
                Some("interleaved") => Mode::Interleaved,
                other => anyhow::bail!("{name}: mode {other:?}"),
            };
            ensure!(
                trace["greedy"] == true,
                "{name}: only greedy traces are known"
            );
            let most = trace["max_new_tokens"].as_u64().context("max_new_tokens")?;
            let options = GenerationOptions::greedy().with_max_new_tokens(most as usize);
            let mut session = model.session();
            session.read(&chat(set, trace["chat"].as_str().context("chat")?)?)?;
            let mut generation = session.generate(mode, &options)?;
            for (i, expected) in steps(&trace["steps"])?.into_iter().enumerate() {
                let found = match generation.next(&mut session)? {
                    Some(Token::Text(id)) => Piece::Text(vec![id]),
                    Some(Token::Frame(frame)) => Piece::Frames(vec![frame]),
                    None => anyhow::bail!("{name}: ends before step {i}"),
                };
                ensure!(
                    found == expected,
                    "{name}: step {i}: {found:?}, {expected:?}"
                );
            }
            let more = generation.next(&mut session)?;
            ensure!(more.is_none(), "{name}: goes on with {more:?}");
        }
        Ok(())
    })
}

/// A second turn in a running session is that of a chat read as a whole.
#[test]
fn a_session_goes_on_where_a_whole_chat_would() -> Result<()> {
    for_every_set(|set| {
        let (Some(chats), Some(traces)) = (set.json("chats.json")?, set.json("traces.json")?)
        else {
            return Ok(());
        };
        let Some(model) = set.model()? else {
            return Ok(());
        };
        for name in names(&traces)? {
            let facts = &chats[traces[name]["chat"].as_str().context("chat")?];
            let Some(before) = facts["after"].as_str() else {
                continue;
            };
            let options = |trace: &Value| {
                let most = trace["max_new_tokens"].as_u64().unwrap_or_default();
                GenerationOptions::greedy().with_max_new_tokens(most as usize)
            };
            let mut session = model.session();
            session.read(&chat(set, before)?)?;
            let mut first = session.generate(Mode::Interleaved, &options(&traces[before]))?;
            while first.next(&mut session)?.is_some() {}
            session.end_turn()?;
            let mut more = Chat::more(model.tokenizer(), model.front_end());
            let clip = facts["then_user_audio"].as_str().context("audio")?;
            more.begin(Role::User)?
                .pieces([Piece::Clip(set.mel(clip)?)]);
            more.end()?.begin(Role::Assistant)?;
            session.read(&more.into_sequence())?;
            let mut second = session.generate(Mode::Interleaved, &options(&traces[name]))?;
            let mut found = Vec::new();
            while let Some(token) = second.next(&mut session)? {
                found.push(match token {
                    Token::Text(id) => Piece::Text(vec![id]),
                    Token::Frame(frame) => Piece::Frames(vec![frame]),
                });
            }
            ensure!(found == steps(&traces[name]["steps"])?, "{name}: {found:?}");
        }
        Ok(())
    })
}

#[test]
fn mimi_decodes_and_encodes_as_the_reference() -> Result<()> {
    for_every_set(|set| {
        let (Some(golden), Some(mimi)) = (set.tensors("mimi.safetensors")?, set.mimi_decoder()?)
        else {
            return Ok(());
        };
        let codes = golden.frames("codes")?;
        let latents = mimi.latents(&codes)?;
        ensure_close(
            "latent",
            &latents.t()?.contiguous()?,
            golden.get("latent")?,
            TOLERANCE,
        )?;
        let wave = golden.get("wave")?.to_vec1::<f32>()?;
        ensure_wave("mimi wave", &mimi.decode(&codes)?, &wave, WAVE)?;

        let encoder = set.mimi_encoder()?.context("no encoder")?;
        let expected = golden.get("encode.latent")?;
        let clip = encoded_clip(set, expected.dim(1)?)?;
        let latents = encoder.latents(clip.samples())?.t()?.contiguous()?;
        ensure_close("encode.latent", &latents, expected, TOLERANCE)?;
        let found = encoder.encode(clip.samples())?.concat();
        let expected = golden.frames("encode.codes")?.concat();
        ensure!(found.len() == expected.len(), "{} codes", found.len());
        let differing = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
        // Nearest neighbours can tie.
        ensure!(
            differing * 50 <= found.len(),
            "{differing} of {} codes differ",
            found.len()
        );
        Ok(())
    })
}

/// The sound at the codec's rate that has this many frames.
fn encoded_clip(set: &Set, frames: usize) -> Result<Clip> {
    for name in set.clips()? {
        let clip = set.clip(&name)?;
        let found = clip.samples().len().div_ceil(FRAME_SAMPLES);
        if clip.rate() == OUTPUT_RATE && found == frames {
            return Ok(clip);
        }
    }
    anyhow::bail!("no sound of {frames} frames at {OUTPUT_RATE} samples per second")
}

#[test]
fn the_detokenizer_is_the_references() -> Result<()> {
    for_every_set(|set| {
        let Some(golden) = set.tensors("detokenizer.safetensors")? else {
            return Ok(());
        };
        let Some(model) = set.model()? else {
            return Ok(());
        };
        let Some(lfm2_audio::Vocoder::Detokenizer(detokenizer)) = model.vocoder() else {
            anyhow::bail!("no detokenizer")
        };
        let codes = golden.frames("codes")?;
        let embedded = detokenizer.embed(&codes)?;
        ensure_close("embedding", &embedded, golden.get("embedding")?, TOLERANCE)?;
        let hidden = detokenizer.hidden(&embedded, &mut detokenizer.new_cache())?;
        ensure_close("hidden", &hidden, golden.get("hidden")?, TOLERANCE)?;
        let spectrum = detokenizer.spectrum(&hidden)?;
        let last = spectrum.dim(0)? - 1;
        for (name, row) in [("spectrum_frame0", 0), ("spectrum_last", last)] {
            ensure_close(name, &spectrum.get(row)?, golden.get(name)?, TOLERANCE)?;
        }
        let wave = golden.get("wave")?.to_vec1::<f32>()?;
        ensure_wave(
            "detokenizer wave",
            &detokenizer.decode(&codes)?,
            &wave,
            WAVE,
        )
    })
}

#[test]
fn losses_of_a_training_sample_are_the_references() -> Result<()> {
    for_every_set(|set| {
        let Some(golden) = set.json("train.json")? else {
            return Ok(());
        };
        let Some(model) = set.model()? else {
            return Ok(());
        };
        let text = ids(&golden["text_ids"])?;
        let said = frames(&golden["assistant_frames"])?;
        let letters: Vec<char> = golden["modality"]
            .as_str()
            .context("modality")?
            .chars()
            .collect();
        let sequence = by_modality(set, &golden, &letters, &text, &said)?;
        let first = golden["supervised_from"]
            .as_u64()
            .context("supervised_from")? as usize;
        let supervised = (0..letters.len()).map(|i| i >= first).collect();
        let losses = model.losses(&[Sample {
            sequence,
            supervised,
        }])?;
        for (name, found) in [
            ("loss", losses.total),
            ("text_loss", losses.text),
            ("audio_loss", losses.audio),
        ] {
            let expected = golden[name].as_f64().context("a loss")?;
            let found = f64::from(found.to_scalar::<f32>()?);
            ensure!(
                (found - expected).abs() < 1e-3,
                "{name}: {found}, {expected}"
            );
        }
        let weights = golden["audio_loss_weights"].as_array().context("weights")?;
        for (found, expected) in model.config().codebook_weights().iter().zip(weights) {
            let expected = expected.as_f64().context("a weight")?;
            ensure!(
                (f64::from(*found) - expected).abs() < 1e-3 * expected,
                "weight {found}"
            );
        }
        Ok(())
    })
}

/// A sequence in which `letters` say where text, clips and frames stand.
fn by_modality(
    set: &Set,
    golden: &Value,
    letters: &[char],
    text: &[u32],
    said: &[Frame],
) -> Result<Sequence> {
    let chats = set.json("chats.json")?.context("chats.json")?;
    let asked = set.chat(&chats[golden["chat"].as_str().context("chat")?]["turns"])?;
    let mut clips = asked
        .pieces()
        .iter()
        .filter(|piece| matches!(piece, Piece::Clip(_)));
    let (mut text, mut said) = (text.iter(), said.iter());
    let mut sequence = Sequence::new();
    let mut i = 0;
    while let Some(letter) = letters.get(i) {
        let piece = match letter {
            'T' => Piece::Text(vec![*text.next().context("text")?]),
            'O' => Piece::Frames(vec![said.next().context("frames")?.clone()]),
            _ => clips.next().context("clips")?.clone(),
        };
        i += piece.positions();
        sequence.push(piece);
    }
    Ok(sequence)
}
