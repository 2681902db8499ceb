//! Pictures as SVG. No fonts, no image library: text is left to who shows it, colours of lines and
//! letters follow the page.

use std::fmt::Write as _;

/// Text with what XML reserves put aside.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Control characters are not allowed in XML at all.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Steps of the colour scale.
const LEVELS: usize = 32;
const LEFT: f64 = 110.0;
const WIDTH: f64 = 960.0;
const ROW: f64 = 24.0;
/// Colours of the three parts of a score.
pub(super) const PARTS: [(&str, &str); 3] = [
    ("signed-rank test", "#3b6fb6"),
    ("mutual information", "#e0913a"),
    ("elimination", "#4f9d69"),
];

/// The colour of a value from 0 to 1: paper to dark blue over green, even in lightness.
pub(super) fn colour(value: f64) -> String {
    const STOPS: [[f64; 3]; 5] = [
        [247.0, 246.0, 240.0],
        [190.0, 221.0, 190.0],
        [90.0, 175.0, 178.0],
        [38.0, 104.0, 156.0],
        [22.0, 32.0, 90.0],
    ];
    let place = value.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let below = (place as usize).min(STOPS.len() - 2);
    let rest = place - below as f64;
    let mix = |k: usize| (STOPS[below][k] + rest * (STOPS[below + 1][k] - STOPS[below][k])).round();
    format!(
        "#{:02x}{:02x}{:02x}",
        mix(0) as u8,
        mix(1) as u8,
        mix(2) as u8
    )
}

/// Room for the title above a picture.
const TITLE: f64 = 24.0;
const CLOSE: &str = "</g>\n</svg>\n";

/// A picture of this size below its title.
fn open(width: f64, height: f64, title: &str) -> String {
    let height = height + TITLE;
    let title = escape(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"currentColor\">\
         <title>{title}</title>\n<text x=\"4\" y=\"14\" font-weight=\"bold\">{title}</text>\n\
         <g transform=\"translate(0 {TITLE})\">\n"
    )
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = escape(words);
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), style: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"currentColor\" {style}/>"
    );
}

/// What colours stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale<'a> {
    pub(super) name: &'a str,
    /// The value of the darkest colour, above 0.
    pub(super) most: f64,
}

/// Rows of values from 0 on as colours. Neighbours of one colour are one shape, so that thousands
/// of cells stay a small file.
pub(super) fn heat_map(title: &str, scale: &Scale<'_>, rows: &[(&str, &[f64])]) -> String {
    let columns = rows
        .iter()
        .map(|(_, values)| values.len())
        .max()
        .unwrap_or(0);
    let bottom = rows.len() as f64 * ROW;
    let mut out = open(WIDTH, bottom + 62.0, title);
    let cell = (WIDTH - LEFT - 10.0) / columns.max(1) as f64;
    let level =
        |value: f64| ((value / scale.most * (LEVELS - 1) as f64).round() as usize).min(LEVELS - 1);
    let mut shapes = vec![String::new(); LEVELS];
    for (row, (name, values)) in rows.iter().enumerate() {
        let top = row as f64 * ROW;
        text(&mut out, LEFT - 8.0, top + 16.0, "end", name);
        let mut start = 0;
        while start < values.len() {
            let here = level(values[start]);
            let len = values[start..]
                .iter()
                .take_while(|value| level(**value) == here)
                .count();
            let (x, width) = (LEFT + start as f64 * cell, len as f64 * cell);
            let _ = write!(
                shapes[here],
                "M{x:.2} {top}h{width:.2}v{}h-{width:.2}z",
                ROW - 2.0
            );
            start += len;
        }
    }
    for (level, shape) in shapes
        .iter()
        .enumerate()
        .filter(|(_, shape)| !shape.is_empty())
    {
        let fill = colour(level as f64 / (LEVELS - 1) as f64);
        let _ = writeln!(out, "<path fill=\"{fill}\" d=\"{shape}\"/>");
    }
    let step = tick_step(columns);
    for tick in (0..columns).step_by(step) {
        text(
            &mut out,
            LEFT + (tick as f64 + 0.5) * cell,
            bottom + 14.0,
            "middle",
            &tick.to_string(),
        );
    }
    draw_scale(&mut out, bottom + 30.0, scale);
    out.push_str(CLOSE);
    out
}

