//! The golden models, layer by layer and token by token.

use anyhow::{Context, Result, ensure};
use candle_core::{D, DType, Tensor};
use lfm2_hub::{Bos, ModelSource, OpenOptions, SpecialTokens};
use lfm2_nn::{Accuracy, CacheSpec, Decoder, Input, Observer, Step, Want};
use lfm2_text::LoadOptions;
use lfm2_vl::{Album, ImageViews, PatchGrid, View, VlModel, VlOptions};
use serde_json::Value;

use crate::support::{Set, Values, ensure_close, for_every_set, list, size, sizes, text};

/// What the reference's own tolerances are: of the tower, and of logits.
const VISION: (f32, f32) = (3e-5, 3e-5);
const LOGITS: (f32, f32) = (1e-3, 0.0);

/// Keeps everything a tower shows.
#[derive(Default)]
struct Trace {
    embedded: Option<Tensor>,
    layers: Vec<Tensor>,
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
}

/// A case of a model: its prompts and their pictures.
struct Case<'a> {
    name: &'a str,
    values: &'a Values,
    /// The model with the image settings of the case.
    model: VlModel,
    facts: &'a Value,
    prompts: Vec<Vec<u32>>,
    pictures: Vec<Vec<ImageViews>>,
}

#[test]
fn models_of_every_layout_give_the_references_layers_logits_and_tokens() -> Result<()> {
    for_every_set(|set, failures| {
        for name in set.models()? {
            let model = open(set, &name).with_context(|| name.clone())?;
            let facts = set.json(&format!("model_{name}.json"))?;
            let values = set.values(&format!("model_{name}.safetensors"))?;
            for facts in list(&facts["cases"])? {
                let case = text(&facts["name"])?;
                let outcome =
                    Case::new(set, (&model, &values), case, facts).and_then(|c| c.check());
                failures.note(&format!("{name} {case}"), outcome);
            }
        }
        Ok(())
    })
}

fn open(set: &Set, name: &str) -> Result<VlModel> {
    // The references compute with the weights as numbers of full width.
    let load = LoadOptions::default()
        .with_accuracy(Accuracy::Exact)
        .strict();
    let source = ModelSource::Dir(set.folder.join("models").join(name));
    Ok(VlModel::open(
        &source,
        &OpenOptions::default(),
        &VlOptions::from(load),
    )?)
}

