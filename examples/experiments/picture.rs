//! Pictures of results: a strip per figure, a line per variant, a dot per seed and a bar at the mean.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::results::Results;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 190.0;
const LINE: f64 = 22.0;
const HEAD: f64 = 34.0;
const COLOURS: [&str; 6] = [
    "#4670b4", "#c8503c", "#3c8c50", "#965aaa", "#be8c1e", "#555555",
];

/// Draws the results.
pub(crate) fn write(path: &Path, results: &Results) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, draw(results)).with_context(|| format!("writing {}", path.display()))
}

/// Formatting into a string cannot fail, so those results are not looked at.
fn draw(results: &Results) -> String {
    let (figures, variants) = (results.figures(), results.variants());
    let strip = HEAD + LINE * variants.len() as f64 + 22.0;
    let height = strip * figures.len() as f64 + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (number, figure) in figures.iter().enumerate() {
        let top = strip * number as f64;
        strip_of(&mut svg, results, figure, top);
    }
    svg.push_str("</svg>\n");
    svg
}

fn strip_of(svg: &mut String, results: &Results, figure: &str, top: f64) {
    let variants = results.variants();
    let spreads = variants
        .iter()
        .map(|variant| results.spread(variant, figure));
    let spreads: Vec<_> = spreads.collect();
    let found = || spreads.iter().flatten();
    let least = found().map(|s| s.least()).fold(f64::INFINITY, f64::min);
    let most = found().map(|s| s.most()).fold(f64::NEG_INFINITY, f64::max);
    let room = match most - least {
        span if span > 0.0 => 0.06 * span,
        _ => 0.5,
    };
    let (from, to) = (least - room, most + room);
    let x = |value: f64| LEFT + (value - from) / (to - from) * (WIDTH - LEFT - 20.0);
    let bottom = top + HEAD + LINE * variants.len() as f64;
    let _ = writeln!(
        svg,
        "<text x=\"10\" y=\"{:.0}\" font-weight=\"bold\">{}</text>",
        top + 22.0,
        escape(figure)
    );
    for tick in 0..=4 {
        let value = from + (to - from) * f64::from(tick) / 4.0;
        let (x, digits) = (x(value), if to - from < 0.1 { 4 } else { 2 });
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.0}\" y2=\"{bottom:.0}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{:.0}\" font-size=\"11\" text-anchor=\"middle\" fill=\"#555\">{value:.digits$}</text>",
            top + HEAD,
            bottom + 13.0
        );
    }
    for (number, (variant, spread)) in variants.iter().zip(&spreads).enumerate() {
        let y = top + HEAD + LINE * (number as f64 + 0.5);
        let colour = COLOURS[number % COLOURS.len()];
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{:.1}\">{}</text>",
            y + 4.0,
            escape(variant)
        );
        let Some(spread) = spread else { continue };
        for &value in &spread.values {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\" fill-opacity=\"0.6\"/>",
                x(value)
            );
        }
        let mean = x(spread.mean());
        let _ = writeln!(
            svg,
            "<line x1=\"{mean:.1}\" x2=\"{mean:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"3\"/>",
            y - 8.0,
            y + 8.0
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Figures;
    use crate::results::Row;

    #[test]
    fn every_variant_and_figure_is_drawn_and_equal_values_have_a_place() {
        let row = |variant: &str, seed, loss| {
            Row::new(
                variant,
                seed,
                Figures::new().with("loss < 1", loss).with("flat", 2.0),
            )
        };
        let results = Results {
            rows: vec![
                row("plain", 1, 0.5),
                row("plain", 2, 0.75),
                row("other", 1, 0.25),
            ],
        };
        let svg = draw(&results);
        for part in ["plain", "other", "loss &lt; 1", "flat"] {
            assert!(svg.contains(part), "{part}");
        }
        assert_eq!(svg.matches("<circle").count(), 6);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