/// The colours, with numbers.
fn draw_scale(out: &mut String, top: f64, scale: &Scale<'_>) {
    let width = 8.0;
    for level in 0..LEVELS {
        let x = LEFT + level as f64 * width;
        let fill = colour(level as f64 / (LEVELS - 1) as f64);
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{top}\" width=\"{width}\" height=\"10\" fill=\"{fill}\"/>"
        );
    }
    let end = LEFT + LEVELS as f64 * width;
    text(out, LEFT, top + 24.0, "start", "0");
    let most = match scale.most {
        1.0 => "1".to_owned(),
        most => format!("{most:.3}"),
    };
    text(out, end, top + 24.0, "end", &most);
    text(out, LEFT - 8.0, top + 10.0, "end", scale.name);
}

/// A round distance (1, 2, 5, 10, 20, ...) with at most twelve marks.
fn tick_step(count: usize) -> usize {
    let mut step = 1;
    while count > step * 12 {
        let leads_with_two = step.to_string().starts_with('2');
        step = if leads_with_two {
            step / 2 * 5
        } else {
            step * 2
        };
    }
    step
}

/// One dimension's bar.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    pub(super) label: String,
    /// Lengths in the order of [`PARTS`]; their sum is at most 1.
    pub(super) parts: [f64; 3],
}

/// Bars made of the three parts of a score.
pub(super) fn bars(title: &str, bars: &[Bar]) -> String {
    let (left, width, row) = (60.0, 440.0, 18.0);
    let bottom = 24.0 + bars.len() as f64 * row;
    let length = width - left - 46.0;
    let mut out = open(width, bottom + 6.0, title);
    for ((name, fill), x) in PARTS.into_iter().zip([left, left + 124.0, left + 268.0]) {
        let _ = writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"4\" width=\"10\" height=\"10\" fill=\"{fill}\"/>"
        );
        text(&mut out, x + 14.0, 13.0, "start", name);
    }
    for (at, bar) in bars.iter().enumerate() {
        let top = 24.0 + at as f64 * row;
        text(&mut out, left - 6.0, top + 12.0, "end", &bar.label);
        let mut x = left;
        for (part, (name, fill)) in bar.parts.iter().zip(PARTS) {
            let width = part * length;
            if width < 0.005 {
                // Nothing to see, and no rectangle to some programs.
                continue;
            }
            let _ = writeln!(
                out,
                "<rect x=\"{x:.2}\" y=\"{top}\" width=\"{width:.2}\" height=\"{}\" fill=\"{fill}\">\
                 <title>{name}: {part:.3}</title></rect>",
                row - 3.0
            );
            x += width;
        }
        text(
            &mut out,
            x + 5.0,
            top + 12.0,
            "start",
            &format!("{:.2}", bar.parts.iter().sum::<f64>()),
        );
    }
    out.push_str(CLOSE);
    out
}

/// What is below curves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis<'a> {
    pub(super) name: &'a str,
    /// What the places are called; without names they are numbers from 1.
    pub(super) places: &'a [&'a str],
}

impl Axis<'_> {
    fn place(&self, number: usize) -> String {
        match self.places.get(number - 1) {
            Some(name) => (*name).to_owned(),
            None => number.to_string(),
        }
    }
}

/// A line over whole numbers from 1.
#[derive(Debug, Clone)]
pub(super) struct Curve<'a> {
    pub(super) name: &'a str,
    pub(super) values: &'a [f64],
}

/// Levels that a curve is compared with, by name.
pub(super) type Level<'a> = (&'a str, f64);

const LINES: [&str; 10] = [
    "#3b6fb6", "#e0913a", "#4f9d69", "#b5476b", "#7a5ab0", "#6d6d6d", "#2aa3a3", "#a06a3a",
    "#c23b3b", "#8a9a2e",
];

/// Where accuracies over whole numbers from 1 are drawn.
struct Plane {
    least: f64,
    step: f64,
}

