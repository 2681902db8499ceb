//! What a study found, in plain words.

use super::DimensionShares;
use crate::split::SplitBy;
use crate::study::{CONTROL, LayerStudy, PropertyStudy, Select, Study};

/// Accuracies this near to one half cannot be told from guessing on a few hundred rows.
const GUESSING: f64 = 0.06;
/// From this baseline on a property counts as readable from a layer.
const READABLE: f64 = 0.9;
/// From this baseline on it is worth saying where a property is kept.
const CLEAR: f64 = 0.75;
/// Scores below this on every property count as silent.
const SILENT: f64 = 0.2;

pub(super) fn percent(share: f64) -> String {
    // A space that does not break.
    format!("{:.1}\u{a0}%", 100.0 * share)
}

/// The most important findings, one sentence or two each.
pub(super) fn findings(
    study: &Study,
    layers: &[LayerStudy],
    shares: &[DimensionShares],
) -> Vec<String> {
    let mut found: Vec<String> = study
        .properties
        .iter()
        .map(|property| of_property(property, study))
        .collect();
    found.extend(silent(study));
    found.extend(classifier(study));
    found.extend(layers_of(layers));
    found.extend(lightest(shares));
    found.extend(warnings(study));
    found
}

fn of_property(property: &PropertyStudy, study: &Study) -> String {
    let found = &property.evaluation;
    let name = &property.name;
    let baseline = percent(found.baseline);
    if name == CONTROL {
        let verdict = if (found.baseline - 0.5).abs() <= 2.0 * GUESSING {
            "as guessing would"
        } else {
            "far from guessing: something besides the properties tells the sides apart"
        };
        return format!(
            "{name}: sides are random here, and regressions tell {baseline} of them right, {verdict}."
        );
    }
    if property.significant == 0 {
        return format!(
            "{name}: no dimension differs significantly between the sides, so even the highest scores are noise; all \
             dimensions together tell {baseline} of unseen sentences right."
        );
    }
    if found.baseline < 0.5 + GUESSING {
        return format!(
            "{name}: hardly readable. All {} dimensions together tell {baseline} of unseen sentences right, where \
             guessing gives 50 %, although {} dimensions differ significantly.",
            study.dims, property.significant
        );
    }
    let needed = match found.dims_needed {
        Some(1) => "a single dimension reaches".to_owned(),
        Some(count) => format!("the best {count} alone reach"),
        None => "no choice of dimensions tried reaches".to_owned(),
    };
    // Where little can be read, how many dimensions it takes says nothing.
    let spread = match found.dims_needed.filter(|_| found.baseline >= CLEAR) {
        Some(count) if count <= 3.max(study.dims / 100) => " It is kept in very few places.",
        Some(count) if count * 4 >= study.dims => " It is spread over much of the embedding.",
        _ => "",
    };
    let top = property.order.first().map_or_else(String::new, |&dim| {
        format!(
            " Dimension {dim} scores highest ({:.2}).",
            property.scores.edi[dim]
        )
    });
    format!(
        "{name}: all {} dimensions together tell {baseline} of unseen sentences right; {needed} {:.0} % of that.{top}{spread}",
        study.dims,
        100.0 * study.options.reach
    )
}

/// Dimensions that no property needs.
fn silent(study: &Study) -> Option<String> {
    let others: Vec<&PropertyStudy> = study
        .properties
        .iter()
        .filter(|property| property.name != CONTROL)
        .collect();
    if others.len() < 2 {
        return None;
    }
    let is_silent = |dim: &usize| {
        others
            .iter()
            .all(|property| property.scores.edi[*dim] < SILENT)
    };
    let count = (0..study.dims).filter(is_silent).count();
    Some(format!(
        "{count} of {} dimensions score below {SILENT} on every property.",
        study.dims
    ))
}

fn classifier(study: &Study) -> Option<String> {
    let classifier = study.classifier.as_ref()?;
    let weakest = classifier
        .classes
        .iter()
        .min_by(|a, b| a.f1.total_cmp(&b.f1))?;
    Some(format!(
        "From the difference of a pair's embeddings alone, its property is told right for {} of unseen pairs (guessing: {}); \
         {} is hardest (F1 {:.2}).",
        percent(classifier.accuracy),
        percent(1.0 / classifier.classes.len() as f64),
        weakest.name,
        weakest.f1
    ))
}

/// The first layer that each property can be read from.
fn layers_of(layers: &[LayerStudy]) -> Option<String> {
    let first = layers.first()?;
    let readable = |name: &str| {
        let is = |layer: &&LayerStudy| {
            let of = layer
                .properties
                .iter()
                .find(|property| property.name == name);
            of.is_some_and(|property| property.baseline >= READABLE)
        };
        layers.iter().find(is).map(|layer| layer.layer.as_str())
    };
    let names = first
        .properties
        .iter()
        .map(|property| property.name.as_str());
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in names.filter(|name| *name != CONTROL) {
        match readable(name) {
            Some(layer) => found.push(format!("{name} first at layer {layer}")),
            None => missing.push(name),
        }
    }
    let mut parts = Vec::new();
    if !found.is_empty() {
        parts.push(found.join(", "));
    }
    if !missing.is_empty() {
        parts.push(format!("at no layer {}", missing.join(", ")));
    }
    let parts = parts.join("; ");
    (!parts.is_empty()).then(|| format!("Readable with {} accuracy: {parts}.", percent(READABLE)))
}

/// How many dimensions a late-interaction score hardly uses.
fn lightest(shares: &[DimensionShares]) -> Option<String> {
    let dims = shares
        .iter()
        .map(|set| set.shares.len())
        .min()
        .filter(|dims| *dims > 0)?;
    let even = 1.0 / dims as f64;
    let mean = |dim: usize| {
        let own = shares.iter().filter_map(|set| set.shares.get(dim));
        own.sum::<f64>() / shares.len() as f64
    };
    let light = (0..dims).filter(|&dim| mean(dim) < 0.5 * even).count();
    Some(format!(
        "{light} of {dims} dimensions have less than half of an even share in the MaxSim score between the sentences of a pair."
    ))
}

/// Choices that flatter the figures.
fn warnings(study: &Study) -> Vec<String> {
    let mut warnings = Vec::new();
    if study.options.split == SplitBy::Sentence {
        warnings.push(
            "Sentences were split one by one, as published: a sentence can be tested whose near-twin with the other \
             label was learned. Accuracies of useless dimensions fall below 50 % for that reason."
                .to_owned(),
        );
    }
    if study.options.select == Select::All {
        warnings.push(
            "Test and mutual information saw the rows that accuracies are measured on, as published.".to_owned(),
        );
    }
    let small = study
        .properties
        .iter()
        .map(|property| property.test_rows)
        .min()
        .unwrap_or(0);
    if small < 100 {
        let step = percent(1.0 / small.max(1) as f64);
        warnings.push(format!(
            "Accuracies rest on as few as {small} rows: one row more or less is {step}."
        ));
    }
    warnings
}
