//! Asking a model about pictures that it has not seen.

use std::collections::BTreeMap;

use lfm2_generate::{Cancel, ChatPrompt, ChatTemplate, RenderOptions};
use lfm2_hub::{Checkpoint, Specials};
use lfm2_text::LoadOptions;
use lfm2_vl::{ImageViews, VlModel};
use serde::Serialize;
use serde_json::Value;

use super::scene::{Scene, SceneOptions};
use super::words::{Question, Topic};
use crate::eval::{RowLog, greedy};
use crate::rng::Rng;
use crate::vision::asking;
use crate::{Error, Result};

/// Boxes count as right from this share of overlap on.
const OVERLAP: f64 = 0.5;

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Exam {
    /// Pictures; each is asked about in every topic that it has a question of.
    pub pictures: usize,
    /// Fixes the pictures and the questions. No seed gives those of a training run.
    pub seed: u64,
    /// What the pictures are like.
    pub scenes: SceneOptions,
    /// Tokens an answer may have.
    pub max_new_tokens: usize,
    /// Questions that are answered together.
    pub batch: usize,
}

impl Default for Exam {
    fn default() -> Self {
        Self {
            pictures: 500,
            seed: 0,
            scenes: SceneOptions::default(),
            max_new_tokens: 128,
            batch: 32,
        }
    }
}

/// A question and what the model said.
#[derive(Debug)]
#[non_exhaustive]
pub struct ExamAnswer<'a> {
    /// Which picture, from 0.
    pub picture: usize,
    /// What is on it.
    pub scene: &'a Scene,
    /// What was asked.
    pub question: &'a Question,
    /// What the model said.
    pub output: &'a str,
    /// Whether it is right: word for word, or for boxes an overlap of a half each.
    pub right: bool,
}

/// How the questions of one topic were answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TopicScore {
    /// Questions.
    pub questions: usize,
    /// Right answers.
    pub right: usize,
    /// Their share.
    pub accuracy: f64,
    /// For boxes the mean overlap: what both rectangles share, divided by what they cover together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_overlap: Option<f64>,
}

/// How an exam went.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ExamReport {
    /// Pictures.
    pub pictures: usize,
    /// The seed.
    pub seed: u64,
    /// By topic.
    pub topics: BTreeMap<Topic, TopicScore>,
}

/// A model that can be asked.
#[derive(Debug)]
pub struct Examinee {
    model: VlModel,
    template: ChatTemplate,
}

impl Examinee {
    /// A model with the template that its questions are put in.
    pub fn new(model: VlModel, template: ChatTemplate) -> Self {
        Self { model, template }
    }

    /// The model of an opened checkpoint.
    ///
    /// # Errors
    /// When it is no vision-language model, or has no chat template.
    pub fn from_checkpoint(checkpoint: &Checkpoint, load: LoadOptions) -> Result<Self> {
        let model = VlModel::from_checkpoint(checkpoint, &load.into())?;
        let Some(template) = checkpoint.chat_template()? else {
            let detail = "the checkpoint has none to ask questions with";
            return Err(Error::option("chat_template", detail));
        };
        Ok(Self::new(model, ChatTemplate::new(&template)?))
    }