impl Plane {
    const LEFT: f64 = 44.0;
    const RIGHT: f64 = 428.0;
    const TOP: f64 = 12.0;
    const BOTTOM: f64 = 206.0;

    /// Room for all curves and levels up to 1.
    fn new(curves: &[Curve<'_>], levels: &[Level<'_>]) -> Self {
        let values = curves.iter().flat_map(|curve| curve.values);
        let values = values.chain(levels.iter().map(|(_, value)| value));
        let least = values.fold(0.5f64, |least, value| least.min(*value));
        Self {
            least: (least * 10.0 - 0.01).floor() / 10.0,
            step: (Self::RIGHT - Self::LEFT) / count(curves).saturating_sub(1).max(1) as f64,
        }
    }

    fn x(&self, at: usize) -> f64 {
        Self::LEFT + at as f64 * self.step
    }

    fn y(&self, value: f64) -> f64 {
        Self::BOTTOM - (value - self.least) / (1.0 - self.least) * (Self::BOTTOM - Self::TOP)
    }

    fn across(&self, out: &mut String, value: f64, style: &str) {
        let y = self.y(value);
        line(out, (Self::LEFT, y), (Self::RIGHT, y), style);
    }

    fn grid(&self, out: &mut String, below: Axis<'_>, count: usize) {
        let mut mark = 1.0;
        while mark > self.least - 0.01 {
            self.across(out, mark, "stroke-opacity=\"0.15\"");
            text(
                out,
                Self::LEFT - 6.0,
                self.y(mark) + 4.0,
                "end",
                &format!("{mark:.1}"),
            );
            mark -= 0.1;
        }
        let step = tick_step(count);
        let is_marked = |tick: &usize| match below.places {
            [] => *tick == 1 || tick.is_multiple_of(step),
            // Names start wherever they do, and the last one is worth knowing.
            _ => *tick == count || ((tick - 1).is_multiple_of(step) && tick + step / 2 < count),
        };
        for tick in (1..=count).filter(is_marked) {
            text(
                out,
                self.x(tick - 1),
                Self::BOTTOM + 16.0,
                "middle",
                &below.place(tick),
            );
        }
        text(
            out,
            (Self::LEFT + Self::RIGHT) / 2.0,
            Self::BOTTOM + 34.0,
            "middle",
            below.name,
        );
    }

    /// Dashed lines.
    fn levels(&self, out: &mut String, levels: &[Level<'_>]) {
        for (_, value) in levels {
            self.across(
                out,
                *value,
                "stroke-dasharray=\"4 3\" stroke-opacity=\"0.7\"",
            );
        }
    }

    fn curve(&self, out: &mut String, curve: &Curve<'_>, below: Axis<'_>, stroke: &str) {
        let point = |(at, value): (usize, &f64)| format!("{:.1},{:.1}", self.x(at), self.y(*value));
        let points: Vec<String> = curve.values.iter().enumerate().map(point).collect();
        if points.len() > 1 {
            let _ = writeln!(
                out,
                "<polyline fill=\"none\" stroke=\"{stroke}\" stroke-width=\"2\" points=\"{}\"/>",
                points.join(" ")
            );
        }
        if let Some((last, value)) = curve.values.iter().enumerate().next_back() {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{stroke}\"><title>{}: {value:.4} at {}</title></circle>",
                self.x(last),
                self.y(*value),
                escape(curve.name),
                below.place(last + 1)
            );
        }
    }
}

/// Names to the right of where curves and levels end, as near as they can without touching each other.
fn names_at_ends(out: &mut String, plane: &Plane, curves: &[Curve<'_>], levels: &[Level<'_>]) {
    const APART: f64 = 14.0;
    let colours = LINES.iter().cycle();
    let mut ends: Vec<(f64, &str, &str)> = curves
        .iter()
        .zip(colours)
        .filter_map(|(curve, fill)| Some((plane.y(*curve.values.last()?), curve.name, *fill)))
        .collect();
    ends.extend(
        levels
            .iter()
            .map(|(name, value)| (plane.y(*value), *name, "currentColor")),
    );
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Downwards each keeps its distance; what does not fit then moves up again from the bottom.
    let mut lowest = f64::NEG_INFINITY;
    for (y, _, _) in &mut ends {
        *y = y.max(lowest + APART);
        lowest = *y;
    }
    let mut highest = Plane::BOTTOM + APART;
    for (y, _, _) in ends.iter_mut().rev() {
        *y = y.min(highest - APART);
        highest = *y;
    }
    for (y, name, fill) in ends {
        let name = escape(name);
        let (x, y) = (Plane::RIGHT + 10.0, y + 4.0);
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{fill}\">{name}</text>"
        );
    }
}

