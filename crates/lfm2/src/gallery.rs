//! [`Gallery`]: the pictures of a conversation by their names, and their way into its prompts.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::Result;
use crate::generate::{
    Content, Error as GenerateError, Media, Message, Part, PartKind, Result as GenerateResult,
};
use crate::vl::{Album, Budget, ImageViews, Picture, ReadProgress, Size, ViewKey};

type OnRead = Box<dyn FnMut(ReadProgress) -> ControlFlow<()> + Send>;

/// The pictures of a conversation. Cloning is cheap, and clones share them.
///
/// Pictures are added before they are shown: what comes back are parts for a message, which name them.
/// They are read when an answer first needs them.
#[derive(Clone)]
pub struct Gallery {
    album: Album,
    shown: Arc<RwLock<HashMap<String, ImageViews>>>,
    on_read: Arc<Mutex<Option<OnRead>>>,
}

impl fmt::Debug for Gallery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gallery")
            .field("pictures", &self.names())
            .field("album", &self.album)
            .finish_non_exhaustive()
    }
}

impl Gallery {
    pub(crate) fn new(album: Album) -> Self {
        Self {
            album,
            shown: Arc::default(),
            on_read: Arc::default(),
        }
    }

    /// The rows of the pictures, and the decoder of prompts with them.
    pub fn album(&self) -> &Album {
        &self.album
    }

    /// Adds pictures that take no more than `budget` together, and returns a part for each. A name that
    /// another picture has gets a number behind it.
    ///
    /// # Errors
    /// When the budget is too small for so many pictures.
    pub fn add(&self, named: &[(&str, &Picture)], budget: Option<&Budget>) -> Result<Vec<Part>> {
        let processor = self.album.model().processor();
        let sizes: Vec<Size> = named.iter().map(|(_, picture)| picture.size()).collect();
        let plans = match budget {
            Some(budget) => processor.plan_within(&sizes, budget)?,
            None => sizes.iter().map(|&size| processor.plan(size)).collect(),
        };
        let mut parts = Vec::with_capacity(named.len());
        for ((name, picture), plan) in named.iter().zip(plans) {
            let views = processor.process_as(picture, plan)?;
            parts.push(Part::picture(self.keep(name, views)));
        }
        Ok(parts)
    }

    /// The views of the picture called `name`.
    pub fn views(&self, name: &str) -> Option<ImageViews> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        shown.get(name).cloned()
    }

    /// The names of all pictures, sorted.
    pub fn names(&self) -> Vec<String> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<String> = shown.keys().cloned().collect();
        names.sort();
        names
    }

    /// Tells `watch` how far pictures are read, whenever they are; what it returns can stop that, and
    /// the answer fails with [`Error::Cancelled`](GenerateError::Cancelled).
    pub fn on_read(&self, watch: impl FnMut(ReadProgress) -> ControlFlow<()> + Send + 'static) {
        *self.on_read.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(watch));
    }

    /// Keeps views under a name that no others have, and returns it.
    fn keep(&self, wanted: &str, views: ImageViews) -> String {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        let looks = |views: &ImageViews| -> Vec<ViewKey> {
            views.views().iter().map(|view| view.key()).collect()
        };
        let mut name = wanted.to_owned();
        let mut number = 1;
        while shown
            .get(&name)
            .is_some_and(|other| looks(other) != looks(&views))
        {
            number += 1;
            name = format!("{wanted} {number}");
        }
        shown.insert(name.clone(), views);
        name
    }

    /// The views that messages show, in order.
    fn shown_by(&self, messages: &[Message]) -> GenerateResult<Vec<ImageViews>> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            let Some(Content::Parts(parts)) = &message.content else {
                continue;
            };
            for (at, part) in parts.iter().enumerate() {
                let place = format!("messages[{index}].content[{at}]");
                match part.kind() {
                    PartKind::Image => {}
                    PartKind::Audio => {
                        return Err(GenerateError::Unsupported {
                            what: format!("{place}: a part of type {:?}", part.type_name()),
                            hint: "this model reads text and pictures".to_owned(),
                        });
                    }
                    _ => continue,
                }
                let name = part.picture_name().unwrap_or_default();
                let views = shown.get(name).ok_or_else(|| {
                    GenerateError::InvalidInput(format!(
                        "{place}: no picture called {name:?} was added"
                    ))
                })?;
                found.push(views.clone());
            }
        }
        Ok(found)
    }
}

impl Media for Gallery {
    fn fill(&self, ids: &[u32], messages: &[Message]) -> GenerateResult<Vec<u32>> {
        let shown = self.shown_by(messages)?;
        let pictures: Vec<&ImageViews> = shown.iter().collect();
        let mut on_read = self.on_read.lock().unwrap_or_else(PoisonError::into_inner);
        let mut watch = |progress| match on_read.as_mut() {
            Some(watch) => watch(progress),
            None => ControlFlow::Continue(()),
        };
        let prompt = self.album.prompt_watched(ids, &pictures, &mut watch)?;
        prompt.ok_or(GenerateError::Cancelled)
    }
}
