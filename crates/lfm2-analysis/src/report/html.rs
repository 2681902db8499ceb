//! The page of a report.

use std::fmt::Write as _;

use super::summary::{findings, percent};
use super::svg::{self, Axis, Bar, Curve, PARTS, Scale, escape};
use super::{DimensionShares, Report, ReportInfo};
use crate::study::{ClassifierStudy, LayerStudy, PropertyStudy, Study, StudyOptions};

/// Dimensions in a bar chart.
const BARS: usize = 15;

const STYLE: &str = "
:root{color-scheme:light dark;--line:#8884;--soft:#8882}
body{font:16px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin-top:2.4rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1.6rem 0 .2rem}.where{opacity:.75;margin-top:0}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .5rem;text-align:right;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}td{white-space:nowrap}th{font-weight:600;vertical-align:bottom}
.wide{overflow-x:auto}.pair{display:flex;flex-wrap:wrap;gap:1rem}.pair svg{max-width:100%;height:auto}
.heat svg{width:100%;height:auto}.cell{color:#111}.cell.dark{color:#fff}
code,pre{background:var(--soft);border-radius:4px;padding:.1rem .3rem;font-size:.85rem;white-space:pre-wrap}
li{margin:.3rem 0}dt{font-weight:600;margin-top:.6rem}dd{margin-left:0}
";

pub(super) fn page(report: &Report<'_>) -> String {
    let Report {
        study,
        info,
        layers,
        shares,
    } = *report;
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Dimensions of {model}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Which dimension says what</h1>\n<p class=\"where\">{model}: {dims} dimensions, {properties} properties, \
         {pairs} pairs from {source}</p>\n",
        model = escape(or(&info.model, "unnamed encoder")),
        dims = study.dims,
        properties = study.properties.len(),
        pairs = study
            .properties
            .iter()
            .map(|property| property.pairs)
            .sum::<usize>(),
        source = escape(or(&info.pairs, "an unnamed source")),
    );
    section(
        &mut out,
        "In short",
        &list(&findings(study, layers, shares)),
    );
    section(&mut out, "Properties", &properties(study));
    section(
        &mut out,
        "All dimensions",
        &format!("<div class=\"heat\">\n{}</div>\n", heat_map(study)),
    );
    if !layers.is_empty() {
        let picture = layer_curves(study, layers);
        section(
            &mut out,
            "From layer to layer",
            &format!("<div class=\"pair\">\n{picture}</div>\n"),
        );
    }
    if !shares.is_empty() {
        let picture = share_map(shares);
        section(
            &mut out,
            "What scores are from",
            &format!("<p>{SHARES}</p>\n<div class=\"heat\">\n{picture}</div>\n"),
        );
    }
    let each: String = study
        .properties
        .iter()
        .map(|property| one(property, study))
        .collect();
    section(&mut out, "Property by property", &each);
    if study.properties.len() > 1 {
        section(
            &mut out,
            "Dimensions of one property on another",
            &cross(study),
        );
    }
    if let Some(classifier) = &study.classifier {
        section(
            &mut out,
            "Which property is a pair?",
            &confusion(classifier),
        );
    }
    section(&mut out, "How to read this", READING);
    section(&mut out, "Settings", &settings(study, info));
    out.push_str("</body>\n</html>\n");
    out
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

fn section(out: &mut String, title: &str, content: &str) {
    let _ = write!(out, "<h2>{title}</h2>\n{content}");
}

fn list(items: &[String]) -> String {
    let items: String = items
        .iter()
        .map(|item| format!("<li>{}</li>\n", escape(item)))
        .collect();
    format!("<ul>\n{items}</ul>\n")
}

/// A table of texts; cells that start with `<td` are taken as they are.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = String::from("<div class=\"wide\"><table>\n<tr>");
    for name in header {
        let _ = write!(out, "<th>{}</th>", escape(name));
    }
    out.push_str("</tr>\n");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            if cell.starts_with("<td") {
                out.push_str(cell);
            } else {
                let _ = write!(out, "<td>{}</td>", escape(cell));
            }
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
    out
}

/// A cell on the colour of `share`.
fn coloured(share: f64, words: &str) -> String {
    let dark = if share > 0.55 { " dark" } else { "" };
    let colour = svg::colour(share);
    format!(
        "<td class=\"cell{dark}\" style=\"background:{colour}\">{}</td>",
        escape(words)
    )
}