impl<'a> Case<'a> {
    fn new(
        set: &Set,
        (model, values): (&VlModel, &'a Values),
        name: &'a str,
        facts: &'a Value,
    ) -> Result<Self> {
        let model = model.overridden(&facts["overrides"])?;
        // One prompt with its pictures, or lists of both.
        let (texts, names) = match facts.get("prompts") {
            Some(prompts) => (list(prompts)?.clone(), list(&facts["images"])?.clone()),
            None => (vec![facts["prompt"].clone()], vec![facts["images"].clone()]),
        };
        let encode = |prompt: &Value| {
            let prompt = text(prompt)?;
            Ok(model
                .tokenizer()
                .encode(prompt, SpecialTokens::Parse, Bos::Omit)?)
        };
        let read = |names: &Value| Ok(model.process_images(&set.pictures(names)?)?);
        Ok(Self {
            prompts: texts.iter().map(encode).collect::<Result<_>>()?,
            pictures: names.iter().map(read).collect::<Result<_>>()?,
            name,
            values,
            facts,
            model,
        })
    }

    fn get(&self, what: &str) -> String {
        format!("{}.{what}", self.name)
    }

    /// Every `row_step`-th row of a matrix, which is all of them where the case does not say.
    fn rows(&self, matrix: &Tensor) -> Result<Vec<f32>> {
        let step = self
            .facts
            .get("row_step")
            .map(size)
            .transpose()?
            .unwrap_or(1);
        let rows = matrix.to_vec2::<f32>()?;
        Ok(rows.into_iter().step_by(step).flatten().collect())
    }

    fn compare(&self, what: &str, found: &Tensor, tolerance: (f32, f32)) -> Result<()> {
        let expected = self.values.floats(&self.get(what))?;
        ensure_close(what, &self.rows(found)?, &expected, tolerance)
    }

    fn has(&self, what: &str) -> Result<bool> {
        self.values.has(&self.get(what))
    }

    fn check(&self) -> Result<()> {
        self.check_ids()?;
        self.check_vision()?;
        let album = self.model.album();
        let prompts = self
            .prompts
            .iter()
            .zip(&self.pictures)
            .map(|(ids, pictures)| {
                let ids = album.prompt(ids, &pictures.iter().collect::<Vec<_>>())?;
                ensure!(ids.iter().all(|&id| album.accepts(id)));
                Ok(ids)
            })
            .collect::<Result<Vec<_>>>()?;
        self.check_logits(&album, &prompts)?;
        self.check_greedy(&album, &prompts)
    }

    /// The real tokens of the golden rows, without padding.
    fn golden_ids(&self) -> Result<Vec<Vec<u32>>> {
        let ids = self.values.rows(&self.get("input_ids"))?;
        let mask = self.values.rows(&self.get("attention_mask"))?;
        let real = |(ids, mask): (Vec<u32>, Vec<u32>)| {
            let kept = ids.into_iter().zip(mask).filter(|(_, mask)| *mask != 0);
            kept.map(|(id, _)| id).collect()
        };
        Ok(ids.into_iter().zip(mask).map(real).collect())
    }

    fn check_ids(&self) -> Result<()> {
        for ((ids, pictures), expected) in self
            .prompts
            .iter()
            .zip(&self.pictures)
            .zip(self.golden_ids()?)
        {
            let plans: Vec<_> = pictures.iter().map(ImageViews::plan).collect();
            let found = self.model.image_tokens().expand(ids, &plans)?;
            ensure!(found == expected, "ids {found:?}, expected {expected:?}");
        }
        Ok(())
    }

    fn check_vision(&self) -> Result<()> {
        let all = self.pictures.iter().flatten().flat_map(ImageViews::views);
        let views: Vec<View> = all.cloned().collect();
        if views.is_empty() {
            return Ok(());
        }
        let grids: Vec<PatchGrid> = views.iter().map(View::grid).collect();
        let rows: Vec<usize> = grids.iter().map(|grid| grid.patches()).collect();
        ensure!(rows == sizes(&self.facts["view_rows"])?, "patches {rows:?}");
        let shapes = grids
            .iter()
            .map(|grid| vec![grid.rows as u32, grid.cols as u32]);
        ensure!(self.values.rows(&self.get("spatial_shapes"))? == shapes.collect::<Vec<_>>());
        if self.has("pixels_u8")? {
            let pixels: Vec<u8> = views.iter().flat_map(|v| v.patches()).copied().collect();
            ensure!(
                self.values.bytes(&self.get("pixels_u8"))? == pixels,
                "pixels"
            );
        }
        let mut trace = Trace::default();
        let patches = self.model.patches(&views)?;
        let out = self
            .model
            .tower()
            .forward(&patches, &grids, Some(&mut trace))?;
        if self.has("vision_embeddings")? {
            let embedded = trace.embedded.context("no embeddings seen")?;
            self.compare("vision_embeddings", &embedded, VISION)?;
            for (layer, x) in trace.layers.iter().enumerate() {
                self.compare(&format!("vision_layer{layer}"), x, VISION)?;
            }
            ensure!(
                !self.has(&format!("vision_layer{}", trace.layers.len()))?,
                "more layers"
            );
        }
        if self.has("vision_out")? {
            self.compare("vision_out", &out, VISION)?;
        }
        let projected = self.model.projector().forward(&out, &grids)?;
        self.compare("projected", &projected, VISION)?;
        // The same in packs of whole views, and a second time from memory.
        for _ in 0..2 {
            self.compare(
                "projected",
                &Tensor::cat(&self.model.encode(&views)?, 0)?,
                VISION,
            )?;
        }
        Ok(())
    }

    fn check_logits(&self, album: &Album, prompts: &[Vec<u32>]) -> Result<()> {
        let lens: Vec<usize> = prompts.iter().map(Vec::len).collect();
        let mut cache = album.new_cache(CacheSpec::rows(prompts.len()));
        let ids = Tensor::new(prompts.concat(), album.device())?;
        let logits = album.forward(
            Input::Ids(&ids),
            &Step::rows(&lens),
            &mut cache,
            Want::AllLogits,
        )?;
        let vocab = logits.dim(1)?;
        let golden = self.values.rows(&self.get("argmax"))?;
        let last = self.values.floats(&self.get("logits_last"))?;
        let tail = self.has("logits_tail")?;
        let mut start = 0;
        for (row, &len) in lens.iter().enumerate() {
            let own = logits.narrow(0, start, len)?;
            start += len;
            let expected = &last[row * vocab..(row + 1) * vocab];
            let found = own.get(len - 1)?.to_vec1::<f32>()?;
            ensure_close("logits_last", &found, expected, LOGITS)?;
            if tail {
                let values = self.values.floats(&self.get("logits_tail"))?;
                let count = values.len() / lens.len() / vocab;
                let expected = &values[row * count * vocab..(row + 1) * count * vocab];
                let found = own
                    .narrow(0, len - count, count)?
                    .flatten_all()?
                    .to_vec1()?;
                ensure_close("logits_tail", &found, expected, LOGITS)?;
            }
            check_argmax(&own, &golden[row][golden[row].len() - len..])?;
        }
        Ok(())
    }

    /// Sixteen tokens, the prompts fed in pieces and the tokens one at a time.
    fn check_greedy(&self, album: &Album, prompts: &[Vec<u32>]) -> Result<()> {
        let expected = self.values.rows(&self.get("greedy"))?;
        let mut cache = album.new_cache(CacheSpec::rows(prompts.len()));
        let mut next = vec![Vec::new(); prompts.len()];
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        const PIECE: usize = 17;
        for at in (0..longest).step_by(PIECE) {
            let piece = |ids: &Vec<u32>| ids.iter().skip(at).take(PIECE).copied().collect();
            let pieces: Vec<Vec<u32>> = prompts.iter().map(piece).collect();
            self.feed(album, &pieces, &mut cache, &mut next)?;
        }
        for step in 0..expected[0].len() {
            let tokens: Vec<Vec<u32>> = next.clone();
            for (row, token) in tokens.iter().enumerate() {
                ensure!(
                    token[..] == expected[row][step..=step],
                    "row {row} token {step}: {token:?}"
                );
            }
            self.feed(album, &tokens, &mut cache, &mut next)?;
        }
        Ok(())
    }

    /// Feeds every row its piece, if it has one, and puts the best token after it into `next`.
    fn feed(
        &self,
        album: &Album,
        pieces: &[Vec<u32>],
        cache: &mut lfm2_nn::Cache,
        next: &mut [Vec<u32>],
    ) -> Result<()> {
        let lens: Vec<usize> = pieces.iter().map(Vec::len).collect();
        let ids = Tensor::new(pieces.concat(), album.device())?;
        let logits = album.forward(
            Input::Ids(&ids),
            &Step::rows(&lens),
            cache,
            Want::LastLogits,
        )?;
        let best = logits
            .to_dtype(DType::F32)?
            .argmax(D::Minus1)?
            .to_vec1::<u32>()?;
        let fed = (0..pieces.len()).filter(|&row| lens[row] > 0);
        for (row, token) in fed.zip(best) {
            next[row] = vec![token];
        }
        Ok(())
    }
}

/// Checks that the expected token is the best one, or as good as the tolerance of logits can tell.
fn check_argmax(logits: &Tensor, expected: &[u32]) -> Result<()> {
    for (at, (logits, &id)) in logits.to_vec2::<f32>()?.iter().zip(expected).enumerate() {
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let own = logits
            .get(id as usize)
            .copied()
            .context("id outside the vocabulary")?;
        ensure!(
            best - own <= 2.0 * LOGITS.0,
            "token {at}: {id} has {own}, the best {best}"
        );
    }
    Ok(())
}
