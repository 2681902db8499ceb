//! Curves of a run as pictures.

use std::path::Path;

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
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

/// A step and a value.
pub(crate) type Point = (f64, f64);

/// How values are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    /// Values that are not above 0 are left out.
    Logarithmic,
}

/// A picture of curves over the steps of a run.
#[derive(Debug)]
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    /// What the values are.
    pub(crate) label: &'a str,
    pub(crate) scale: Scale,
    /// Name and points of every curve; the first is the training.
    pub(crate) curves: Vec<(&'a str, Vec<Point>)>,
}

/// Draws training loss (smoothed) and the validation loss of each source over the steps.
pub(crate) fn write(path: &Path, title: &str, metrics: &[Metric]) -> Result<()> {
    let svg = loss(title, metrics).map_err(|e| Error::run_folder(path, e))?;
    write_text(path, &svg)
}

/// The picture of the losses.
pub(crate) fn loss(title: &str, metrics: &[Metric]) -> std::result::Result<String, String> {
    let steps = metrics.iter().filter_map(|m| match m {
        Metric::Step(report) => Some((report.step as f64, report.loss)),
        Metric::Validation(_) => None,
    });
    let mut curves = vec![("training", smoothed(steps))];
    curves.extend(by_source(metrics));
    Chart {
        title,
        label: "loss",
        scale: Scale::Logarithmic,
        curves,
    }
    .svg()
}

impl Chart<'_> {
    /// The picture as text.
    pub(crate) fn svg(mut self) -> std::result::Result<String, String> {
        let drawable =
            |value: f64| value.is_finite() && (self.scale == Scale::Linear || value > 0.0);
        for (_, points) in &mut self.curves {
            points.retain(|point| drawable(point.1));
        }
        let points = || self.curves.iter().flat_map(|(_, points)| points);
        let steps = points().map(|p| p.0).fold(1.0, f64::max);
        let low = points().map(|p| p.1).fold(f64::INFINITY, f64::min);
        let high = points().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
        // Nothing to draw gives an empty frame rather than an error, one value a frame around it.
        let (low, high) = match low.partial_cmp(&high) {
            Some(std::cmp::Ordering::Less) => (low, high),
            Some(std::cmp::Ordering::Equal) if low > 0.0 => (0.5 * low, 2.0 * low),
            Some(std::cmp::Ordering::Equal) => (low - 1.0, low + 1.0),
            _ => (0.1, 1.0),
        };
        let mut svg = String::new();
        match self.scale {
            Scale::Linear => self.draw(&mut svg, steps, low..high)?,
            Scale::Logarithmic => self.draw(&mut svg, steps, (low * 0.98..high).log_scale())?,
        }
        Ok(svg)
    }

    fn draw<Y>(&self, svg: &mut String, steps: f64, range: Y) -> std::result::Result<(), String>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    {
        let text = |e: DrawingAreaErrorKind<_>| e.to_string();
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(text)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..steps, range)
            .map_err(text)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("step")
            .y_desc(self.label)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| short(*y))
            .draw()
            .map_err(text)?;
        let colours = std::iter::once(TRAINING).chain(VALIDATION.into_iter().cycle());
        for ((name, points), colour) in self.curves.iter().zip(colours) {
            let line = chart
                .draw_series(LineSeries::new(
                    points.iter().copied(),
                    colour.stroke_width(2),
                ))
                .map_err(text)?;
            line.label(*name).legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
            });
        }
        chart
            .configure_series_labels()
            .border_style(BLACK.mix(0.3))
            .background_style(WHITE)
            .draw()
            .map_err(text)?;
        area.present().map_err(text)
    }
}

/// A value with about four digits, whatever its size.
fn short(value: f64) -> String {
    if value != 0.0 && !(1e-3..1e5).contains(&value.abs()) {
        format!("{value:.1e}")
    } else {
        format!("{value:.3}")
    }
}

/// Points averaged with a weight that falls by a tenth per step; about 500 of them.
pub(crate) fn smoothed(points: impl Iterator<Item = Point>) -> Vec<Point> {
    let mut mean = None;
    let points = points.filter(|p| p.1.is_finite()).map(|(step, value)| {
        let value = mean.map_or(value, |mean: f64| 0.9 * mean + 0.1 * value);
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
            figures: Default::default(),
        })
    }

    #[test]
    fn the_picture_names_every_curve_and_survives_bad_numbers() {
        let mut metrics: Vec<Metric> = (1..=2000).map(|s| step(s, 5.0 / s as f64)).collect();
        metrics.push(step(2001, f64::NAN));
        metrics.push(step(2002, 0.0));
        metrics.push(Metric::Validation(ValidationReport {
            step: 2000,
            source: "tales.txt".into(),
            loss: 0.5,
            perplexity: Some(1.6),
            figures: Default::default(),
        }));
        let svg = loss("a run", &metrics).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("tales.txt") && svg.contains("training"));
        assert!(!svg.contains("NaN") && svg.len() < 100_000, "{}", svg.len());
    }

    #[test]
    fn a_run_without_points_gives_an_empty_frame() {
        assert!(loss("nothing", &[]).unwrap().contains("step"));
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let chart = Chart {
                title: "one",
                label: "value",
                scale,
                curves: vec![("flat", vec![(1.0, 0.0), (2.0, 0.0)])],
            };
            assert!(chart.svg().unwrap().contains("value"));
        }
    }
}
