//! [`VlModel`]: a text model that reads pictures.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::Tensor;
use lfm2_hub::{
    Checkpoint, Error, Joined, ModelSource, OpenOptions, Result, TensorSource, Tokenizer,
};
use lfm2_nn::{Decoder, Weights};
use lfm2_text::{LoadOptions, TextConfig, TextModel};
use serde_json::Value;

use crate::album::Album;
use crate::budget::Budget;
use crate::config::VlConfig;
use crate::cost::{Cost, Speed};
use crate::mmproj::{self, Mmproj};
use crate::picture::Picture;
use crate::plan::{ImagePlan, Size};
use crate::processor::{ImageProcessor, ImageViews};
use crate::projector::Projector;
use crate::settings::ImageSettings;
use crate::tokens::ImageTokens;
use crate::tower::VisionTower;
use crate::view::{PatchGrid, View, ViewKey};
use crate::view_cache::ViewCache;
use crate::view_folder::{Shelf, ViewFolder};

/// Where the tower may be, by its patch embedding, and the projector by its first matrix.
const TOWERS: [&str; 4] = [
    "model.vision_tower.vision_model",
    mmproj::TOWER,
    "vision_tower.vision_model",
    "vision_tower",
];
const PROJECTORS: [&str; 2] = [mmproj::PROJECTOR, "multi_modal_projector"];

/// Patches that go through the tower together: two full tiles of the published models. More would take
/// memory and gain nothing, since the matrices are large already.
const PACK: usize = 2048;

/// How a model is loaded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VlOptions {
    /// Device, number types, quantisation.
    pub load: LoadOptions,
    /// Bytes of views that are kept, so that a picture seen before costs nothing; 0 keeps none.
    pub view_cache_bytes: usize,
    /// Where views are kept from one start to the next; nowhere by default.
    pub view_folder: Option<ViewFolder>,
}

impl Default for VlOptions {
    fn default() -> Self {
        Self {
            load: LoadOptions::default(),
            view_cache_bytes: 256 << 20,
            view_folder: None,
        }
    }
}

impl From<LoadOptions> for VlOptions {
    fn from(load: LoadOptions) -> Self {
        Self {
            load,
            ..Self::default()
        }
    }
}

impl VlOptions {
    /// Keeps up to `bytes` of views.
    pub fn with_view_cache_bytes(mut self, bytes: usize) -> Self {
        self.view_cache_bytes = bytes;
        self
    }

    /// Keeps views in `folder` from one start to the next.
    pub fn with_view_folder(mut self, folder: ViewFolder) -> Self {
        self.view_folder = Some(folder);
        self
    }
}

/// How far the views of pictures were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadProgress {
    /// Views that were read.
    pub done: usize,
    /// Views that have to be; those that are known do not count.
    pub total: usize,
}

/// Who is told how far reading is, and can stop it.
pub type Watch<'a> = &'a mut dyn FnMut(ReadProgress) -> ControlFlow<()>;

/// A text model with a vision tower. Immutable apart from its cache of views, shareable between
/// threads, cheap to clone; clones share the cache.
///
/// It does not read prompts by itself: an [`Album`] holds the pictures of a conversation, and is the
/// decoder that everything which writes text works with.
#[derive(Debug, Clone)]
pub struct VlModel {
    config: Arc<VlConfig>,
    text: TextModel,
    tower: VisionTower,
    projector: Projector,
    processor: ImageProcessor,
    tokens: ImageTokens,
    tokenizer: Tokenizer,
    cache: Arc<ViewCache>,
}

impl VlModel {
    /// Opens the model in a folder or a repository of the Hub.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`from_checkpoint`](Self::from_checkpoint).
    pub fn open(source: &ModelSource, files: &OpenOptions, options: &VlOptions) -> Result<Self> {
        Self::from_checkpoint(&Checkpoint::open(source, files)?, options)
    }

    /// Builds the model of an opened checkpoint.
    ///
    /// # Errors
    /// When config or settings are invalid, tokens or tensors are missing, or they contradict each other.
    pub fn from_checkpoint(checkpoint: &Checkpoint, options: &VlOptions) -> Result<Self> {
        let info = checkpoint.info();
        let config = VlConfig::from_json(checkpoint.config(), info.limits())?;
        let settings = ImageSettings::of(info)?;
        let parts = (config, settings, checkpoint.tokenizer()?);
        Self::from_tensors(parts, checkpoint.tensors(), options)
    }

