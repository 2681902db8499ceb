//! A picture of a sound: its waveform, and below it the features that a model hears.
//!
//! Drawn by `plotters`, as SVG or as PNG. Letters in a PNG are blocks of our own: there is no font.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use lfm2::hub::{self, Overwrite};
use lfm2::speech::{Clip, Mel, MelFrontEnd};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::exit::{Doing, invalid};

const WIDTH: u32 = 1000;
const HEIGHT: u32 = 480;
/// The left and right ends of both parts, and the tops and bottoms of each.
const LEFT: i32 = 52;
const RIGHT: i32 = 988;
const WAVE: [i32; 2] = [14, 144];
const MEL: [i32; 2] = [160, 440];

const INK: RGBColor = RGBColor(60, 60, 70);
const LINE: RGBColor = RGBColor(46, 92, 160);
/// From nothing to much.
const SCALE: [[f32; 3]; 5] = [
    [18.0, 14.0, 46.0],
    [92.0, 26.0, 110.0],
    [188.0, 56.0, 84.0],
    [244.0, 142.0, 56.0],
    [252.0, 246.0, 190.0],
];
/// Features have zero mean and unit variance; what is drawn of them.
const DRAWN: [f32; 2] = [-2.0, 2.5];
/// Frequencies that are marked, in kHz.
const MARKS: [u32; 5] = [0, 1, 2, 4, 8];

/// How the picture is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

impl Format {
    fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().map(|e| e.to_ascii_lowercase());
        match extension.as_ref().and_then(|e| e.to_str()) {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            _ => Err(invalid(format!(
                "{}: a picture is drawn as .svg or .png",
                path.display()
            ))),
        }
    }

    /// Columns and rows of features at most. In an SVG each cell is text.
    fn cells(self) -> [usize; 2] {
        match self {
            Self::Svg => [312, 64],
            Self::Png => [936, 128],
        }
    }
}

/// Draws `clip`, and what `front` makes of it, to the file `path`, whose ending says how.
pub(crate) fn write(path: &Path, clip: &Clip, front: &MelFrontEnd) -> Result<()> {
    let bytes = draw(clip, front, Format::of(path)?)?;
    let written = hub::write_atomic(path, Overwrite::Replace, |file| {
        file.write_all(&bytes)
            .map_err(|error| hub::Error::io(path, error))
    });
    written.doing("writing", path.display())
}

fn draw(clip: &Clip, front: &MelFrontEnd, format: Format) -> Result<Vec<u8>> {
    let picture = Picture {
        clip,
        front,
        mel: front.features(clip)?,
        format,
    };
    match format {
        Format::Svg => {
            let mut svg = String::new();
            let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
            picture.draw(&area).map_err(failed)?;
            drop(area);
            Ok(svg.into_bytes())
        }
        Format::Png => {
            let mut pixels = vec![0; (WIDTH * HEIGHT * 3) as usize];
            let area = BitMapBackend::with_buffer(&mut pixels, (WIDTH, HEIGHT)).into_drawing_area();
            picture.draw(&area).map_err(failed)?;
            drop(area);
            let mut bytes = Vec::new();
            PngEncoder::new(&mut bytes).write_image(
                &pixels,
                WIDTH,
                HEIGHT,
                ExtendedColorType::Rgb8,
            )?;
            Ok(bytes)
        }
    }
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("drawing failed: {error}")
}

struct Picture<'a> {
    clip: &'a Clip,
    front: &'a MelFrontEnd,
    mel: Mel,
    format: Format,
}

type Area<B> = DrawingArea<B, Shift>;
type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

