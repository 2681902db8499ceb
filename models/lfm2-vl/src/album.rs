//! [`Album`]: the pictures of a conversation, as tokens of their own.
//!
//! In the prompt a model was trained on, every place of a picture has the same token. Here each row of
//! each view gets an id of its own, behind the vocabulary: the id says which row it is, so that a cache
//! knows what it was fed. A prompt that begins as the last one did, with the same pictures, is not read
//! again, and a sequence can be cut back to any token of a picture, all with the means that text has. No
//! such id is ever drawn: the model has no logits for them. An image token that is drawn is an ordinary
//! token.

use std::collections::{HashMap, HashSet};
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use candle_core::{Device, Tensor, bail};
use lfm2_hub::{Error, Result};
use lfm2_nn::{Cache, CacheSpec, Decoder, Input, Step, Want};

use crate::model::{VlModel, Watch};
use crate::processor::ImageViews;
use crate::view::{View, ViewKey};

/// The pictures of a conversation. Cloning is cheap, and clones share them; they are gone with the last
/// clone.
///
/// It decodes like the model, for ids of the vocabulary and of its pictures.
#[derive(Debug, Clone)]
pub struct Album {
    model: VlModel,
    pages: Arc<RwLock<Pages>>,
}

#[derive(Debug, Default)]
struct Pages {
    /// Where the rows of a view are.
    views: HashMap<ViewKey, Range<u32>>,
    /// The rows of each view, in the order of their ids.
    rows: Vec<(Range<u32>, Tensor)>,
}

impl Album {
    pub(crate) fn new(model: VlModel) -> Self {
        Self {
            model,
            pages: Arc::default(),
        }
    }

    /// The model.
    pub fn model(&self) -> &VlModel {
        &self.model
    }

    /// How many rows of views there are.
    pub fn rows(&self) -> usize {
        self.pages().len()
    }

    /// The prompt `ids`, which has one image token per picture, with the ids of these pictures in place of
    /// them. Reads the views that the album does not have.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] naming both counts when `ids` has places for more or fewer pictures, or
    /// when the prompt is longer than the context, before anything is read; a failure of the device.
    pub fn prompt(&self, ids: &[u32], pictures: &[&ImageViews]) -> Result<Vec<u32>> {
        let prompt = self.prompt_watched(ids, pictures, &mut |_| ControlFlow::Continue(()))?;
        prompt.ok_or_else(|| Error::InvalidInput("a view was not read".to_owned()))
    }

    /// [`prompt`](Self::prompt) that tells `watch` how far reading is; `None` when that stops it.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt).
    pub fn prompt_watched(
        &self,
        ids: &[u32],
        pictures: &[&ImageViews],
        watch: Watch<'_>,
    ) -> Result<Option<Vec<u32>>> {
        let tokens = self.model.image_tokens();
        let plans: Vec<_> = pictures.iter().map(|picture| picture.plan()).collect();
        let length = tokens.expand(ids, &plans)?.len();
        let context = self.model.config().text.max_position_embeddings;
        if length > context {
            return Err(Error::InvalidInput(format!(
                "the prompt has {length} tokens with its pictures, more than the context of {context}"
            )));
        }
        let views: Vec<View> = pictures
            .iter()
            .flat_map(|picture| picture.views().iter().cloned())
            .collect();
        if !self.add(&views, watch)? {
            return Ok(None);
        }
        let pages = self.pages();
        let prompt = tokens.expand_with(ids, &plans, |picture, view, count| {
            let views = pictures.get(picture).map(|picture| picture.views());
            let key = views.and_then(|views| views.get(view)).map(View::key);
            let ids = key.and_then(|key| pages.views.get(&key)).cloned();
            let ids = ids.filter(|ids| ids.len() == count);
            ids.ok_or_else(|| Error::InvalidInput(format!("view {view} has not {count} rows")))
        })?;
        Ok(Some(prompt))
    }

    /// How many of these views the album has not read yet, equal ones counted once.
    pub fn unread(&self, pictures: &[&ImageViews]) -> usize {
        let pages = self.pages();
        let views = pictures.iter().flat_map(|picture| picture.views());
        let new: HashSet<ViewKey> = views
            .map(View::key)
            .filter(|key| !pages.views.contains_key(key))
            .collect();
        new.len()
    }

    /// The prompt `ids` as people and tokenizers know it: the image token for every row of a picture.
    pub fn spelled(&self, ids: &[u32]) -> Vec<u32> {
        let image = self.model.image_tokens().image();
        let first = self.first_id();
        let spell = |&id: &u32| if id < first { id } else { image };
        ids.iter().map(spell).collect()
    }

