//! [`Boxes`]: what a model says of where things are, in pixels of the picture.
//!
//! Models of the family answer with JSON: a list of objects that have a label and four numbers, left,
//! top, right and bottom, in thousandths of the whole picture, or in fractions of 1. The picture is the
//! one that was [decoded](crate::Picture): turned as its file says, before any resizing.

use lfm2_hub::{Error, Result};
use serde::Serialize;
use serde_json::Value;

use crate::plan::Size;

/// The keys under which the numbers are.
const KEYS: [&str; 2] = ["bbox_2d", "bbox"];

/// What a side of the picture is in whole numbers.
const THOUSANDTHS: f64 = 1000.0;

/// A rectangle of pixels; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PixelBox {
    /// The first column.
    pub left: usize,
    /// The first row.
    pub top: usize,
    /// The column behind the last.
    pub right: usize,
    /// The row behind the last.
    pub bottom: usize,
}

/// A thing that a model found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundBox {
    /// Which picture, from 0.
    pub picture: usize,
    /// What it is; empty where the model did not say.
    pub label: String,
    /// Where it is.
    #[serde(flatten)]
    pub area: PixelBox,
}

/// The boxes of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Boxes {
    /// Those that make sense, in the order of the answer.
    pub found: Vec<FoundBox>,
    /// How many have numbers that make none, or a picture that was not shown.
    pub senseless: usize,
}

/// A box as it was written.
struct Written {
    image: Option<u64>,
    label: String,
    /// Left, top, right, bottom.
    sides: Option<[f64; 4]>,
}

impl Boxes {
    /// What to add to a question so that the answer is a list of boxes.
    pub const REQUEST: &str = "Answer with a JSON list and nothing else. Each element is an object with the \
        keys \"image_id\", which counts the images from 0, \"bbox_2d\", a list of xmin, ymin, xmax and ymax as \
        integers from 0 to 1000 relative to the whole image, and \"label\".";

    /// The boxes in an answer about pictures of these sizes. Text around them, such as the fence of a code
    /// block, does not matter, nor does an answer that was cut off behind some of them.
    ///
    /// ```
    /// use lfm2_vl::{Boxes, Size};
    ///
    /// let answer = r#"[{"image_id": 0, "bbox_2d": [0, 500, 250, 1000], "label": "cat"}]"#;
    /// let boxes = Boxes::parse(answer, &[Size::new(400, 300)])?;
    /// let cat = boxes.found[0].area;
    /// assert_eq!((cat.left, cat.top, cat.right, cat.bottom), (0, 150, 100, 300));
    /// # Ok::<(), lfm2_hub::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when there are no pictures.
    pub fn parse(answer: &str, pictures: &[Size]) -> Result<Self> {
        if pictures.is_empty() {
            return Err(Error::InvalidInput(
                "boxes need the picture that they are in".to_owned(),
            ));
        }
        let written = written(answer);
        let numbers = || written.iter().filter_map(|one| one.sides).flatten();
        let whole = match numbers().any(|number| number > 1.0) {
            true => THOUSANDTHS,
            false => 1.0,
        };
        let last = pictures.len() as u64;
        let from = u64::from(written.iter().any(|one| one.image == Some(last)));
        let mut boxes = Self::default();
        for one in written {
            let picture = match pictures.len() {
                1 => Some(0),
                _ => picture(one.image.unwrap_or(from), from),
            };
            let place = picture.and_then(|picture| Some((picture, *pictures.get(picture)?)));
            let area = place.zip(one.sides).and_then(|((picture, size), sides)| {
                Some((picture, scaled(sides.map(|side| side / whole), size)?))
            });
            match area {
                Some((picture, area)) => boxes.found.push(FoundBox {
                    picture,
                    label: one.label,
                    area,
                }),
                None => boxes.senseless += 1,
            }
        }
        Ok(boxes)
    }
}

fn picture(id: u64, from: u64) -> Option<usize> {
    usize::try_from(id.checked_sub(from)?).ok()
}

/// The pixels that a box in fractions touches.
fn scaled([left, top, right, bottom]: [f64; 4], size: Size) -> Option<PixelBox> {
    let is_fraction = |side: &f64| (0.0..=1.0).contains(side);
    if ![left, top, right, bottom].iter().all(is_fraction) {
        return None;
    }
    let along = |a: f64, b: f64, len: usize| {
        // A hair less and more, so that an exact pixel stays one.
        let first = (a.min(b) * len as f64 + 1e-6).floor() as usize;
        let end = (a.max(b) * len as f64 - 1e-6).ceil() as usize;
        let first = first.min(len.saturating_sub(1));
        (first, end.clamp(first + 1, len.max(first + 1)))
    };
    let (left, right) = along(left, right, size.width);
    let (top, bottom) = along(top, bottom, size.height);
    Some(PixelBox {
        left,
        top,
        right,
        bottom,
    })
}