impl Picture<'_> {
    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        area.fill(&WHITE)?;
        self.wave(area)?;
        self.features(area)?;
        self.times(area)?;
        self.frequencies(area)?;
        area.present()
    }

    /// The lowest and the highest sample of every column.
    fn wave<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let samples = self.clip.samples();
        let peak = samples.iter().fold(1e-6f32, |peak, v| peak.max(v.abs()));
        let [top, bottom] = WAVE;
        let (middle, half) = ((top + bottom) / 2, (bottom - top) as f32 / 2.0);
        let columns = (RIGHT - LEFT) as usize;
        for column in 0..columns {
            let start = column * samples.len() / columns;
            let end = ((column + 1) * samples.len() / columns).max(start + 1);
            let own = samples.get(start..end).unwrap_or_default();
            let low = own.iter().copied().fold(f32::INFINITY, f32::min);
            let high = own.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if low <= high {
                let x = LEFT + column as i32;
                let y = |value: f32| middle - (value / peak * half) as i32;
                let line = [(x, y(high)), (x + 1, y(low) + 1)];
                area.draw(&Rectangle::new(line, LINE.filled()))?;
            }
        }
        Ok(())
    }

    /// Features as colours, neighbours of one colour together.
    fn features<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let [columns, rows] = self.format.cells();
        let columns = columns.min(self.mel.frames());
        let rows = rows.min(self.mel.features());
        let [top, bottom] = MEL;
        let place = |i: usize, of: usize, from: i32, to: i32| {
            from + (i as i64 * i64::from(to - from) / of as i64) as i32
        };
        for row in 0..rows {
            let y = [
                place(rows - 1 - row, rows, top, bottom),
                place(rows - row, rows, top, bottom),
            ];
            let level = |column| self.level([column, columns], [row, rows]);
            let mut start = 0;
            while start < columns {
                let here = level(start);
                let run = (start..columns).take_while(|column| level(*column) == here);
                let end = start + run.count();
                let x = [
                    place(start, columns, LEFT, RIGHT),
                    place(end, columns, LEFT, RIGHT),
                ];
                let corners = [(x[0], y[0]), (x[1], y[1])];
                area.draw(&Rectangle::new(corners, colour(here).filled()))?;
                start = end;
            }
        }
        Ok(())
    }

    /// The mean of the features in a cell, in one of 24 levels.
    fn level(&self, [column, columns]: [usize; 2], [row, rows]: [usize; 2]) -> u8 {
        let part = |i: usize, of: usize, all: usize| i * all / of..((i + 1) * all / of).max(1);
        let frames = part(column, columns, self.mel.frames());
        let bins = part(row, rows, self.mel.features());
        let width = self.mel.features();
        let cells = frames.flat_map(|frame| bins.clone().map(move |bin| frame * width + bin));
        let values: Vec<f32> = cells
            .filter_map(|at| self.mel.values().get(at).copied())
            .collect();
        let mean = values.iter().sum::<f32>() / values.len().max(1) as f32;
        let share = (mean - DRAWN[0]) / (DRAWN[1] - DRAWN[0]);
        (share.clamp(0.0, 1.0) * f32::from(LEVELS - 1)).round() as u8
    }

    fn times<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let seconds = self.clip.seconds();
        let step = step(seconds);
        let ticks = (seconds / step) as usize;
        for tick in 0..=ticks {
            let time = tick as f64 * step;
            let x = LEFT + (time / seconds * f64::from(RIGHT - LEFT)) as i32;
            area.draw(&Rectangle::new(
                [(x, MEL[1]), (x + 1, MEL[1] + 6)],
                INK.filled(),
            ))?;
            // As many digits as the step has.
            let digits = [0.1, 1.0].iter().filter(|size| step < **size).count();
            let text = format!("{time:.digits$}");
            let last = if tick == ticks { " s" } else { "" };
            self.write(
                area,
                &format!("{text}{last}"),
                (x, MEL[1] + 12),
                Side::Middle,
            )?;
        }
        Ok(())
    }

    fn frequencies<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let config = self.front.config();
        let (filters, bins) = (self.front.filters(), config.n_fft / 2 + 1);
        for mark in MARKS {
            let bin =
                (mark as usize * 1000 * config.n_fft / config.sample_rate as usize).min(bins - 1);
            // The filter that hears this frequency best.
            let weight = |row: usize| filters.get(row * bins + bin).copied().unwrap_or(0.0);
            let best = (0..config.features).max_by(|a, b| weight(*a).total_cmp(&weight(*b)));
            let row = match mark {
                0 => 0,
                _ if bin + 1 == bins => config.features,
                _ => best.unwrap_or(0),
            };
            let y = MEL[1] - (row as i32 * (MEL[1] - MEL[0])) / config.features as i32;
            area.draw(&Rectangle::new(
                [(LEFT - 6, y), (LEFT, y + 1)],
                INK.filled(),
            ))?;
            let unit = if mark == MARKS[MARKS.len() - 1] {
                " kHz"
            } else {
                ""
            };
            self.write(
                area,
                &format!("{mark}{unit}"),
                (LEFT - 8, y - 5),
                Side::Right,
            )?;
        }
        Ok(())
    }

    /// Writes `text` with its top at `at`.
    fn write<B: DrawingBackend>(
        &self,
        area: &Area<B>,
        text: &str,
        (x, y): (i32, i32),
        side: Side,
    ) -> Drawn<B> {
        if self.format == Format::Svg {
            use plotters::style::text_anchor::{HPos, Pos, VPos};
            let horizontal = match side {
                Side::Middle => HPos::Center,
                Side::Right => HPos::Right,
            };
            let style = TextStyle::from(("sans-serif", 12).into_font())
                .color(&INK)
                .pos(Pos::new(horizontal, VPos::Top));
            return area.draw(&Text::new(text.to_owned(), (x, y), style));
        }
        let width = text.chars().count() as i32 * LETTER;
        let start = match side {
            Side::Middle => x - width / 2,
            Side::Right => x - width,
        };
        for (i, c) in (0..).zip(text.chars()) {
            for (row, bits) in (0..).zip(letter(c)) {
                for column in (0..3).filter(|column| bits & (4 >> column) != 0) {
                    let (x, y) = (start + i * LETTER + column * BLOCK, y + row * BLOCK);
                    let block = [(x, y), (x + BLOCK, y + BLOCK)];
                    area.draw(&Rectangle::new(block, INK.filled()))?;
                }
            }
        }
        Ok(())
    }
}