    /// Builds the model from its facts and the tensors of its checkpoint, which may be learnt.
    ///
    /// # Errors
    /// As [`from_checkpoint`](Self::from_checkpoint).
    pub fn from_tensors(
        facts: (VlConfig, ImageSettings, Tokenizer),
        tensors: Arc<dyn TensorSource>,
        options: &VlOptions,
    ) -> Result<Self> {
        let shelf = match &options.view_folder {
            Some(folder) => Shelf::new(folder, tensors.as_ref(), &options.load)?,
            None => None,
        };
        let weights = options.load.weights(tensors);
        let mut model = Self::load(facts, &weights, options)?;
        options.load.finish(&weights)?;
        if let Some(shelf) = shelf {
            let shelf = shelf.of(model.text.dtype(), model.processor.levels());
            model.cache = Arc::new(ViewCache::new(options.view_cache_bytes).with_shelf(shelf));
        }
        Ok(model)
    }

    /// Builds the model of two GGUF files: the text model, and tower and projector.
    ///
    /// What such files do not say of image settings is as in the published processors, unless
    /// `overrides` says otherwise: the largest models need `{"resample": 3}`.
    ///
    /// # Errors
    /// As [`from_checkpoint`](Self::from_checkpoint).
    pub fn from_gguf(
        text: &Checkpoint,
        vision: &Mmproj,
        overrides: &Value,
        options: &VlOptions,
    ) -> Result<Self> {
        let (tower, projector) = vision.config()?;
        let config = VlConfig {
            text: TextConfig::from_json_within(text.config(), text.info().limits())?,
            vision: tower,
            projector,
            image_token_id: None,
        };
        let settings = ImageSettings::from_files(&vision.settings()?, None, Some(overrides))?;
        let parts = [text.tensors(), vision.tensors()].map(|part| (String::new(), part));
        let tensors = Arc::new(Joined::new(parts.into()));
        Self::from_tensors((config, settings, text.tokenizer()?), tensors, options)
    }

    fn load(
        (config, settings, tokenizer): (VlConfig, ImageSettings, Tokenizer),
        weights: &Weights,
        options: &VlOptions,
    ) -> Result<Self> {
        agree(&config, &settings)?;
        let tokens = ImageTokens::new(&tokenizer, &settings)?;
        check_tokens(&config, &tokens)?;
        let text = TextModel::load(config.text.clone(), weights)?;
        let under = |places: &[&str], tensor: &str| {
            let found = places
                .iter()
                .find(|place| weights.pp(place).contains(tensor));
            weights.pp(found.or(places.first()).unwrap_or(&""))
        };
        let tower = under(&TOWERS, "embeddings.patch_embedding.weight");
        let projector = under(&PROJECTORS, "linear_1.weight");
        let (from, to) = (config.vision.hidden_size, config.text.hidden_size);
        Ok(Self {
            tower: VisionTower::load(&config.vision, &tower)?,
            projector: Projector::load(&config.projector, from, to, &projector)?,
            text,
            processor: ImageProcessor::new(settings)?,
            tokens,
            tokenizer,
            cache: Arc::new(ViewCache::new(options.view_cache_bytes)),
            config: Arc::new(config),
        })
    }

    /// The same model with the keys of `json`, spelled as in the files of processors, in place of its
    /// image settings.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] naming the key, also when weights or tokens do not allow it.
    pub fn overridden(&self, json: &Value) -> Result<Self> {
        let processor = self.processor.overridden(json)?;
        agree(&self.config, processor.settings())?;
        let tokens = ImageTokens::new(&self.tokenizer, processor.settings())?;
        check_tokens(&self.config, &tokens)?;
        // Views are kept by their pixels, whatever the tower is given for them.
        let cache = match processor.levels() == self.processor.levels() {
            true => Arc::clone(&self.cache),
            false => Arc::new(self.cache.emptied(processor.levels())),
        };
        Ok(Self {
            processor,
            tokens,
            cache,
            ..self.clone()
        })
    }

