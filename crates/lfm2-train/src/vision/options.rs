//! What a vision run is: [`VisionOptions`], the contents of its configuration file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::file::read_json;
use crate::optim::AdamWOptions;
use crate::options::{Card, ExportDtype, NonFinitePolicy};
use crate::run_loop::Pace;
use crate::schedule::Schedule;
use crate::shapes::{SceneOptions, Topic};
use crate::variables::Init;
use crate::{Error, Result};

/// Says in a configuration file that it is one of a vision run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VisionTag {
    /// `"objective": "vision"`.
    Vision,
}

/// What training starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum VisionBase {
    /// New weights, and a tokenizer trained on the run's own words.
    Fresh {
        /// The model's `config.json`. Vocabulary size and special ids are filled in from the tokenizer.
        config: Value,
        /// How pictures become views: the keys of `image_processor` in `processor_config.json`.
        processor: Value,
        /// The most tokens the tokenizer may have, those of pictures included.
        vocab_size: usize,
        /// How initial weights are drawn.
        #[serde(default)]
        init: Init,
    },
    /// A checkpoint folder: its weights, configs, tokenizer and template.
    Checkpoint(PathBuf),
}

/// How often each topic is asked about, relative to the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TopicShares {
    /// [`Topic::Colour`].
    pub colour: f64,
    /// [`Topic::Kind`].
    pub kind: f64,
    /// [`Topic::Count`].
    pub count: f64,
    /// [`Topic::Size`].
    pub size: f64,
    /// [`Topic::Place`].
    pub place: f64,
    /// [`Topic::Background`].
    pub background: f64,
    /// [`Topic::Presence`].
    pub presence: f64,
    /// [`Topic::Box`].
    #[serde(rename = "box")]
    pub boxes: f64,
}

impl Default for TopicShares {
    fn default() -> Self {
        Self {
            colour: 1.0,
            kind: 1.0,
            count: 1.0,
            size: 0.5,
            place: 0.5,
            background: 0.2,
            presence: 0.5,
            boxes: 0.3,
        }
    }
}

impl TopicShares {
    /// Every topic that is asked about among others, with its share.
    pub(crate) fn all(&self) -> [(Topic, f64); 8] {
        [
            (Topic::Colour, self.colour),
            (Topic::Kind, self.kind),
            (Topic::Count, self.count),
            (Topic::Size, self.size),
            (Topic::Place, self.place),
            (Topic::Background, self.background),
            (Topic::Presence, self.presence),
            (Topic::Box, self.boxes),
        ]
    }

    fn validate(&self) -> Result<()> {
        let all = self.all();
        if let Some((topic, share)) = all.iter().find(|(_, s)| !(s.is_finite() && *s >= 0.0)) {
            let detail = format!("expected a number of at least 0, found {share}");
            return Err(Error::option(format!("topics.{}", topic.name()), detail));
        }
        match all.iter().any(|(_, share)| *share > 0.0) {
            true => Ok(()),
            false => Err(Error::option(
                "topics",
                "expected a share above 0, found none",
            )),
        }
    }
}

/// What is said about one picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConversationOptions {
    /// The least and the most questions.
    pub questions: [usize; 2],
    /// Share of conversations that end with a description. Before it there may be no question.
    pub captions: f64,
    /// Which questions.
    pub topics: TopicShares,
}

impl Default for ConversationOptions {
    fn default() -> Self {
        Self {
            questions: [1, 3],
            captions: 0.5,
            topics: TopicShares::default(),
        }
    }
}

impl ConversationOptions {
    fn validate(&self) -> Result<()> {
        let [least, most] = self.questions;
        if least == 0 || most < least {
            let detail =
                format!("expected two numbers from 1, the smaller first, found {least} and {most}");
            return Err(Error::option("questions", detail));
        }
        if !(0.0..=1.0).contains(&self.captions) {
            let detail = format!("expected a number from 0 to 1, found {}", self.captions);
            return Err(Error::option("captions", detail));
        }
        self.topics.validate()
    }
}

/// Pictures of shapes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShapeData {
    /// What is on them.
    pub scenes: SceneOptions,
    /// What is said about them.
    pub conversations: ConversationOptions,
}

/// Conversations about picture files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowData {
    /// JSON lines of `{"messages": [..]}`, plain or gzip; relative paths start at the folder of the run's
    /// configuration. Content is a list of `{"type": "image", "image": FILE}` and
    /// `{"type": "text", "text": ..}`; pictures without a file take theirs from a field `images`. Files
    /// are sought from the folder of the rows.
    pub path: PathBuf,
}

/// What a run learns from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PictureData {
    /// Pictures that are drawn as the run goes.
    Shapes(ShapeData),
    /// Pictures from files.
    Rows(RowData),
}