/// Where the point that a text is written at is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Middle,
    Right,
}

const LEVELS: u8 = 24;

fn colour(level: u8) -> RGBColor {
    let place = f32::from(level) / f32::from(LEVELS - 1) * (SCALE.len() - 1) as f32;
    let below = (place as usize).min(SCALE.len() - 2);
    let rest = place - below as f32;
    let mix = |k: usize| SCALE[below][k] + rest * (SCALE[below + 1][k] - SCALE[below][k]);
    RGBColor(mix(0) as u8, mix(1) as u8, mix(2) as u8)
}

/// Seconds from one mark to the next, so that there are about ten.
fn step(seconds: f64) -> f64 {
    let least = seconds / 12.0;
    let steps = [
        0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
    ];
    let found = steps.into_iter().find(|step| *step >= least);
    found.unwrap_or(600.0)
}

/// Pixels of a block, and from one letter to the next.
const BLOCK: i32 = 2;
const LETTER: i32 = 8;

/// Five rows of three blocks.
fn letter(c: char) -> [u8; 5] {
    match c {
        '0' => [7, 5, 5, 5, 7],
        '1' => [2, 6, 2, 2, 7],
        '2' => [7, 1, 7, 4, 7],
        '3' => [7, 1, 7, 1, 7],
        '4' => [5, 5, 7, 1, 1],
        '5' => [7, 4, 7, 1, 7],
        '6' => [7, 4, 7, 5, 7],
        '7' => [7, 1, 1, 2, 2],
        '8' => [7, 5, 7, 5, 7],
        '9' => [7, 5, 7, 1, 7],
        '.' => [0, 0, 0, 0, 2],
        's' => [0, 3, 4, 3, 6],
        'k' => [4, 5, 6, 6, 5],
        'H' => [5, 5, 7, 5, 5],
        'z' => [0, 7, 1, 2, 7],
        _ => [0; 5],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lfm2::speech::MelConfig;

    fn drawn(seconds: f64, format: Format) -> Vec<u8> {
        let samples = (0..(16_000.0 * seconds) as usize)
            .map(|t| (t as f32 * t as f32 * 1e-5).sin() * 0.5)
            .collect();
        let clip = Clip::new(samples, 16_000).unwrap();
        let front = MelFrontEnd::new(MelConfig::default()).unwrap();
        draw(&clip, &front, format).unwrap()
    }

    #[test]
    fn a_picture_has_both_parts_and_its_marks() {
        let svg = String::from_utf8(drawn(2.0, Format::Svg)).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("8 kHz") && svg.contains("2.0 s"));
        assert!(svg.contains("0.6") && !svg.contains("00000"));
        assert!(svg.len() < 2_000_000, "{}", svg.len());
        let png = drawn(2.0, Format::Png);
        let pixels = image::load_from_memory(&png).unwrap().to_rgb8();
        assert_eq!(pixels.dimensions(), (WIDTH, HEIGHT));
        let [y0, y1] = [WAVE, MEL].map(|[top, bottom]| (top + bottom) as u32 / 2);
        assert_eq!(pixels.get_pixel(500, y0).0, [LINE.0, LINE.1, LINE.2]);
        assert_ne!(pixels.get_pixel(500, y1).0, [255; 3]);
    }

    #[test]
    fn very_short_and_silent_sounds_have_pictures() {
        for seconds in [0.001, 0.1] {
            assert!(!drawn(seconds, Format::Svg).is_empty());
            assert!(!drawn(seconds, Format::Png).is_empty());
        }
    }

    #[test]
    fn the_ending_says_how() {
        assert_eq!(Format::of("a/b.SVG".as_ref()).unwrap(), Format::Svg);
        assert_eq!(Format::of("b.png".as_ref()).unwrap(), Format::Png);
        for wrong in ["b", "b.jpg", "svg"] {
            assert!(Format::of(wrong.as_ref()).is_err(), "{wrong}");
        }
    }
}
