//! The loss curve of a run as a picture.

use std::path::Path;

use plotters::prelude::*;

use crate::file::write_text;
use crate::run::Metric;
use crate::{Error, Result};

const SIZE: (u32, u32) = (960, 540);
const TRAINING: RGBColor = RGBColor(70, 110, 180);
/// One colour per validated source, used in turn.
const VALIDATION: [RGBColor; 4] = [
    RGBColor(200, 80, 60),
    RGBColor(60, 140, 80),
    RGBColor(150, 90, 170),
    RGBColor(190, 140, 30),
];

type Point = (f64, f64);

/// Draws training loss (smoothed) and the validation loss of each source over the steps.
pub(crate) fn write(path: &Path, title: &str, metrics: &[Metric]) -> Result<()> {
    let mut svg = String::new();
    draw(&mut svg, title, metrics).map_err(|e| Error::run_folder(path, e))?;
    write_text(path, &svg)
}

fn draw(svg: &mut String, title: &str, metrics: &[Metric]) -> std::result::Result<(), String> {
    let training = smoothed(metrics);
    let validation = by_source(metrics);
    let points = || {
        training
            .iter()
            .chain(validation.iter().flat_map(|(_, points)| points))
    };
    let steps = points().map(|p| p.0).fold(1.0, f64::max);
    let low = points().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = points().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    // Nothing finite to draw gives an empty frame rather than an error.
    let (low, high) = if low < high { (low, high) } else { (0.0, 1.0) };
    let text = |e: DrawingAreaErrorKind<_>| e.to_string();

    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(text)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..steps, (low * 0.98..high).log_scale())
        .map_err(text)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("step")
        .y_desc("loss per token")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.3}"))
        .draw()
        .map_err(text)?;
    let mut series = vec![("training", TRAINING, training)];
    let colours = VALIDATION.into_iter().cycle();
    series.extend(
        validation
            .into_iter()
            .zip(colours)
            .map(|((name, points), colour)| (name, colour, points)),
    );
    for (name, colour, points) in series {
        let line = chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))
            .map_err(text)?;
        line.label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE)
        .draw()
        .map_err(text)?;
    area.present().map_err(text)
}

/// The training loss, averaged with a weight that falls by a tenth per step; about 500 points.
fn smoothed(metrics: &[Metric]) -> Vec<Point> {
    let steps = metrics.iter().filter_map(|m| match m {
        Metric::Step(report) if report.loss.is_finite() => Some((report.step as f64, report.loss)),
        _ => None,
    });
    let mut mean = None;
    let points = steps.map(|(step, loss)| {
        let value = mean.map_or(loss, |mean: f64| 0.9 * mean + 0.1 * loss);
        mean = Some(value);
        (step, value)
    });
    let points: Vec<Point> = points.collect();
    let every = points.len().div_ceil(500).max(1);
    points.into_iter().step_by(every).collect()
}

fn by_source(metrics: &[Metric]) -> Vec<(&str, Vec<Point>)> {
    let mut sources: Vec<(&str, Vec<Point>)> = Vec::new();
    for metric in metrics {
        let Metric::Validation(report) = metric else {
            continue;
        };
        if !report.loss.is_finite() {
            continue;
        }
        let point = (report.step as f64, report.loss);
        match sources.iter_mut().find(|(name, _)| *name == report.source) {
            Some((_, points)) => points.push(point),
            None => sources.push((&report.source, vec![point])),
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{StepReport, ValidationReport};

    fn step(step: u64, loss: f64) -> Metric {
        let (rate, grad_norm, seconds) = (1e-3, 1.0, 0.1);
        Metric::Step(StepReport {
            step,
            loss,
            rate,
            grad_norm,
            tokens: 1,
            scored: 1,
            seconds,
            skipped: false,
        })
    }

    #[test]
    fn the_picture_names_every_curve_and_survives_bad_numbers() {
        let mut metrics: Vec<Metric> = (1..=2000).map(|s| step(s, 5.0 / s as f64)).collect();
        metrics.push(step(2001, f64::NAN));
        metrics.push(Metric::Validation(ValidationReport {
            step: 2000,
            source: "tales.txt".into(),
            loss: 0.5,
            perplexity: 1.6,
        }));
        let mut svg = String::new();
        draw(&mut svg, "a run", &metrics).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("tales.txt") && svg.contains("training"));
        assert!(!svg.contains("NaN") && svg.len() < 100_000, "{}", svg.len());
    }

    #[test]
    fn a_run_without_points_gives_an_empty_frame() {
        let mut svg = String::new();
        draw(&mut svg, "nothing", &[]).unwrap();
        assert!(svg.contains("loss per token"));
    }
}