    /// Asks about `exam.pictures` pictures, each question on its own, and takes the likeliest answer.
    /// Answers are kept in `log`, and those that are there already are not asked for again. `answered` is
    /// told of every answer.
    ///
    /// # Errors
    /// [`Error::Cancelled`] with the number of answered questions; [`Error::InvalidOption`]; errors of
    /// template, tokenizer, model and log.
    pub fn examine(
        &self,
        exam: &Exam,
        (log, cancel): (&mut RowLog<String>, &Cancel),
        mut answered: impl FnMut(&ExamAnswer<'_>),
    ) -> Result<ExamReport> {
        exam.scenes.validate()?;
        if exam.pictures == 0 || exam.batch == 0 {
            let detail = "expected at least one picture and a batch of at least 1, found 0";
            return Err(Error::option("exam", detail));
        }
        let mut rng = Rng::labelled(exam.seed, "exam");
        let mut topics: BTreeMap<Topic, TopicScore> = BTreeMap::new();
        let mut done = 0;
        let pictures: Vec<usize> = (0..exam.pictures).collect();
        for pictures in pictures.chunks((exam.batch / Topic::ALL.len()).max(1)) {
            let sheets = pictures.iter().map(|picture| {
                let scene = Scene::random(&exam.scenes, &mut rng);
                let asked = Topic::ALL.into_iter();
                let questions = asked
                    .filter_map(|topic| scene.ask(topic, &mut rng))
                    .collect();
                Sheet {
                    picture: *picture,
                    scene,
                    questions,
                }
            });
            let sheets: Vec<Sheet> = sheets.collect();
            let count: usize = sheets.iter().map(|sheet| sheet.questions.len()).sum();
            let there = log.rows().len().saturating_sub(done);
            if there < count {
                if cancel.is_cancelled() {
                    let step = log.rows().len() as u64;
                    return Err(Error::Cancelled { step });
                }
                for output in self.answers(exam, &sheets)?.into_iter().skip(there) {
                    log.push(output)?;
                }
            }
            let outputs = log.rows().get(done..).unwrap_or_default();
            done += count;
            let questions = sheets.iter().flat_map(Sheet::questions);
            for ((sheet, question), output) in questions.zip(outputs) {
                let score = topics.entry(question.topic).or_default();
                answered(&ExamAnswer {
                    picture: sheet.picture,
                    scene: &sheet.scene,
                    question,
                    output,
                    right: score.count(question, output),
                });
            }
        }
        topics.values_mut().for_each(TopicScore::finish);
        Ok(ExamReport {
            pictures: exam.pictures,
            seed: exam.seed,
            topics,
        })
    }

    /// What the model says to every question of every sheet.
    fn answers(&self, exam: &Exam, sheets: &[Sheet]) -> Result<Vec<String>> {
        let (album, tokenizer) = (self.model.album(), self.model.tokenizer());
        let options = RenderOptions::default();
        let mut prompts = Vec::new();
        for sheet in sheets {
            let views: ImageViews = self.model.processor().process(&sheet.scene.draw()?)?;
            for question in &sheet.questions {
                let messages = [asking(&question.text)];
                let prompt = ChatPrompt::new(tokenizer, &self.template, &messages, &[], &options)?;
                prompts.push(album.prompt(prompt.ids(), &[&views])?);
            }
        }
        let stop_ids = &self.model.config().text.eos_token_ids;
        let answers = greedy(&album, &prompts, stop_ids, exam.max_new_tokens)?;
        let text = |ids: &Vec<u32>| Ok(tokenizer.decode(ids, Specials::Skip)?);
        answers.iter().map(text).collect()
    }
}

/// The questions on one picture.
struct Sheet {
    picture: usize,
    scene: Scene,
    questions: Vec<Question>,
}

impl Sheet {
    fn questions(&self) -> impl Iterator<Item = (&Self, &Question)> {
        self.questions.iter().map(move |question| (self, question))
    }
}

impl TopicScore {
    /// Counts an answer, and says whether it is right.
    fn count(&mut self, question: &Question, output: &str) -> bool {
        let right = match question.topic {
            Topic::Box => {
                let overlaps = overlaps(&question.answer, output);
                // Nothing to find, and nothing found.
                let mean = match overlaps.len() {
                    0 => f64::from(u8::from(output == question.answer)),
                    count => overlaps.iter().sum::<f64>() / count as f64,
                };
                *self.mean_overlap.get_or_insert_default() += mean;
                mean > 0.0 && overlaps.iter().all(|overlap| *overlap >= OVERLAP)
            }
            _ => output == question.answer,
        };
        self.questions += 1;
        self.right += usize::from(right);
        right
    }

