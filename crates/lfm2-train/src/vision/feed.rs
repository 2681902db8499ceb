//! [`PictureFeed`]: conversations about pictures, as a model reads them.

use lfm2_generate::{ChatTemplate, Content, Message, Part, Role};
use lfm2_hub::Tokenizer;
use lfm2_vl::{ImagePlan, ImageProcessor, ImageTokens, ImageViews, Picture, View};

use super::options::{ConversationOptions, ShapeData, VisionOptions};
use super::rows::{Row, Rows};
use super::seen::SeenWords;
use crate::data::{self, Document, Encoder};
use crate::mixed::{Feed, MixedBatch, expand};
use crate::objective::ValidationSet;
use crate::rng::Rng;
use crate::shapes::{Question, Scene, Topic};
use crate::{Result, bpe};

/// Where conversations come from.
#[derive(Debug)]
pub(super) enum Source {
    /// They are drawn as a run goes.
    Shapes(ShapeData),
    /// They are in files.
    Rows(Rows),
}

/// The conversations of a run.
#[derive(Debug)]
pub struct PictureFeed {
    source: Source,
    /// Micro-batches of a step, and pictures of a micro-batch.
    sizes: (usize, usize),
    seed: u64,
    reader: PictureReader,
}

/// What turns pictures and conversations into what a model reads.
#[derive(Debug, Clone)]
pub(super) struct PictureReader {
    pub(super) processor: ImageProcessor,
    pub(super) tokens: ImageTokens,
    pub(super) tokenizer: Tokenizer,
    pub(super) template: ChatTemplate,
    /// Set when rows of drawn pictures are told what they show.
    pub(super) seen: Option<SeenWords>,
}

type ViewBatch = MixedBatch<View>;

impl PictureReader {
    /// Appends a conversation and the views of its pictures.
    fn read(
        &self,
        pictures: &[Picture],
        messages: &[Message],
        batch: &mut ViewBatch,
    ) -> Result<Vec<ImageViews>> {
        let views = pictures
            .iter()
            .map(|picture| self.processor.process(picture));
        let views: Vec<ImageViews> = views.collect::<lfm2_hub::Result<_>>()?;
        let encoder = Encoder {
            tokenizer: &self.tokenizer,
            template: &self.template,
            eos: bpe::EOS,
            max_tokens: usize::MAX,
        };
        let document = data::answers(messages, &encoder)?;
        let image = self.tokens.image();
        let run = |plan: &ImagePlan| self.tokens.expand(&[image], &[plan]);
        let runs = views.iter().map(|views| run(views.plan()));
        let runs = runs.collect::<lfm2_hub::Result<Vec<_>>>()?;
        let document: Document = expand(&document, image, &runs)?;
        batch.push(&document, views.iter().flat_map(|v| v.views().to_vec()));
        Ok(views)
    }

    /// Appends a scene and what is said about it.
    fn read_scene(
        &self,
        scene: &Scene,
        questions: &[Question],
        batch: &mut ViewBatch,
    ) -> Result<()> {
        self.read(&[scene.draw()?], &messages(questions), batch)?;
        Ok(())
    }

    /// The same, with what the rows of the picture show.
    fn read_scene_with_hints(
        &self,
        scene: &Scene,
        questions: &[Question],
        batch: &mut ViewBatch,
    ) -> Result<()> {
        let start = batch.documents().tokens();
        let views = self.read(&[scene.draw()?], &messages(questions), batch)?;
        let (Some(seen), [views]) = (&self.seen, views.as_slice()) else {
            return Ok(());
        };
        let image = self.tokens.image();
        let ids = (0u32..).zip(batch.documents().token_ids()).skip(start);
        let places: Vec<u32> = ids
            .filter(|(_, id)| **id == image)
            .map(|(i, _)| i)
            .collect();
        seen.hint((scene, views), &self.processor, &places, batch);
        Ok(())
    }

    /// Appends a row of a file.
    fn read_row(&self, rows: &Rows, row: &Row, batch: &mut ViewBatch) -> Result<()> {
        let pictures = rows.pictures(row)?;
        let read = self.read(&pictures, &row.messages, batch);
        read.map(drop).map_err(|e| rows.error(row, e.to_string()))
    }
}

/// The picture before the first question, as models are trained on it.
pub(crate) fn asking(text: &str) -> Message {
    let parts = vec![Part::image(), Part::text(text)];
    Message::new(Role::User, Content::Parts(parts))
}

fn messages(questions: &[Question]) -> Vec<Message> {
    let mut messages = Vec::with_capacity(2 * questions.len());
    for question in questions {
        messages.push(match messages.is_empty() {
            true => asking(&question.text),
            false => Message::user(question.text.as_str()),
        });
        messages.push(Message::assistant(question.answer.as_str()));
    }
    messages
}

