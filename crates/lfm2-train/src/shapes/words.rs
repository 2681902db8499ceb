//! Questions about a scene, with their answers.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::scene::{Colour, Extent, Kind, Scene, Shape, pick};
use crate::rng::Rng;

/// How often a question asks for what is not there, where that has an answer.
const ABSENT: f64 = 0.2;
/// Boxes are given in thousandths of the sides, in steps of this.
const BOX_STEP: f64 = 10.0;

/// What a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Which colour a shape has.
    Colour,
    /// What a shape is.
    Kind,
    /// How many there are.
    Count,
    /// Whether a shape is large or small.
    Size,
    /// Where a shape is, in words.
    Place,
    /// The colour behind the shapes.
    Background,
    /// Whether there is such a shape.
    Presence,
    /// Everything in one sentence.
    Caption,
    /// Where a shape is, as a rectangle in JSON.
    Box,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 9] = [
        Self::Colour,
        Self::Kind,
        Self::Count,
        Self::Size,
        Self::Place,
        Self::Background,
        Self::Presence,
        Self::Caption,
        Self::Box,
    ];

    /// What it is called in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Colour => "colour",
            Self::Kind => "kind",
            Self::Count => "count",
            Self::Size => "size",
            Self::Place => "place",
            Self::Background => "background",
            Self::Presence => "presence",
            Self::Caption => "caption",
            Self::Box => "box",
        }
    }
}

/// A question and the only right answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Question {
    /// What it is about.
    pub topic: Topic,
    /// What is asked.
    pub text: String,
    /// What is to be said.
    pub answer: String,
}

impl Scene {
    /// A question that has one answer in this scene; none where there is no such question, such as for
    /// the colour of one of two equal shapes.
    pub fn ask(&self, topic: Topic, rng: &mut Rng) -> Option<Question> {
        let (text, answer) = match topic {
            Topic::Colour => self.ask_colour(rng)?,
            Topic::Kind => self.ask_kind(rng)?,
            Topic::Count => self.ask_count(rng),
            Topic::Size => self.ask_size(rng)?,
            Topic::Place => {
                let (shape, name) = self.named(rng)?;
                (format!("Where is the {name}?"), shape.place.name().into())
            }
            Topic::Background => {
                let text = "What colour is the background?";
                (text.into(), self.ground.name().into())
            }
            Topic::Presence => self.ask_presence(rng),
            Topic::Caption => {
                let ways = ["Describe the picture.", "What is in this picture?"];
                (pick(&ways, rng).into(), self.caption())
            }
            Topic::Box => {
                let (shape, name) = self.named(rng)?;
                let text = format!("Where is the {name}? Answer with a box in JSON.");
                (text, self.boxed(shape, &name))
            }
        };
        let text = match rng.uniform() < 0.25 {
            true => text.replace("colour", "color"),
            false => text,
        };
        Some(Question {
            topic,
            text,
            answer,
        })
    }

    /// Everything in one sentence.
    pub fn caption(&self) -> String {
        let ground = self.ground.name();
        let shape = |s: &Shape| {
            let (extent, colour) = (s.extent.name(), s.colour.name());
            format!("a {extent} {colour} {} {}", s.kind.name(), s.place.phrase())
        };
        let shapes: Vec<String> = self.shapes.iter().map(shape).collect();
        let list = match shapes.split_last() {
            None => return format!("Nothing on a {ground} background."),
            Some((only, [])) => only.clone(),
            Some((last, others)) => format!("{} and {last}", others.join(", ")),
        };
        let mut text = format!("{list}, on a {ground} background.");
        text.replace_range(..1, "A");
        text
    }