    /// The model's facts.
    pub fn config(&self) -> &VlConfig {
        &self.config
    }

    /// The text model.
    pub fn text(&self) -> &TextModel {
        &self.text
    }

    /// The vision tower.
    pub fn tower(&self) -> &VisionTower {
        &self.tower
    }

    /// What joins tower and text model.
    pub fn projector(&self) -> &Projector {
        &self.projector
    }

    /// What turns pictures into views.
    pub fn processor(&self) -> &ImageProcessor {
        &self.processor
    }

    /// The tokens that stand for pictures.
    pub fn image_tokens(&self) -> &ImageTokens {
        &self.tokens
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// An album without pictures, for one conversation.
    pub fn album(&self) -> Album {
        Album::new(self.clone())
    }

    /// The views of pictures.
    ///
    /// # Errors
    /// As [`ImageProcessor::process`].
    pub fn process_images(&self, pictures: &[Picture]) -> Result<Vec<ImageViews>> {
        let views = pictures
            .iter()
            .map(|picture| self.processor.process(picture));
        views.collect()
    }

    /// The views of pictures that take no more than `budget` together.
    ///
    /// # Errors
    /// As [`ImageProcessor::plan_within`].
    pub fn process_images_within(
        &self,
        pictures: &[Picture],
        budget: &Budget,
    ) -> Result<Vec<ImageViews>> {
        let sizes: Vec<Size> = pictures.iter().map(Picture::size).collect();
        let plans = self.processor.plan_within(&sizes, budget)?;
        let views = pictures
            .iter()
            .zip(plans)
            .map(|(picture, plan)| self.processor.process_as(picture, plan));
        views.collect()
    }

    /// What a picture with this plan costs; with the time where `speed` is known.
    pub fn cost(&self, plan: &ImagePlan, speed: Option<&Speed>) -> Cost {
        Cost::new(plan, self.processor.settings(), speed)
    }

    /// The patches of views as the tower takes them, `(patches, values)`, one view after another.
    ///
    /// # Errors
    /// When the device fails.
    pub fn patches(&self, views: &[View]) -> candle_core::Result<Tensor> {
        let mut values = Vec::new();
        for view in views {
            values.extend(self.processor.normalized(view));
        }
        let width = self.config.vision.patch_values();
        let patches = Tensor::from_vec(
            values,
            (grid_patches(views), width),
            &candle_core::Device::Cpu,
        )?;
        patches
            .to_device(self.text.device())?
            .to_dtype(self.text.dtype())
    }

    /// What stands for each view where text has embeddings, `(tokens, hidden)`. Views that were seen
    /// lately cost nothing, and equal ones are read once.
    ///
    /// # Errors
    /// When the device fails.
    pub fn encode(&self, views: &[View]) -> Result<Vec<Tensor>> {
        let all = self.encode_watched(views, &mut |_| ControlFlow::Continue(()))?;
        all.ok_or_else(|| Error::InvalidInput("a view was not read".to_owned()))
    }

    /// [`encode`](Self::encode) that tells `watch` how far it is, at the start and after every few views;
    /// `None` when that stops it. What was read until then is kept.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_watched(&self, views: &[View], watch: Watch<'_>) -> Result<Option<Vec<Tensor>>> {
        let keys: Vec<ViewKey> = views.iter().map(View::key).collect();
        let mut rows: HashMap<ViewKey, Tensor> = HashMap::new();
        let mut new: Vec<(ViewKey, &View)> = Vec::new();
        for (key, view) in keys.iter().zip(views) {
            if rows.contains_key(key) || new.iter().any(|(other, _)| other == key) {
                continue;
            }
            match self.cache.get(key) {
                Some(found) => drop(rows.insert(*key, found)),
                None => new.push((*key, view)),
            }
        }
        let (known, total) = (rows.len(), new.len());
        for pack in packs(&new) {
            let done = rows.len() - known;
            if watch(ReadProgress { done, total }).is_break() {
                return Ok(None);
            }
            let views: Vec<View> = pack.iter().map(|(_, view)| (*view).clone()).collect();
            let made = self.read(&views)?;
            for ((key, _), made) in pack.iter().zip(made) {
                self.cache.insert(*key, made.clone());
                rows.insert(*key, made);
            }
        }
        if total > 0 && watch(ReadProgress { done: total, total }).is_break() {
            return Ok(None);
        }
        let all = keys.iter().map(|key| rows.get(key).cloned());
        Ok(all.collect())
    }

