//! [`ImageTokens`]: the tokens that stand for pictures, and prompts with them.
//!
//! Works on ids, not on text: a chat template writes one image token per picture, and whatever a user
//! types was encoded without special tokens before, so words that look like markers stay words.

use std::collections::HashMap;

use lfm2_hub::{Error, Result, Tokenizer};

use crate::plan::{ImagePlan, ViewKind};
use crate::settings::ImageSettings;

const IMAGE: &str = "<image>";
const START: &str = "<|image_start|>";
const END: &str = "<|image_end|>";
const THUMBNAIL: &str = "<|img_thumbnail|>";

/// A part of what a picture becomes in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunPart {
    /// One token that says where in the picture the next view is.
    Marker(u32),
    /// The tokens of one view.
    View {
        /// Which view of the plan.
        index: usize,
        /// How many tokens it has.
        tokens: usize,
    },
}

/// The ids of the tokens that stand for pictures, as a tokenizer has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageTokens {
    image: u32,
    /// None where no markers are used.
    markers: Option<Markers>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Markers {
    start: u32,
    end: u32,
    thumbnail: Option<u32>,
    /// By row and column, from 1.
    tiles: HashMap<(usize, usize), u32>,
}

impl ImageTokens {
    /// Looks up the tokens that `settings` need.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] naming the token that the vocabulary lacks.
    pub fn new(tokenizer: &Tokenizer, settings: &ImageSettings) -> Result<Self> {
        let id = |token: &str| {
            tokenizer.id_of(token).ok_or_else(|| {
                Error::config("tokenizer.json", format!("no token {token} for pictures"))
            })
        };
        let image = id(IMAGE)?;
        if !settings.use_image_special_tokens {
            return Ok(Self {
                image,
                markers: None,
            });
        }
        let most = settings.max_tiles;
        let places = (1..=most).flat_map(|row| (1..=most / row).map(move |col| (row, col)));
        let tiles = match settings.do_image_splitting {
            true => places
                .map(|(row, col)| Ok(((row, col), id(&format!("<|img_row_{row}_col_{col}|>"))?)))
                .collect::<Result<_>>()?,
            false => HashMap::new(),
        };
        let thumbnail = match settings.do_image_splitting && settings.use_thumbnail {
            true => Some(id(THUMBNAIL)?),
            false => None,
        };
        Ok(Self {
            image,
            markers: Some(Markers {
                start: id(START)?,
                end: id(END)?,
                thumbnail,
                tiles,
            }),
        })
    }

    /// The token that a template writes for a picture, and that each of its places has.
    pub fn image(&self) -> u32 {
        self.image
    }

    /// Every token that no text should have: the image token and the markers.
    pub fn all(&self) -> Vec<u32> {
        let mut ids = vec![self.image];
        if let Some(markers) = &self.markers {
            ids.extend([markers.start, markers.end]);
            ids.extend(markers.thumbnail);
            ids.extend(markers.tiles.values());
        }
        ids.sort_unstable();
        ids
    }

    /// What a picture with this plan becomes, in order.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the plan was made with other settings and needs a marker that was
    /// not looked up.
    pub fn run(&self, plan: &ImagePlan) -> Result<Vec<RunPart>> {
        let mut parts = Vec::new();
        let markers = self.markers.as_ref().filter(|_| plan.markers);
        parts.extend(markers.map(|m| RunPart::Marker(m.start)));
        for (index, view) in plan.views().into_iter().enumerate() {
            if let Some(markers) = markers {
                let marker = match view.kind {
                    ViewKind::Whole => None,
                    ViewKind::Thumbnail => Some(markers.thumbnail),
                    ViewKind::Tile { row, col } => {
                        Some(markers.tiles.get(&(row + 1, col + 1)).copied())
                    }
                };
                if let Some(marker) = marker {
                    let marker = marker.ok_or_else(|| {
                        Error::InvalidInput(format!("no marker for the {}", view.kind))
                    })?;
                    parts.push(RunPart::Marker(marker));
                }
            }
            parts.push(RunPart::View {
                index,
                tokens: view.tokens,
            });
        }
        parts.extend(markers.map(|m| RunPart::Marker(m.end)));
        Ok(parts)
    }

    /// The prompt `ids` with every image token replaced by what its picture becomes; `view` gives the
    /// ids of view `index` of picture `picture`.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] naming both counts when `ids` has places for more or fewer pictures, or
    /// as [`run`](Self::run); whatever `view` gives.
    pub fn expand_with<I: IntoIterator<Item = u32>>(
        &self,
        ids: &[u32],
        plans: &[&ImagePlan],
        mut view: impl FnMut(usize, usize, usize) -> Result<I>,
    ) -> Result<Vec<u32>> {
        let places = ids.iter().filter(|&&id| id == self.image).count();
        if places != plans.len() {
            return Err(Error::InvalidInput(format!(
                "the prompt has places for {places} pictures, found {} pictures",
                plans.len()
            )));
        }
        let mut plans = plans.iter().enumerate();
        let mut expanded = Vec::with_capacity(ids.len());
        for &id in ids {
            let Some((picture, plan)) = (id == self.image).then(|| plans.next()).flatten() else {
                expanded.push(id);
                continue;
            };
            for part in self.run(plan)? {
                match part {
                    RunPart::Marker(id) => expanded.push(id),
                    RunPart::View { index, tokens } => {
                        expanded.extend(view(picture, index, tokens)?);
                    }
                }
            }
        }
        Ok(expanded)
    }

    /// The prompt `ids` as the model was trained on it: one image token per place of each picture.
    ///
    /// # Errors
    /// As [`expand_with`](Self::expand_with).
    pub fn expand(&self, ids: &[u32], plans: &[&ImagePlan]) -> Result<Vec<u32>> {
        self.expand_with(ids, plans, |_, _, tokens| {
            Ok(std::iter::repeat_n(self.image, tokens))
        })
    }
}