    /// Makes means of sums.
    fn finish(&mut self) {
        let questions = self.questions as f64;
        self.accuracy = self.right as f64 / questions;
        self.mean_overlap = self.mean_overlap.map(|sum| sum / questions);
    }
}

/// The overlaps of the boxes of two answers, in order; 0 for one that the other lacks.
fn overlaps(expected: &str, found: &str) -> Vec<f64> {
    let boxes = |text: &str| -> Vec<Option<[f64; 4]>> {
        let list = serde_json::from_str::<Vec<Value>>(text).unwrap_or_default();
        list.iter().map(sides).collect()
    };
    let (expected, found) = (boxes(expected), boxes(found));
    let count = expected.len().max(found.len());
    let at = |boxes: &[Option<[f64; 4]>], i: usize| boxes.get(i).copied().flatten();
    let pairs = (0..count).map(|i| at(&expected, i).zip(at(&found, i)));
    pairs
        .map(|pair| pair.map_or(0.0, |(a, b)| overlap(a, b)))
        .collect()
}

/// Left, top, right and bottom.
fn sides(json: &Value) -> Option<[f64; 4]> {
    let sides = json.get("bbox_2d")?.as_array()?.iter().map(Value::as_f64);
    sides.collect::<Option<Vec<f64>>>()?.try_into().ok()
}

/// What two boxes share, as a part of what they cover together.
fn overlap(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area =
        |[left, top, right, bottom]: [f64; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let shared = area([
        a[0].max(b[0]),
        a[1].max(b[1]),
        a[2].min(b[2]),
        a[3].min(b[3]),
    ]);
    let covered = area(a) + area(b) - shared;
    if covered > 0.0 { shared / covered } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_overlap_by_what_they_share_of_what_they_cover() {
        let text = |boxes: &[&str]| {
            let one = |sides: &&str| format!("{{\"bbox_2d\": [{sides}], \"label\": \"x\"}}");
            format!("[{}]", boxes.iter().map(one).collect::<Vec<_>>().join(", "))
        };
        let whole = text(&["0, 0, 100, 100"]);
        assert_eq!(overlaps(&whole, &whole), [1.0]);
        assert_eq!(overlaps(&whole, &text(&["0, 0, 100, 50"])), [0.5]);
        assert_eq!(overlaps(&whole, &text(&["200, 0, 300, 100"])), [0.0]);
        let two = text(&["0, 0, 100, 100", "5, 5, 9, 9"]);
        assert_eq!(overlaps(&whole, &two), [1.0, 0.0]);
        assert_eq!(overlaps(&two, &whole), [1.0, 0.0]);
        for broken in [
            "",
            "red",
            "[{\"bbox_2d\": [1, 2]}]",
            "[]",
            "[{\"bbox_2d\": 1}]",
        ] {
            assert_eq!(overlaps(&whole, broken), [0.0], "{broken}");
        }
        assert!(overlaps("[]", "[]").is_empty());
    }

    #[test]
    fn an_answer_is_right_word_for_word_or_box_for_box() {
        let question = |topic, answer: &str| Question {
            topic,
            text: String::new(),
            answer: answer.into(),
        };
        let mut score = TopicScore::default();
        assert!(score.count(&question(Topic::Colour, "red"), "red"));
        assert!(!score.count(&question(Topic::Colour, "red"), "red."));
        assert!(score.count(&question(Topic::Box, "[]"), "[]"));
        let near = [
            "[{\"bbox_2d\": [0, 0, 10, 10]}]",
            "[{\"bbox_2d\": [0, 0, 10, 8]}]",
        ];
        assert!(score.count(&question(Topic::Box, near[0]), near[1]));
        score.finish();
        assert_eq!((score.questions, score.right, score.accuracy), (4, 3, 0.75));
    }
}
