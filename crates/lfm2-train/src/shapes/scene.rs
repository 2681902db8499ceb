//! [`Scene`]: what is on a picture, before it is drawn or spoken of.

use serde::{Deserialize, Serialize};

use super::outline::Outline;
use crate::rng::Rng;
use crate::{Error, Result};

/// Larger pictures than this would only be shrunk again.
const MAX_SIDE: usize = 2048;
/// More shapes than this do not find room.
const MAX_SHAPES: usize = 9;

/// How often a place is sought for a shape before it is left out.
const TRIES: usize = 60;
/// The share of pictures without any shape.
const EMPTY: f64 = 0.03;
/// How far from the border of a third a centre has to be, as a share of the side: a place that could
/// be called two ways is not used.
const CLEAR: f64 = 0.03;
/// How much the levels of a colour vary.
const TINT: f64 = 14.0;
/// The largest turn of a shape, in radians.
const TURN: f64 = 0.2;

/// What a shape is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Round.
    Circle,
    /// Four equal sides.
    Square,
    /// Three equal sides, a corner up.
    Triangle,
    /// Five points.
    Star,
    /// Four arms, as a plus sign.
    Cross,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Circle,
        Self::Square,
        Self::Triangle,
        Self::Star,
        Self::Cross,
    ];

    /// What one is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Circle => "circle",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Star => "star",
            Self::Cross => "cross",
        }
    }

    /// What several are called.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Circle => "circles",
            Self::Square => "squares",
            Self::Triangle => "triangles",
            Self::Star => "stars",
            Self::Cross => "crosses",
        }
    }
}

/// A colour that a shape or a ground has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Colour {
    /// Red.
    Red,
    /// Orange.
    Orange,
    /// Yellow.
    Yellow,
    /// Green.
    Green,
    /// Blue.
    Blue,
    /// Purple.
    Purple,
    /// White.
    White,
    /// Black.
    Black,
    /// Grey; only grounds are.
    Grey,
}

impl Colour {
    /// The colours of shapes.
    pub const SHAPES: [Self; 8] = [
        Self::Red,
        Self::Orange,
        Self::Yellow,
        Self::Green,
        Self::Blue,
        Self::Purple,
        Self::White,
        Self::Black,
    ];
    /// The colours of grounds.
    pub const GROUNDS: [Self; 3] = [Self::White, Self::Grey, Self::Black];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Orange => "orange",
            Self::Yellow => "yellow",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Purple => "purple",
            Self::White => "white",
            Self::Black => "black",
            Self::Grey => "grey",
        }
    }

    /// Red, green and blue, from 0 to 255.
    fn levels(self) -> [f64; 3] {
        match self {
            Self::Red => [215.0, 35.0, 40.0],
            Self::Orange => [245.0, 135.0, 25.0],
            Self::Yellow => [245.0, 220.0, 50.0],
            Self::Green => [40.0, 150.0, 65.0],
            Self::Blue => [40.0, 90.0, 210.0],
            Self::Purple => [130.0, 50.0, 160.0],
            Self::White => [248.0, 248.0, 248.0],
            Self::Black => [12.0, 12.0, 12.0],
            Self::Grey => [135.0, 135.0, 135.0],
        }
    }

    /// A colour that goes by this name.
    fn tint(self, rng: &mut Rng) -> [u8; 3] {
        // White, grey and black stay without hue.
        let common = TINT * (2.0 * rng.uniform() - 1.0);
        let has_hue = !Self::GROUNDS.contains(&self);
        self.levels().map(|level| {
            let own = TINT * (2.0 * rng.uniform() - 1.0);
            (level + if has_hue { own } else { common }).clamp(0.0, 255.0) as u8
        })
    }
}

/// How large a shape is beside its picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extent {
    /// About a quarter of the picture's side.
    Small,
    /// About two fifths.
    Large,
}

impl Extent {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Small, Self::Large];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
        }
    }
}

/// In which ninth of the picture the centre of a shape is: column and row, each 0, 1 or 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    column: usize,
    row: usize,
}

