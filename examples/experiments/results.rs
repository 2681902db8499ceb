//! What experiments come to: figures of variants and seeds, as JSON and as tables.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::measure::Figures;

/// The figures of one run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) variant: String,
    pub(crate) seed: u64,
    pub(crate) figures: Vec<(String, f64)>,
}

/// All runs of an experiment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
}

/// A figure over the seeds of a variant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spread {
    pub(crate) values: Vec<f64>,
}

impl Row {
    pub(crate) fn new(variant: &str, seed: u64, figures: Figures) -> Self {
        Self {
            variant: variant.to_owned(),
            seed,
            figures: figures.0,
        }
    }
}

impl Spread {
    pub(crate) fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }

    pub(crate) fn least(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn most(&self) -> f64 {
        self.values
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max)
    }

    /// The mean, with the smallest and the largest value.
    fn text(&self) -> String {
        let digits = match self.mean().abs() {
            mean if mean >= 10.0 => 1,
            mean if mean < 0.01 => 5,
            _ => 3,
        };
        let (mean, least, most) = (self.mean(), self.least(), self.most());
        format!("{mean:.digits$} ({least:.digits$} to {most:.digits$})")
    }
}

impl Results {
    /// The variants in the order in which they were first met.
    pub(crate) fn variants(&self) -> Vec<&str> {
        unique(self.rows.iter().map(|row| row.variant.as_str()))
    }

    /// The names of the figures.
    pub(crate) fn figures(&self) -> Vec<&str> {
        let names = self.rows.iter().flat_map(|row| &row.figures);
        unique(names.map(|(name, _)| name.as_str()))
    }

    /// A figure of a variant over all seeds.
    pub(crate) fn spread(&self, variant: &str, figure: &str) -> Option<Spread> {
        let rows = self.rows.iter().filter(|row| row.variant == variant);
        let figures = rows.flat_map(|row| &row.figures);
        let values: Vec<f64> = figures
            .filter(|(name, _)| name == figure)
            .map(|(_, value)| *value)
            .collect();
        (!values.is_empty()).then_some(Spread { values })
    }

    /// A table in Markdown: a line per variant, mean and range of every figure.
    pub(crate) fn table(&self) -> String {
        let figures = self.figures();
        let mut text = format!(
            "| | {} |\n|---|{}\n",
            figures.join(" | "),
            "---|".repeat(figures.len())
        );
        for variant in self.variants() {
            let cells = figures.iter().map(|figure| {
                let spread = self.spread(variant, figure);
                spread.map_or_else(String::new, |spread| spread.text())
            });
            let cells: Vec<String> = cells.collect();
            text.push_str(&format!("| {variant} | {} |\n", cells.join(" | ")));
        }
        text
    }

    pub(crate) fn json(&self, experiment: &str) -> Value {
        let rows = self.rows.iter().map(|row| {
            let figures = row.figures.iter().map(|(name, value)| json!([name, value]));
            let figures: Vec<Value> = figures.collect();
            json!({"variant": row.variant, "seed": row.seed, "figures": figures})
        });
        let rows: Vec<Value> = rows.collect();
        json!({"experiment": experiment, "rows": rows})
    }

    /// Reads what [`write`](Self::write) wrote.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let value: Value = serde_json::from_str(&text)?;
        Self::parse(&value).with_context(|| format!("{} holds other rows", path.display()))
    }

    fn parse(value: &Value) -> Option<Self> {
        let figure = |value: &Value| Some((value[0].as_str()?.to_owned(), value[1].as_f64()?));
        let row = |row: &Value| {
            let figures = row["figures"].as_array()?;
            Some(Row {
                variant: row["variant"].as_str()?.to_owned(),
                seed: row["seed"].as_u64()?,
                figures: figures.iter().map(figure).collect::<Option<_>>()?,
            })
        };
        let rows = value["rows"].as_array()?;
        Some(Self {
            rows: rows.iter().map(row).collect::<Option<_>>()?,
        })
    }

    pub(crate) fn write(&self, path: &Path, experiment: &str) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let text = format!("{:#}\n", self.json(experiment));
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let row = |variant: &str, seed, loss: f64| {
            Row::new(
                variant,
                seed,
                Figures::new().with("loss", loss).with("words", 20.0),
            )
        };
        Results {
            rows: vec![row("a", 1, 0.25), row("b", 1, 0.5), row("a", 2, 0.35)],
        }
    }

    #[test]
    fn a_table_has_mean_and_range_of_every_variant() {
        let expected = "| | loss | words |\n|---|---|---|\n\
                        | a | 0.300 (0.250 to 0.350) | 20.0 (20.0 to 20.0) |\n\
                        | b | 0.500 (0.500 to 0.500) | 20.0 (20.0 to 20.0) |\n";
        assert_eq!(results().table(), expected);
        assert_eq!(results().spread("c", "loss"), None);
    }

    #[test]
    fn results_are_read_as_they_were_written() {
        let results = results();
        assert_eq!(Results::parse(&results.json("x")), Some(results));
        assert_eq!(Results::parse(&json!({"rows": [{"variant": 1}]})), None);
    }
}