    fn only(&self, is_meant: impl Fn(&Shape) -> bool) -> Option<&Shape> {
        let mut found = self.shapes.iter().filter(|shape| is_meant(shape));
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// The shapes that `is_meant` leaves alone, in an order that `rng` chooses.
    fn chosen(&self, rng: &mut Rng, is_like: impl Fn(&Shape, &Shape) -> bool) -> Option<&Shape> {
        let mut shapes: Vec<&Shape> = self.shapes.iter().collect();
        rng.shuffle(&mut shapes);
        let mut alone = shapes.into_iter();
        alone.find(|shape| self.only(|other| is_like(shape, other)).is_some())
    }

    /// A shape that its colour and kind tell from all others, and these two words.
    fn named(&self, rng: &mut Rng) -> Option<(&Shape, String)> {
        let shape = self.chosen(rng, |a, b| (a.kind, a.colour) == (b.kind, b.colour))?;
        Some((
            shape,
            format!("{} {}", shape.colour.name(), shape.kind.name()),
        ))
    }

    fn ask_colour(&self, rng: &mut Rng) -> Option<(String, String)> {
        let with_size = |rng: &mut Rng| {
            let shape = self.chosen(rng, |a, b| (a.kind, a.extent) == (b.kind, b.extent))?;
            Some((
                shape,
                format!("{} {}", shape.extent.name(), shape.kind.name()),
            ))
        };
        let by_kind = |rng: &mut Rng| {
            let shape = self.chosen(rng, |a, b| a.kind == b.kind)?;
            Some((shape, shape.kind.name().to_string()))
        };
        let found = match rng.uniform() < 0.7 {
            true => by_kind(rng).or_else(|| with_size(rng)),
            false => with_size(rng),
        };
        let (shape, name) = found?;
        let text = format!("What colour is the {name}?");
        Some((text, shape.colour.name().into()))
    }

    fn ask_kind(&self, rng: &mut Rng) -> Option<(String, String)> {
        let shape = self.chosen(rng, |a, b| a.colour == b.colour)?;
        let text = match self.shapes.len() == 1 && rng.uniform() < 0.5 {
            true => "What shape is this?".to_string(),
            false => format!("What is the {} shape?", shape.colour.name()),
        };
        Some((text, shape.kind.name().into()))
    }

    fn ask_count(&self, rng: &mut Rng) -> (String, String) {
        let count = |is_meant: &dyn Fn(&Shape) -> bool| {
            let found = self.shapes.iter().filter(|s| is_meant(s));
            found.count().to_string()
        };
        let of_scene = |rng: &mut Rng| match self.shapes.is_empty() || rng.uniform() < ABSENT {
            true => None,
            false => self.shapes.get(rng.below(self.shapes.len())),
        };
        let (what, answer) = match rng.below(3) {
            0 => ("shapes".to_string(), count(&|_| true)),
            1 => {
                let kind = of_scene(rng).map_or_else(|| pick(&Kind::ALL, rng), |s| s.kind);
                (kind.plural().to_string(), count(&|s| s.kind == kind))
            }
            _ => {
                let any = |rng: &mut Rng| pick(&Colour::SHAPES, rng);
                let colour = of_scene(rng).map_or_else(|| any(rng), |s| s.colour);
                let what = format!("{} shapes", colour.name());
                (what, count(&|s| s.colour == colour))
            }
        };
        (format!("How many {what} are there?"), answer)
    }

    fn ask_size(&self, rng: &mut Rng) -> Option<(String, String)> {
        let (shape, name) = self.named(rng)?;
        let words = Extent::ALL.map(Extent::name);
        let [first, second] = match rng.below(2) {
            0 => words,
            _ => [words[1], words[0]],
        };
        let text = format!("Is the {name} {first} or {second}?");
        Some((text, shape.extent.name().into()))
    }

    fn ask_presence(&self, rng: &mut Rng) -> (String, String) {
        let there = match self.shapes.is_empty() || rng.uniform() < 0.5 {
            true => None,
            false => self.shapes.get(rng.below(self.shapes.len())),
        };
        let (colour, kind) = there.map_or_else(
            || (pick(&Colour::SHAPES, rng), pick(&Kind::ALL, rng)),
            |s| (s.colour, s.kind),
        );
        let found = self
            .shapes
            .iter()
            .any(|s| (s.colour, s.kind) == (colour, kind));
        let article = match colour {
            Colour::Orange => "an",
            _ => "a",
        };
        let text = format!("Is there {article} {} {}?", colour.name(), kind.name());
        (text, if found { "yes" } else { "no" }.into())
    }

    /// The box of a shape as published models write it: thousandths of the sides.
    fn boxed(&self, shape: &Shape, label: &str) -> String {
        let sides = [self.width, self.height, self.width, self.height];
        let mut place = [0i64; 4];
        for ((place, edge), side) in place.iter_mut().zip(shape.bounds()).zip(sides) {
            let thousandths = 1000.0 * edge / side as f64;
            *place = ((thousandths / BOX_STEP).round() * BOX_STEP) as i64;
        }
        let [left, top, right, bottom] = place;
        format!(
            "[{{\"image_id\": 0, \"bbox_2d\": [{left}, {top}, {right}, {bottom}], \"label\": {}}}]",
            json!(label)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::shapes::SceneOptions;

    fn scene(seed: u64) -> Scene {
        Scene::random(&SceneOptions::default(), &mut Rng::new(seed))
    }

    #[test]
    fn every_topic_is_asked_and_answers_are_true() {
        let mut asked = BTreeSet::new();
        for seed in 0..400 {
            let (scene, mut rng) = (scene(seed), Rng::new(seed + 1000));
            for topic in Topic::ALL {
                let Some(question) = scene.ask(topic, &mut rng) else {
                    continue;
                };
                asked.insert(topic);
                check(&scene, &question);
            }
        }
        assert_eq!(asked.len(), Topic::ALL.len());
    }

    /// Reads the question as a person would, and looks.
    fn check(scene: &Scene, question: &Question) {
        let text = question
            .text
            .replace("color", "colour")
            .replace("colouur", "colour");
        let fits = |s: &&Shape| {
            let kind = text.contains(s.kind.name());
            let any = !Kind::ALL.iter().any(|k| text.contains(k.name()));
            let colours = Colour::SHAPES
                .iter()
                .filter(|c| text.contains(&format!("{} ", c.name())));
            let colours: Vec<_> = colours.collect();
            (kind || any) && (colours.is_empty() || colours.contains(&&s.colour))
        };
        let found: Vec<&Shape> = scene.shapes.iter().filter(fits).collect();
        let answer = question.answer.as_str();
        match question.topic {
            Topic::Count => assert_eq!(answer, found.len().to_string(), "{text}"),
            Topic::Presence => assert_eq!(answer == "yes", !found.is_empty(), "{text}"),
            Topic::Colour => assert!(found.iter().any(|s| s.colour.name() == answer), "{text}"),
            Topic::Kind => assert_eq!(found[0].kind.name(), answer, "{text}"),
            Topic::Size => assert_eq!(found[0].extent.name(), answer, "{text}"),
            Topic::Place => assert_eq!(found[0].place.name(), answer, "{text}"),
            Topic::Background => assert_eq!(scene.ground.name(), answer),
            Topic::Caption => {
                let named = answer.matches("small ").count() + answer.matches("large ").count();
                assert_eq!(named, scene.shapes.len(), "{answer}");
            }
            Topic::Box => {
                let json: Vec<serde_json::Value> = serde_json::from_str(answer).unwrap();
                assert_eq!(json.len(), found.len(), "{text}");
                for (json, shape) in json.iter().zip(found) {
                    let sides = json["bbox_2d"].as_array().unwrap();
                    let sides: Vec<f64> = sides.iter().map(|s| s.as_f64().unwrap()).collect();
                    let (x, y) = shape.centre();
                    let (x, y) = (
                        1000.0 * x / scene.width as f64,
                        1000.0 * y / scene.height as f64,
                    );
                    assert!(
                        sides[0] < x && x < sides[2] && sides[1] < y && y < sides[3],
                        "{answer}"
                    );
                    assert!(sides.iter().all(|s| (0.0..=1000.0).contains(s)));
                }
            }
        }
    }

    #[test]
    fn a_caption_is_a_sentence() {
        let caption = |count| {
            let scene = (0..).map(scene).find(|s| s.shapes.len() == count).unwrap();
            scene.caption()
        };
        assert!(caption(0).starts_with("Nothing on a "));
        assert!(caption(1).starts_with("A ") && !caption(1).contains(" and "));
        let three = caption(3);
        assert_eq!(
            (
                three.matches(" and ").count(),
                three.matches(", a ").count()
            ),
            (1, 1),
            "{three}"
        );
        assert!(three.ends_with(" background."));
    }

    #[test]
    fn numbers_of_a_kind_are_not_all_one() {
        let mut rng = Rng::new(3);
        let answers = (0..300).map(|seed| scene(seed).ask(Topic::Count, &mut rng).unwrap().answer);
        let answers: Vec<String> = answers.collect();
        for count in 0..=4 {
            let share = answers.iter().filter(|a| **a == count.to_string()).count();
            assert!(share >= 12, "{share} of 300 answers are {count}");
        }
    }
}