/// Every object with a box in a text, whatever is around it.
fn written(answer: &str) -> Vec<Written> {
    let mut found = Vec::new();
    let mut rest = answer;
    while let Some(at) = rest.find('{') {
        rest = &rest[at..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let next = match values.next() {
            Some(Ok(value)) => {
                collect(&value, &mut found);
                values.byte_offset()
            }
            // No object begins here, or it is cut off; one inside of it may be whole.
            _ => 1,
        };
        rest = rest.get(next.max(1)..).unwrap_or_default();
    }
    found
}

fn collect(value: &Value, found: &mut Vec<Written>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(fields) => match KEYS.iter().find_map(|key| fields.get(*key)) {
            Some(sides) => found.push(Written {
                image: fields.get("image_id").and_then(Value::as_u64),
                label: fields
                    .get("label")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned(),
                sides: four(sides),
            }),
            None => fields.values().for_each(|item| collect(item, found)),
        },
        _ => {}
    }
}

fn four(sides: &Value) -> Option<[f64; 4]> {
    let numbers: Option<Vec<f64>> = sides.as_array()?.iter().map(Value::as_f64).collect();
    numbers?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: Size = Size {
        width: 200,
        height: 100,
    };

    fn parse(answer: &str) -> Boxes {
        Boxes::parse(answer, &[SIZE]).unwrap()
    }

    fn areas(answer: &str) -> Vec<[usize; 4]> {
        let found = parse(answer).found.into_iter().map(|found| found.area);
        found
            .map(|area| [area.left, area.top, area.right, area.bottom])
            .collect()
    }

    #[test]
    fn thousandths_become_the_pixels_they_touch() {
        assert_eq!(
            areas(r#"[{"bbox_2d": [0, 0, 1000, 1000]}]"#),
            [[0, 0, 200, 100]]
        );
        assert_eq!(
            areas(r#"[{"bbox_2d": [250, 333, 251, 334]}]"#),
            [[50, 33, 51, 34]]
        );
        assert_eq!(
            areas(r#"[{"bbox_2d": [1000, 1000, 1000, 1000]}]"#),
            [[199, 99, 200, 100]]
        );
        // Sides in the wrong order are still that rectangle.
        assert_eq!(
            areas(r#"[{"bbox_2d": [500, 900, 100, 200]}]"#),
            [[20, 20, 100, 90]]
        );
    }

    #[test]
    fn fractions_are_told_from_thousandths() {
        assert_eq!(
            areas(r#"[{"label": "x", "bbox": [0.1, 0.5, 0.6, 1.0]}]"#),
            [[20, 50, 120, 100]]
        );
        assert_eq!(areas(r#"[{"bbox": [0, 0, 1, 1]}]"#), [[0, 0, 200, 100]]);
    }

    #[test]
    fn text_around_the_boxes_does_not_matter() {
        let list = r#"[{"bbox_2d": [0, 0, 500, 500], "label": "a {cat}"}]"#;
        for answer in [
            list.to_owned(),
            format!("Here: {{ see below }}\n```json\n{list}\n```\nThat is all."),
            format!(r#"{{"objects": {list}}}"#),
            r#"[{"bbox_2d": [0, 0, 500, 500], "label": "a {cat}"}, {"bbox_2d": [1, 2"#.to_owned(),
        ] {
            let boxes = parse(&answer);
            assert_eq!(boxes.found.len(), 1, "{answer}");
            assert_eq!(
                (boxes.found[0].label.as_str(), boxes.senseless),
                ("a {cat}", 0)
            );
        }
        for answer in ["", "none", "{}", "[[[{", "{\"bbox\"", "[1, 2, 3, 4]"] {
            assert_eq!(parse(answer), Boxes::default(), "{answer}");
        }
    }

    #[test]
    fn senseless_boxes_are_counted() {
        let answer = r#"[{"bbox_2d": [0, 0, 2000, 10]}, {"bbox_2d": [1, 2, 3]}, {"bbox_2d": "all"},
            {"bbox_2d": [-5, 0, 10, 10]}, {"bbox_2d": [10, 10, 20, 20]}]"#;
        let boxes = parse(answer);
        assert_eq!((boxes.found.len(), boxes.senseless), (1, 4));
        assert!(Boxes::parse(answer, &[]).is_err());
    }

    #[test]
    fn pictures_are_counted_from_0_or_from_1() {
        let of = |ids: [u64; 2]| {
            let one = |id| format!(r#"{{"image_id": {id}, "bbox_2d": [0, 0, 1000, 1000]}}"#);
            let answer = format!("[{}, {}]", one(ids[0]), one(ids[1]));
            let boxes = Boxes::parse(&answer, &[SIZE, Size::new(10, 20)]).unwrap();
            let found = boxes
                .found
                .iter()
                .map(|found| (found.picture, found.area.right));
            (found.collect::<Vec<_>>(), boxes.senseless)
        };
        assert_eq!(of([0, 1]), (vec![(0, 200), (1, 10)], 0));
        assert_eq!(of([1, 2]), (vec![(0, 200), (1, 10)], 0));
        assert_eq!(of([0, 7]), (vec![(0, 200)], 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn boxes_are_inside_their_picture(
            answer in ".{0,80}",
            sides in prop::array::uniform4(-50i64..1050),
            (width, height) in (1usize..3000, 1usize..3000),
        ) {
            let size = Size::new(width, height);
            let answer = format!(r#"{answer} {{"bbox_2d": {sides:?}}}"#);
            for FoundBox { area, .. } in Boxes::parse(&answer, &[size]).unwrap().found {
                prop_assert!(area.left < area.right && area.right <= width, "{area:?}");
                prop_assert!(area.top < area.bottom && area.bottom <= height, "{area:?}");
            }
        }
    }
}