    /// The embeddings `(tokens, hidden)` of `ids`, which have the image token for every row of `views` as
    /// [`ImageTokens::expand`] makes them: for training, and for engines of their own. An [`Album`] does
    /// the same for conversations.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] naming both counts when there are more or fewer places than rows, or a
    /// failure of the device.
    pub fn embed(&self, ids: &[u32], views: &[View]) -> Result<Tensor> {
        let image = self.tokens.image();
        let places = ids.iter().filter(|&&id| id == image).count();
        let rows = self.encode(views)?;
        let found = rows
            .iter()
            .map(|rows| rows.dim(0))
            .sum::<candle_core::Result<usize>>()?;
        if places != found {
            return Err(Error::InvalidInput(format!(
                "the prompt has places for {places} rows of pictures, found {found} rows"
            )));
        }
        let rows = match &rows[..] {
            [] => None,
            some => Some(Tensor::cat(some, 0)?),
        };
        let mut parts = Vec::new();
        let mut start = 0;
        for run in ids.chunk_by(|a, b| (*a == image) == (*b == image)) {
            parts.push(match &rows {
                Some(rows) if run.first() == Some(&image) => {
                    start += run.len();
                    rows.narrow(0, start - run.len(), run.len())?
                }
                _ => self
                    .text
                    .embed_tokens(&Tensor::new(run, self.text.device())?)?,
            });
        }
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// The rows of each view, from its pixels.
    fn read(&self, views: &[View]) -> candle_core::Result<Vec<Tensor>> {
        let grids: Vec<PatchGrid> = views.iter().map(View::grid).collect();
        let hidden = self.tower.forward(&self.patches(views)?, &grids, None)?;
        let rows = self.projector.forward(&hidden, &grids)?;
        let mut start = 0;
        let each = grids.iter().map(|grid| {
            let len = grid.patches() / self.config.projector.factor.pow(2);
            // A copy, so that a view that is kept keeps nothing else.
            let rows = rows.narrow(0, start, len)?.force_contiguous();
            start += len;
            rows
        });
        each.collect()
    }
}

fn grid_patches(views: &[View]) -> usize {
    views.iter().map(|view| view.grid().patches()).sum()
}

/// Runs of views of at most [`PACK`] patches each, and at least one view.
fn packs<'a>(views: &'a [(ViewKey, &'a View)]) -> Vec<&'a [(ViewKey, &'a View)]> {
    let mut packs = Vec::new();
    let mut rest = views;
    while !rest.is_empty() {
        let mut patches = 0;
        let fits = rest.iter().take_while(|(_, view)| {
            patches += view.grid().patches();
            patches <= PACK
        });
        let (pack, others) = rest.split_at(fits.count().max(1));
        packs.push(pack);
        rest = others;
    }
    packs
}

/// Checks that image settings suit the weights.
fn agree(config: &VlConfig, settings: &ImageSettings) -> Result<()> {
    for (keys, weights, processor) in [
        (
            "patch_size, encoder_patch_size",
            config.vision.patch_size,
            settings.patch_size,
        ),
        (
            "downsample_factor",
            config.projector.factor,
            settings.downsample_factor,
        ),
    ] {
        if weights != processor {
            let detail = format!("{weights} in the weights, {processor} in the image settings");
            return Err(Error::config(keys, detail));
        }
    }
    Ok(())
}

/// Checks that the tokens of pictures have rows in the embedding table and are those of the config.
fn check_tokens(config: &VlConfig, tokens: &ImageTokens) -> Result<()> {
    let vocab = config.text.vocab_size;
    if let Some(id) = tokens.all().into_iter().find(|&id| id as usize >= vocab) {
        let detail = format!("token {id} of pictures is outside the vocabulary of {vocab}");
        return Err(Error::config("vocab_size", detail));
    }
    match config.image_token_id.filter(|&id| id != tokens.image()) {
        Some(id) => Err(Error::config(
            "image_token_id",
            format!("{id} in config.json, {} in the tokenizer", tokens.image()),
        )),
        None => Ok(()),
    }
}