    /// Reads the views that the album does not have; false when `watch` stopped it.
    fn add(&self, views: &[View], watch: Watch<'_>) -> Result<bool> {
        let new: Vec<View> = {
            let pages = self.pages();
            let is_new = |view: &&View| !pages.views.contains_key(&view.key());
            views.iter().filter(is_new).cloned().collect()
        };
        // Read without the lock, so that others can write text meanwhile.
        let Some(rows) = self.model.encode_watched(&new, watch)? else {
            return Ok(false);
        };
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        for (view, rows) in new.iter().zip(rows) {
            pages.add(view.key(), rows, self.first_id())?;
        }
        Ok(true)
    }

    fn first_id(&self) -> u32 {
        u32::try_from(self.model.text().vocab_size()).unwrap_or(u32::MAX)
    }

    fn pages(&self) -> RwLockReadGuard<'_, Pages> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The embeddings of ids, `(ids, hidden)`.
    fn embed(&self, ids: &[u32]) -> candle_core::Result<Tensor> {
        let text = self.model.text();
        let first = self.first_id();
        let pages = self.pages();
        let mut parts = Vec::new();
        let mut rest = ids;
        while let Some(&id) = rest.first() {
            let len = if id < first {
                let len = rest.iter().take_while(|&&id| id < first).count();
                parts.push(text.embed_tokens(&Tensor::new(&rest[..len], text.device())?)?);
                len
            } else {
                let (range, rows) = pages.find(id)?;
                let run = (id..range.end)
                    .zip(rest)
                    .take_while(|(a, b)| a == *b)
                    .count();
                parts.push(rows.narrow(0, (id - range.start) as usize, run)?);
                run
            };
            rest = rest.get(len..).unwrap_or_default();
        }
        match &parts[..] {
            [one] => Ok(one.clone()),
            [] => bail!("a prompt needs at least one token"),
            several => Tensor::cat(several, 0),
        }
    }
}

impl Pages {
    fn len(&self) -> usize {
        let (first, last) = (self.rows.first(), self.rows.last());
        first
            .zip(last)
            .map_or(0, |(first, last)| (last.0.end - first.0.start) as usize)
    }

    fn add(&mut self, key: ViewKey, rows: Tensor, first_id: u32) -> Result<()> {
        if self.views.contains_key(&key) {
            return Ok(());
        }
        let start = self.rows.last().map_or(first_id, |(range, _)| range.end);
        let end = u32::try_from(rows.dim(0)?)
            .ok()
            .and_then(|len| start.checked_add(len));
        let Some(end) = end else {
            return Err(Error::Limit {
                what: "rows of pictures".to_owned(),
                limit: u64::from(u32::MAX - first_id),
                found: u64::from(u32::MAX),
            });
        };
        self.views.insert(key, start..end);
        self.rows.push((start..end, rows));
        Ok(())
    }

    /// The view that has the row `id`.
    fn find(&self, id: u32) -> candle_core::Result<&(Range<u32>, Tensor)> {
        let at = self.rows.partition_point(|(range, _)| range.end <= id);
        match self.rows.get(at).filter(|(range, _)| range.contains(&id)) {
            Some(found) => Ok(found),
            None => bail!("id {id} is neither in the vocabulary nor in the album"),
        }
    }
}

impl Decoder for Album {
    fn vocab_size(&self) -> usize {
        self.model.text().vocab_size()
    }

    /// Tokens of the vocabulary, and the rows of the album's pictures.
    fn accepts(&self, id: u32) -> bool {
        let rows = u32::try_from(self.rows()).unwrap_or(u32::MAX);
        id < self.first_id().saturating_add(rows)
    }

    fn device(&self) -> &Device {
        self.model.text().device()
    }

    fn new_cache(&self, spec: CacheSpec) -> Cache {
        self.model.text().new_cache(spec)
    }

    fn forward(
        &self,
        input: Input<'_>,
        step: &Step,
        cache: &mut Cache,
        want: Want,
    ) -> candle_core::Result<Tensor> {
        let text = self.model.text();
        let Input::Ids(tensor) = input else {
            return text.forward(input, step, cache, want);
        };
        let ids: Vec<u32> = tensor.flatten_all()?.to_vec1()?;
        if ids.iter().all(|&id| id < self.first_id()) {
            return text.forward(input, step, cache, want);
        }
        text.forward_embedded(&self.embed(&ids)?, &ids, step, cache, want)
    }

    fn rewind(&self, cache: &mut Cache, row: usize, len: usize) -> candle_core::Result<()> {
        let text = self.model.text();
        text.rewind_embedded(cache, row, len, |ids| self.embed(ids))
    }
}