impl Place {
    /// What it is called.
    pub fn name(self) -> &'static str {
        const NAMES: [[&str; 3]; 3] = [
            ["top left", "top", "top right"],
            ["left", "middle", "right"],
            ["bottom left", "bottom", "bottom right"],
        ];
        self.among(&NAMES)
    }

    /// What stands behind a shape that is there.
    pub fn phrase(self) -> &'static str {
        const PHRASES: [[&str; 3]; 3] = [
            ["at the top left", "at the top", "at the top right"],
            ["on the left", "in the middle", "on the right"],
            ["at the bottom left", "at the bottom", "at the bottom right"],
        ];
        self.among(&PHRASES)
    }

    fn among(self, names: &[[&'static str; 3]; 3]) -> &'static str {
        let row = names.get(self.row);
        row.and_then(|row| row.get(self.column)).unwrap_or(&"")
    }
}

/// One shape of a scene.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// What it is.
    pub kind: Kind,
    /// Which colour it has.
    pub colour: Colour,
    /// How large it is.
    pub extent: Extent,
    /// Where it is.
    pub place: Place,
    pub(super) tint: [u8; 3],
    pub(super) outline: Outline,
}

impl Shape {
    /// The smallest rectangle around it in pixels: left, top, right and bottom.
    pub fn bounds(&self) -> [f64; 4] {
        self.outline.bounds()
    }

    /// Where the centre is in pixels.
    pub(crate) fn centre(&self) -> (f64, f64) {
        self.outline.centre()
    }
}

/// What scenes are like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SceneOptions {
    /// The least and the most pixels of the side of a square with as many pixels.
    pub sides: [usize; 2],
    /// How many times the short side the long one may be.
    pub aspect: f64,
    /// The most shapes.
    pub most: usize,
    /// How many times as large as usual the shapes are; what does not fit is left out.
    pub scale: f64,
}

impl Default for SceneOptions {
    fn default() -> Self {
        Self {
            sides: [112, 224],
            aspect: 2.0,
            most: 5,
            scale: 1.0,
        }
    }
}

impl SceneOptions {
    /// Checks that there are such scenes.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] naming the key.
    pub fn validate(&self) -> Result<()> {
        let [least, most] = self.sides;
        if least < 32 || most < least || most > MAX_SIDE {
            let detail = format!(
                "expected two numbers from 32 to {MAX_SIDE}, the smaller first, found {least} and {most}"
            );
            return Err(Error::option("sides", detail));
        }
        if !(1.0..=4.0).contains(&self.aspect) {
            let detail = format!("expected a number from 1 to 4, found {}", self.aspect);
            return Err(Error::option("aspect", detail));
        }
        if !(1..=MAX_SHAPES).contains(&self.most) {
            let detail = format!(
                "expected a number from 1 to {MAX_SHAPES}, found {}",
                self.most
            );
            return Err(Error::option("most", detail));
        }
        if !(0.5..=4.0).contains(&self.scale) {
            let detail = format!("expected a number from 0.5 to 4, found {}", self.scale);
            return Err(Error::option("scale", detail));
        }
        Ok(())
    }
}

/// What is on a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    pub(super) width: usize,
    pub(super) height: usize,
    /// The colour behind the shapes.
    pub ground: Colour,
    pub(super) ground_tint: [u8; 3],
    /// The shapes, as one reads: row by row from the top, and from the left.
    pub shapes: Vec<Shape>,
}