/// Places along the longest curve.
fn count(curves: &[Curve<'_>]) -> usize {
    curves
        .iter()
        .map(|curve| curve.values.len())
        .max()
        .unwrap_or(0)
}

/// Accuracies over counts: the curves and some levels.
pub(super) fn curves(
    title: &str,
    below: Axis<'_>,
    curves: &[Curve<'_>],
    levels: &[Level<'_>],
) -> String {
    let plane = Plane::new(curves, levels);
    // A curve alone is what the title is about.
    let (named, width) = match curves {
        [_] => (&[][..], 506.0),
        several => (several, 560.0),
    };
    let mut out = open(width, Plane::BOTTOM + 44.0, title);
    plane.grid(&mut out, below, count(curves));
    plane.levels(&mut out, levels);
    for (curve, stroke) in curves.iter().zip(LINES.iter().cycle()) {
        plane.curve(&mut out, curve, below, stroke);
    }
    names_at_ends(&mut out, &plane, named, levels);
    out.push_str(CLOSE);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDI: Scale<'_> = Scale {
        name: "EDI",
        most: 1.0,
    };

    const X: Axis<'_> = Axis {
        name: "x",
        places: &[],
    };

    #[test]
    fn places_have_their_names() {
        let line = Curve {
            name: "a",
            values: &[0.5, 0.7, 0.9],
        };
        let axis = Axis {
            name: "layer",
            places: &["0", "1", "final"],
        };
        let picture = curves("t", axis, std::slice::from_ref(&line), &[]);
        assert!(picture.contains(">0</text>") && picture.contains(">final</text>"));
        assert!(!picture.contains(">3</text>"), "{picture}");
        assert!(curves("t", X, &[line], &[]).contains(">3</text>"));
    }

    #[test]
    fn reserved_characters_are_put_aside() {
        assert_eq!(
            escape("a<b> & \"c\"\u{1}"),
            "a&lt;b&gt; &amp; &quot;c&quot; "
        );
        assert!(heat_map("t", &EDI, &[("<x>", &[0.5])]).contains("&lt;x&gt;"));
    }

    #[test]
    fn colours_run_from_light_to_dark() {
        assert_eq!(colour(0.0), "#f7f6f0");
        assert_eq!(colour(1.0), "#16205a");
        assert_eq!(colour(f64::INFINITY), colour(1.0));
        assert_eq!(colour(-1.0), colour(0.0));
    }

    #[test]
    fn equal_neighbours_are_one_shape() {
        let picture = heat_map("t", &EDI, &[("a", &[0.0; 1000]), ("b", &[1.0; 1000])]);
        assert_eq!(picture.matches("<path").count(), 2);
        assert_eq!(picture.matches('M').count(), 2);
    }

    #[test]
    fn marks_are_round_and_few() {
        for count in [0, 1, 7, 30, 128, 384, 768, 1024, 5000] {
            let step = tick_step(count);
            assert!(count.div_ceil(step) <= 12, "{count}: {step}");
            let digits = step.to_string();
            assert!(
                "125".contains(&digits[..1]) && digits[1..].chars().all(|c| c == '0'),
                "{step}"
            );
        }
    }

    #[test]
    fn pictures_without_data_are_still_pictures() {
        for picture in [
            heat_map("t", &EDI, &[]),
            bars("t", &[]),
            curves("t", X, &[], &[("chance", 0.5)]),
        ] {
            assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
            assert!(
                !picture.contains("NaN") && !picture.contains("\"inf"),
                "{picture}"
            );
        }
    }
}