impl PictureFeed {
    pub(super) fn new(options: &VisionOptions, source: Source, reader: PictureReader) -> Self {
        Self {
            source,
            sizes: (options.micro_batches, options.micro_batch_pictures),
            seed: options.seed,
            reader,
        }
    }

    /// What a run is measured on: by topic one question about each of `pictures` scenes, or the rows that
    /// are kept out.
    pub(super) fn validation(&self, pictures: usize) -> Result<Vec<ValidationSet<ViewBatch>>> {
        match &self.source {
            Source::Shapes(data) => self.questions(data, pictures),
            Source::Rows(rows) => {
                let batches = rows.kept_out().chunks(self.sizes.1).map(|chunk| {
                    let mut batch = MixedBatch::default();
                    let mut rows = chunk.iter().map(|row| (rows, row));
                    rows.try_for_each(|(rows, row)| self.reader.read_row(rows, row, &mut batch))?;
                    Ok(batch)
                });
                Ok(vec![(rows.name(), batches.collect::<Result<_>>()?)])
            }
        }
    }

    fn questions(
        &self,
        data: &ShapeData,
        pictures: usize,
    ) -> Result<Vec<ValidationSet<ViewBatch>>> {
        let mut rng = Rng::labelled(self.seed, "validation");
        let scenes = (0..pictures).map(|_| Scene::random(&data.scenes, &mut rng));
        let scenes: Vec<Scene> = scenes.collect();
        let mut sets = Vec::new();
        for topic in Topic::ALL {
            let asked = scenes.iter().filter_map(|scene| {
                let question = scene.ask(topic, &mut rng)?;
                Some((scene, [question]))
            });
            let asked: Vec<(&Scene, [Question; 1])> = asked.collect();
            let batches = asked.chunks(self.sizes.1).map(|chunk| {
                let mut batch = MixedBatch::default();
                for (scene, questions) in chunk {
                    self.reader.read_scene(scene, questions, &mut batch)?;
                }
                Ok(batch)
            });
            let batches = batches.collect::<Result<Vec<_>>>()?;
            if !batches.is_empty() {
                sets.push((topic.name().to_string(), batches));
            }
        }
        Ok(sets)
    }

    /// Batch `number` of step `step`.
    fn batch(&self, step: u64, number: usize) -> Result<ViewBatch> {
        let (batches, pictures) = self.sizes;
        let mut batch = MixedBatch::default();
        match &self.source {
            Source::Shapes(data) => {
                let label = format!("step {step} batch {number}");
                let mut rng = Rng::labelled(self.seed, &label);
                for _ in 0..pictures {
                    let scene = Scene::random(&data.scenes, &mut rng);
                    let questions = conversation(&scene, &data.conversations, &mut rng);
                    self.reader
                        .read_scene_with_hints(&scene, &questions, &mut batch)?;
                }
            }
            Source::Rows(rows) => {
                let before =
                    (step.saturating_sub(1) * batches as u64 + number as u64) * pictures as u64;
                for row in rows.stream(before, pictures) {
                    self.reader.read_row(rows, row, &mut batch)?;
                }
            }
        }
        Ok(batch)
    }
}

impl Feed for PictureFeed {
    type Piece = View;

    fn step(&self, step: u64) -> Result<Vec<ViewBatch>> {
        (0..self.sizes.0)
            .map(|number| self.batch(step, number))
            .collect()
    }
}

/// What is said about a scene. A description comes last, since questions behind it could be answered
/// from it without a look at the picture.
pub(crate) fn conversation(
    scene: &Scene,
    options: &ConversationOptions,
    rng: &mut Rng,
) -> Vec<Question> {
    let [least, most] = options.questions;
    let is_described = rng.uniform() < options.captions;
    let least = if is_described { least - 1 } else { least };
    let count = least + rng.below(most - least + 1);
    let shares = options.topics.all();
    let total: f64 = shares.iter().map(|(_, share)| share).sum();
    let mut questions: Vec<Question> = Vec::with_capacity(count + 1);
    while questions.len() < count {
        let mut rest = rng.uniform() * total;
        let topic = shares.iter().find(|(_, share)| {
            rest -= share;
            rest < 0.0
        });
        // A scene may have no question of this topic, but how many there are can always be asked.
        let topic = topic.map_or(Topic::Count, |(topic, _)| *topic);
        let question = scene
            .ask(topic, rng)
            .or_else(|| scene.ask(Topic::Count, rng));
        match question {
            Some(question) if questions.iter().all(|q| q.text != question.text) => {
                questions.push(question);
            }
            // The same again would be answered from before.
            Some(_) if !questions.is_empty() => break,
            _ => {}
        }
    }
    if is_described {
        questions.extend(scene.ask(Topic::Caption, rng));
    }
    questions
}