fn properties(study: &Study) -> String {
    let low = study
        .properties
        .first()
        .map_or(0, |property| property.evaluation.low_dims);
    let lowest = format!("lowest {low}");
    let reach = format!("dimensions to {:.0} %", 100.0 * study.options.reach);
    let above = format!("EDI > {}", study.options.cut_off);
    let left = format!("best {} by elimination", study.options.keep.min(study.dims));
    let header = [
        "",
        "pairs",
        "all",
        &lowest,
        &reach,
        &left,
        "best of another",
        "significant",
        &above,
        "top (EDI)",
    ];
    let rows: Vec<Vec<String>> = study
        .properties
        .iter()
        .map(|property| {
            let found = &property.evaluation;
            let cross = found.best_cross().map_or_else(
                || "–".to_owned(),
                |cross| format!("{} {}", percent(cross.accuracy), cross.from),
            );
            let top = property.order.first().map_or_else(
                || "–".to_owned(),
                |&dim| format!("{dim} ({:.2})", property.scores.edi[dim]),
            );
            vec![
                property.name.clone(),
                property.pairs.to_string(),
                percent(found.baseline),
                percent(found.low),
                found
                    .dims_needed
                    .map_or_else(|| "–".to_owned(), |count| count.to_string()),
                percent(found.eliminated),
                cross,
                format!("{} of {}", property.significant, study.dims),
                property.above_cut_off.to_string(),
                top,
            ]
        })
        .collect();
    format!(
        "<p>Share of unseen sentences whose side is told right with the dimensions named; guessing gives 50 %.</p>\n{}",
        table(&header, &rows)
    )
}

pub(super) fn heat_map(study: &Study) -> String {
    let rows: Vec<(&str, &[f64])> = study
        .properties
        .iter()
        .map(|property| (property.name.as_str(), property.scores.edi.as_slice()))
        .collect();
    svg::heat_map(
        "EDI of every dimension (across) for every property (down)",
        &Scale {
            name: "EDI",
            most: 1.0,
        },
        &rows,
    )
}

/// The share of every dimension in scores.
pub(super) fn share_map(shares: &[DimensionShares]) -> String {
    let rows: Vec<(&str, &[f64])> = shares
        .iter()
        .map(|set| (set.name.as_str(), set.shares.as_slice()))
        .collect();
    let most = rows
        .iter()
        .flat_map(|(_, shares)| *shares)
        .copied()
        .fold(1e-9, f64::max);
    svg::heat_map(
        "Share of every dimension (across) in MaxSim, for the pairs of every property (down)",
        &Scale {
            name: "share",
            most,
        },
        &rows,
    )
}

/// Accuracy with all dimensions, layer by layer.
pub(super) fn layer_curves(study: &Study, layers: &[LayerStudy]) -> String {
    let values: Vec<(&str, Vec<f64>)> = study
        .properties
        .iter()
        .map(|property| {
            let of = |layer: &LayerStudy| {
                let found = layer
                    .properties
                    .iter()
                    .find(|other| other.name == property.name);
                found.map(|found| found.baseline)
            };
            (
                property.name.as_str(),
                layers.iter().filter_map(of).collect(),
            )
        })
        .collect();
    let curves: Vec<Curve<'_>> = values
        .iter()
        .map(|(name, values)| Curve { name, values })
        .collect();
    let names: Vec<&str> = layers.iter().map(|layer| layer.layer.as_str()).collect();
    svg::curves(
        "Accuracy with all dimensions of a layer",
        Axis {
            name: "layer",
            places: &names,
        },
        &curves,
        &[("guessing", 0.5)],
    )
}

pub(super) fn top_dimensions(property: &PropertyStudy) -> String {
    let scores = &property.scores;
    let bars: Vec<Bar> = property
        .order
        .iter()
        .take(BARS)
        .map(|&dim| Bar {
            label: dim.to_string(),
            parts: scores.weighted(dim),
        })
        .collect();
    svg::bars(
        &format!("{}: dimensions with the highest EDI", property.name),
        &bars,
    )
}

pub(super) fn climb(property: &PropertyStudy, options: &StudyOptions) -> String {
    let found = &property.evaluation;
    let target = format!("{:.0} % of all", 100.0 * options.reach);
    svg::curves(
        &format!("{}: accuracy with the best dimensions", property.name),
        Axis {
            name: "best dimensions used",
            places: &[],
        },
        &[Curve {
            name: &property.name,
            values: &found.climb,
        }],
        &[
            ("all", found.baseline),
            (&target, options.reach * found.baseline),
            ("guessing", 0.5),
        ],
    )
}