/// How fast the parts of a model learn, relative to the schedule; a part at 0 stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PartRates {
    /// The vision tower.
    pub tower: f64,
    /// What joins tower and text model.
    pub projector: f64,
    /// The text model.
    pub text: f64,
}

impl Default for PartRates {
    fn default() -> Self {
        Self {
            tower: 1.0,
            projector: 1.0,
            text: 1.0,
        }
    }
}

impl PartRates {
    /// The rate of the tensor called `name`.
    pub(crate) fn of(&self, name: &str) -> f64 {
        if name.contains("vision_tower") {
            self.tower
        } else if name.contains("multi_modal_projector") {
            self.projector
        } else {
            self.text
        }
    }

    fn validate(&self) -> Result<()> {
        let rates = [
            ("rates.tower", self.tower),
            ("rates.projector", self.projector),
            ("rates.text", self.text),
        ];
        match rates.iter().find(|(_, r)| !(r.is_finite() && *r >= 0.0)) {
            Some((key, rate)) => {
                let detail = format!("expected a number of at least 0, found {rate}");
                Err(Error::option(*key, detail))
            }
            None => Ok(()),
        }
    }
}

/// All settings of a vision run. Two runs with equal options give equal weights, whatever the number of
/// threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct VisionOptions {
    /// The kind of run.
    pub objective: VisionTag,
    /// The model's name in its card.
    pub name: String,
    /// What training starts from.
    pub base: VisionBase,
    /// What it learns from.
    pub data: PictureData,
    /// How fast each part learns.
    #[serde(default)]
    pub rates: PartRates,
    /// Beside answers, the rows of drawn pictures are told which word is for what they show, and this is what a
    /// row counts beside a token of an answer; 0 leaves it out. See [`Hints`](crate::Hints).
    #[serde(default)]
    pub hints: f64,
    /// Keys of `image_processor` that are different while this run learns, such as smaller views for a first run
    /// that is quicker; the model keeps its own.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub views: Value,
    /// Pictures of shapes it is measured on, with one question of every topic each; or rows that are kept
    /// out of training.
    #[serde(default = "validation_pictures")]
    pub validation_pictures: usize,
    /// Pictures of shapes, or rows, in a micro-batch.
    pub micro_batch_pictures: usize,
    /// Micro-batches whose gradients make one step; they run in parallel.
    pub micro_batches: usize,
    /// Optimiser steps.
    pub steps: u64,
    /// The learning rate.
    pub schedule: Schedule,
    /// The optimiser.
    #[serde(default)]
    pub optimizer: AdamWOptions,
    /// The largest norm of a gradient; larger ones are scaled down.
    #[serde(default)]
    pub clip: Option<f64>,
    /// What happens when a number is not finite.
    #[serde(default)]
    pub non_finite: NonFinitePolicy,
    /// Steps between validations; there is one at the end in any case.
    pub validate_every: u64,
    /// Steps between saved states; there is one at the end in any case.
    pub save_every: u64,
    /// Fixes initial weights and pictures.
    pub seed: u64,
    /// Number type of the exported weights.
    #[serde(default)]
    pub export_dtype: ExportDtype,
    /// Text for the model card.
    #[serde(default)]
    pub card: Card,
}

fn validation_pictures() -> usize {
    64
}

impl VisionOptions {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::RunFolder`] when it is not the JSON expected, and as
    /// [`validate`](Self::validate).
    pub fn read(path: &Path) -> Result<Self> {
        let options: Self = read_json(path)?;
        options.validate()?;
        Ok(options)
    }

    /// Checks what can be checked without the model.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] naming the key.
    pub fn validate(&self) -> Result<()> {
        let counts = [
            ("micro_batch_pictures", self.micro_batch_pictures),
            ("micro_batches", self.micro_batches),
            ("validation_pictures", self.validation_pictures),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Error::option(*key, "expected at least 1, found 0"));
        }
        if !(self.hints.is_finite() && self.hints >= 0.0) {
            let detail = format!("expected a number of at least 0, found {}", self.hints);
            return Err(Error::option("hints", detail));
        }
        if self.hints > 0.0 && matches!(self.data, PictureData::Rows(_)) {
            let detail =
                "of picture files nobody knows what is where; expected 0, or data of shapes";
            return Err(Error::option("hints", detail));
        }
        if let PictureData::Shapes(shapes) = &self.data {
            shapes.scenes.validate()?;
            shapes.conversations.validate()?;
        }
        self.rates.validate()?;
        self.pace().validate()
    }

    /// The settings of the loop.
    pub(crate) fn pace(&self) -> Pace {
        Pace {
            name: self.name.clone(),
            steps: self.steps,
            schedule: self.schedule,
            optimizer: self.optimizer,
            clip: self.clip,
            non_finite: self.non_finite,
            validate_every: self.validate_every,
            save_every: self.save_every,
        }
    }
}