impl Scene {
    /// A scene that `rng` chooses.
    pub fn random(options: &SceneOptions, rng: &mut Rng) -> Self {
        let (width, height) = sides(options, rng);
        let ground = pick(&Colour::GROUNDS, rng);
        let mut scene = Self {
            width,
            height,
            ground,
            ground_tint: ground.tint(rng),
            shapes: Vec::new(),
        };
        if rng.uniform() < EMPTY {
            return scene;
        }
        let count = 1 + rng.below(options.most);
        // Few kinds or colours in a picture make several of a kind.
        let kinds = some(&Kind::ALL, rng);
        let colours = Colour::SHAPES.into_iter().filter(|c| *c != ground);
        let colours = some(&colours.collect::<Vec<_>>(), rng);
        for _ in 0..count {
            let looks = (pick(&kinds, rng), pick(&colours, rng));
            let shape = scene.place(looks, count, options.scale, rng);
            scene.shapes.extend(shape);
        }
        scene.shapes.sort_by(|a, b| {
            let key = |s: &Shape| (s.place.row, s.place.column);
            let by_x = a.centre().0.total_cmp(&b.centre().0);
            key(a).cmp(&key(b)).then(by_x)
        });
        scene
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// A shape that touches no other; none where no place is found for it.
    fn place(
        &self,
        (kind, colour): (Kind, Colour),
        count: usize,
        scale: f64,
        rng: &mut Rng,
    ) -> Option<Shape> {
        let (width, height) = (self.width as f64, self.height as f64);
        let side = (width * height).sqrt().min(1.35 * width.min(height));
        // Many large shapes would not fit.
        let large = if count > 3 { 0.2 } else { 0.5 };
        let tint = colour.tint(rng);
        for _ in 0..TRIES {
            let (extent, least) = match rng.uniform() < large {
                true => (Extent::Large, 0.19),
                false => (Extent::Small, 0.115),
            };
            let radius = scale * side * least * (1.0 + 0.15 * rng.uniform());
            let turn = TURN * (2.0 * rng.uniform() - 1.0);
            let (x, y) = (rng.uniform(), rng.uniform());
            let outline = Outline::new(kind, (x * width, y * height), radius, turn);
            let place = third(x).zip(third(y));
            let [left, top, right, bottom] = outline.bounds();
            let is_inside =
                left >= 1.0 && top >= 1.0 && right < width - 1.0 && bottom < height - 1.0;
            let is_free = self
                .shapes
                .iter()
                .all(|other| !outline.touches(&other.outline));
            if let Some((column, row)) = place
                && is_inside
                && is_free
            {
                return Some(Shape {
                    kind,
                    colour,
                    extent,
                    place: Place { column, row },
                    tint,
                    outline,
                });
            }
        }
        None
    }
}

/// The sides of a picture: the area first, then how it is stretched.
fn sides(options: &SceneOptions, rng: &mut Rng) -> (usize, usize) {
    let [least, most] = options.sides.map(|side| side as f64);
    let side = least + (most - least) * rng.uniform();
    let stretch = options.aspect.ln() * (2.0 * rng.uniform() - 1.0) / 2.0;
    let stretch = stretch.exp();
    ((side * stretch) as usize, (side / stretch) as usize)
}

/// The third of the side that a share of it is clearly in.
fn third(share: f64) -> Option<usize> {
    let borders = [1.0 / 3.0, 2.0 / 3.0];
    let is_clear = borders.iter().all(|b| (share - b).abs() > CLEAR);
    is_clear.then(|| borders.iter().filter(|b| share > **b).count())
}

/// One of `items`, which are never none here.
pub(super) fn pick<T: Copy>(items: &[T], rng: &mut Rng) -> T {
    items[rng.below(items.len())]
}

/// At least one of `items`, and any number.
fn some<T: Copy>(items: &[T], rng: &mut Rng) -> Vec<T> {
    let mut items = items.to_vec();
    rng.shuffle(&mut items);
    items.truncate(1 + rng.below(items.len()));
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenes(count: u64) -> impl Iterator<Item = Scene> {
        let scene = |seed| Scene::random(&SceneOptions::default(), &mut Rng::new(seed));
        (0..count).map(scene)
    }

    #[test]
    fn shapes_are_inside_apart_and_of_another_colour_than_their_ground() {
        for scene in scenes(300) {
            for (i, shape) in scene.shapes.iter().enumerate() {
                assert_ne!(shape.colour, scene.ground);
                let [left, top, right, bottom] = shape.bounds();
                assert!(left >= 0.0 && top >= 0.0);
                assert!(right <= scene.width as f64 && bottom <= scene.height as f64);
                let (x, y) = shape.centre();
                let thirds = (3.0 * x / scene.width as f64, 3.0 * y / scene.height as f64);
                assert_eq!(
                    (thirds.0 as usize, thirds.1 as usize),
                    (shape.place.column, shape.place.row)
                );
                for other in &scene.shapes[..i] {
                    assert!(!shape.outline.touches(&other.outline));
                }
            }
        }
    }

    #[test]
    fn every_number_kind_colour_and_form_of_picture_comes_up() {
        let all: Vec<Scene> = scenes(600).collect();
        for count in 0..=5 {
            let share = all.iter().filter(|s| s.shapes.len() == count).count();
            assert!(share >= 10, "{share} pictures with {count} shapes");
        }
        let shapes = || all.iter().flat_map(|s| &s.shapes);
        assert!(Kind::ALL.iter().all(|k| shapes().any(|s| s.kind == *k)));
        assert!(
            Colour::SHAPES
                .iter()
                .all(|c| shapes().any(|s| s.colour == *c))
        );
        assert!(all.iter().any(|s| s.width > s.height * 7 / 4));
        assert!(all.iter().any(|s| s.height > s.width * 7 / 4));
        assert!(
            all.iter()
                .all(|s| s.width <= s.height * 21 / 10 && s.height <= s.width * 21 / 10)
        );
    }

    #[test]
    fn a_seed_is_a_scene() {
        assert_eq!(scenes(5).collect::<Vec<_>>(), scenes(5).collect::<Vec<_>>());
        assert_ne!(scenes(2).next(), scenes(2).nth(1));
    }

    #[test]
    fn options_that_cannot_be_are_refused_by_key() {
        let check = |json: serde_json::Value| {
            let options: SceneOptions = serde_json::from_value(json).unwrap();
            options.validate().unwrap_err().to_string()
        };
        for (key, value) in [
            ("sides", serde_json::json!([10, 100])),
            ("sides", serde_json::json!([100, 90])),
            ("aspect", serde_json::json!(0.5)),
            ("most", serde_json::json!(0)),
        ] {
            let error = check(serde_json::json!({ key: value }));
            assert!(error.starts_with(key), "{error}");
        }
    }
}