fn one(property: &PropertyStudy, study: &Study) -> String {
    format!(
        "<h3>{}</h3>\n<div class=\"pair\">\n{}{}</div>\n",
        escape(&property.name),
        top_dimensions(property),
        climb(property, &study.options)
    )
}

fn cross(study: &Study) -> String {
    let mut header = vec![""];
    header.extend(
        study
            .properties
            .iter()
            .map(|property| property.name.as_str()),
    );
    let rows: Vec<Vec<String>> = study
        .properties
        .iter()
        .map(|property| {
            let mut row = vec![property.name.clone()];
            row.extend(study.properties.iter().map(|other| {
                let found = property
                    .evaluation
                    .cross
                    .iter()
                    .find(|cross| cross.from == other.name);
                // One half is guessing; the colours begin there.
                found.map_or_else(
                    || "·".to_owned(),
                    |cross| {
                        coloured(
                            2.0 * cross.accuracy - 1.0,
                            &format!("{:.2}", cross.accuracy),
                        )
                    },
                )
            }));
            row
        })
        .collect();
    format!(
        "<p>Accuracy on the property of the row with the best {} dimensions of the property of the column.</p>\n{}",
        study.options.cross.min(study.dims),
        table(&header, &rows)
    )
}

fn confusion(classifier: &ClassifierStudy) -> String {
    let mut header = vec![""];
    header.extend(classifier.classes.iter().map(|class| class.name.as_str()));
    header.push("F1");
    let rows: Vec<Vec<String>> = classifier
        .classes
        .iter()
        .zip(&classifier.confusion)
        .map(|(class, counts)| {
            let mut row = vec![class.name.clone()];
            let share = |count: usize| count as f64 / class.pairs.max(1) as f64;
            row.extend(
                counts
                    .iter()
                    .map(|&count| coloured(share(count), &count.to_string())),
            );
            row.push(format!("{:.2}", class.f1));
            row
        })
        .collect();
    format!(
        "<p>Unseen pairs of the property of the row, by the property they were taken for: {} right, weighted F1 {:.3}.</p>\n{}",
        percent(classifier.accuracy),
        classifier.weighted_f1,
        table(&header, &rows)
    )
}

const SHARES: &str = "With the first sentence of a pair as the question and the second as the document, MaxSim is a sum over \
dimensions; this is each one\u{2019}s share of the sum over all pairs. A pale column carries little of what the model compares texts by.";

const READING: &str = "<dl>
<dt>Pairs</dt><dd>Each pair differs in one property only: present and past, with and without a negation, and so on. \
The first sentence is the plain side. In the control set both sides are drawn at random.</dd>
<dt>EDI</dt><dd>A score from 0 to 1 for each dimension and property: 0.6 of a signed-rank test (do the differences lean to \
one side?), 0.2 of mutual information (what does the value tell about the side?), 0.2 of recursive elimination (how \
large is its weight among the dimensions that a regression keeps?). Each part is stretched to 0 to 1 within the \
property, so the best dimension of a property that is not encoded at all scores high as well: look at the number of \
significant dimensions beside it.</dd>
<dt>Significant</dt><dd>Dimensions whose p-value, adjusted for the number of dimensions (Benjamini and Hochberg), is \
below the limit in the settings.</dd>
<dt>Accuracy</dt><dd>A logistic regression learns from four fifths of the rows which side a sentence is on; its accuracy is \
measured on the rest.</dd>
</dl>
";

fn settings(study: &Study, info: &ReportInfo) -> String {
    let mut out = String::new();
    if !info.command.is_empty() {
        let _ = writeln!(out, "<pre>{}</pre>", escape(&info.command));
    }
    if !info.notes.is_empty() {
        out.push_str(&list(&info.notes));
    }
    // Options are plain values, which always have a form in JSON.
    let options = serde_json::to_value(&study.options).unwrap_or_default();
    let rows: Vec<Vec<String>> = options
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            vec![key.replace('_', " "), value]
        })
        .collect();
    out.push_str(&table(&["setting", "value"], &rows));
    let parts: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    let _ = writeln!(
        out,
        "<p>Parts of the score: {}. Tables and pictures lie beside this page as CSV and SVG, everything together in \
         <code>study.json</code>. Dimensions are numbered from 0.</p>",
        parts.join(", ")
    );
    out
}
