//! The page of a run: its curves, its last figures and its settings, in one file without scripts.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::file::write_text;
use crate::plot::{self, Chart, Scale, smoothed};
use crate::progress::{StepReport, ValidationReport};
use crate::run::Metric;
use crate::{Error, Result};

const HEAD: &str = "<!doctype html><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width\"><style>\
body{font:16px/1.5 sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}\
svg{max-width:100%;height:auto}table{border-collapse:collapse}\
td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ccc}\
pre{background:#f4f4f4;padding:1rem;overflow:auto}</style>";

/// Writes the page.
pub(crate) fn write(path: &Path, name: &str, identity: &Value, metrics: &[Metric]) -> Result<()> {
    let page = page(name, identity, metrics).map_err(|e| Error::run_folder(path, e))?;
    write_text(path, &page)
}

/// Formatting into a string cannot fail, so those results are not looked at.
fn page(name: &str, identity: &Value, metrics: &[Metric]) -> std::result::Result<String, String> {
    let steps: Vec<&StepReport> = steps(metrics).collect();
    let name = escape(name);
    let mut page = format!("{HEAD}<title>{name}</title><h1>{name}</h1>");
    if let Some(last) = steps.last() {
        let tokens: usize = steps.iter().map(|s| s.tokens).sum();
        let seconds: f64 = steps.iter().map(|s| s.seconds).sum();
        let skipped = steps.iter().filter(|s| s.skipped).count();
        let _ = write!(
            page,
            "<p>{} steps, {tokens} tokens, {seconds:.0} seconds ({:.0} tokens per second); {skipped} \
             steps left out. Loss of the last step {:.4}.</p>",
            last.step,
            tokens as f64 / seconds.max(1e-9),
            last.loss
        );
    }
    validation_table(&mut page, metrics);
    page.push_str(&plot::loss("loss", metrics)?);
    let figures: BTreeSet<&str> = steps
        .iter()
        .flat_map(|s| s.figures.keys().map(String::as_str))
        .collect();
    for figure in figures {
        page.push_str(&curve(figure, Scale::Linear, &steps, |s| {
            s.figures.get(figure).copied()
        })?);
    }
    page.push_str(&curve("gradient norm", Scale::Logarithmic, &steps, |s| {
        Some(s.grad_norm)
    })?);
    page.push_str(&curve("learning rate", Scale::Linear, &steps, |s| {
        Some(s.rate)
    })?);
    let _ = write!(
        page,
        "<h2>Settings</h2><pre>{}</pre>",
        escape(&format!("{identity:#}"))
    );
    Ok(page)
}

fn steps(metrics: &[Metric]) -> impl Iterator<Item = &StepReport> {
    metrics.iter().filter_map(|m| match m {
        Metric::Step(report) => Some(report),
        Metric::Validation(_) => None,
    })
}

/// The last validation of every source.
fn validation_table(page: &mut String, metrics: &[Metric]) {
    let reports = metrics.iter().filter_map(|m| match m {
        Metric::Validation(report) => Some(report),
        Metric::Step(_) => None,
    });
    let last = reports.clone().map(|report| report.step).max();
    let reports: Vec<&ValidationReport> = reports.filter(|r| Some(r.step) == last).collect();
    if reports.is_empty() {
        return;
    }
    page.push_str("<table><tr><th>kept-out part of<th>loss<th>perplexity<th>further");
    for report in reports {
        let perplexity = report
            .perplexity
            .map_or(String::new(), |p| format!("{p:.3}"));
        let figures = report.figures.iter();
        let figures: Vec<String> = figures.map(|(n, v)| format!("{n} {v:.4}")).collect();
        let _ = write!(
            page,
            "<tr><td>{}<td>{:.4}<td>{perplexity}<td>{}",
            escape(&report.source),
            report.loss,
            escape(&figures.join(", "))
        );
    }
    page.push_str("</table>");
}

fn curve(
    label: &str,
    scale: Scale,
    steps: &[&StepReport],
    value: impl Fn(&StepReport) -> Option<f64>,
) -> std::result::Result<String, String> {
    let points = steps
        .iter()
        .filter_map(|s| value(s).map(|value| (s.step as f64, value)));
    Chart {
        title: label,
        label,
        scale,
        curves: vec![(label, smoothed(points))],
    }
    .svg()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_holds_every_curve_and_no_markup_of_names() {
        let report = |step: u64| {
            Metric::Step(StepReport {
                step,
                loss: 1.0,
                rate: 1e-3,
                grad_norm: 2.0,
                tokens: 10,
                scored: 9,
                seconds: 0.5,
                skipped: false,
                figures: [("accuracy".to_string(), 0.75)].into(),
            })
        };
        let mut metrics: Vec<Metric> = (1..=3).map(report).collect();
        metrics.push(Metric::Validation(ValidationReport {
            step: 3,
            source: "<b>.jsonl".into(),
            loss: 0.25,
            perplexity: None,
            figures: Default::default(),
        }));
        let page = page("a <run>", &json!({"seed": 7}), &metrics).unwrap();
        assert!(page.contains("a &lt;run&gt;") && page.contains("&lt;b&gt;.jsonl"));
        assert!(page.contains("accuracy") && page.contains("gradient norm"));
        assert!(page.contains("3 steps, 30 tokens") && page.contains("0.2500"));
        assert!(page.contains("&quot;seed&quot;: 7"));
    }
}
