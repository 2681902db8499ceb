//! Recipes of merges, in the words of mergekit.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Combine, Method, Rescale, Sparsify, TrimScope};
use crate::options::ExportDtype;
use crate::{Error, Result};

/// A merge of checkpoint folders.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeRecipe {
    /// How they are merged.
    pub method: Method,
    /// What the models were fine-tuned from.
    pub base: Option<PathBuf>,
    /// The models and their weights.
    pub models: Vec<(PathBuf, f64)>,
    /// Fixes which changes are dropped.
    pub seed: u64,
    /// Number type of the result; `None` keeps that of the base, or of the first model.
    pub dtype: Option<ExportDtype>,
}

/// A recipe as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    merge_method: Name,
    #[serde(default)]
    base_model: Option<PathBuf>,
    models: Vec<WrittenModel>,
    #[serde(default)]
    parameters: Settings,
    #[serde(default)]
    dtype: Option<WrittenDtype>,
    #[serde(default)]
    seed: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenModel {
    model: PathBuf,
    #[serde(default)]
    parameters: Settings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    Linear,
    TaskArithmetic,
    Ties,
    DareLinear,
    DareTies,
    Della,
    DellaLinear,
    Slerp,
}

/// Settings of a model or of all; those of a model win.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    weight: Option<f64>,
    density: Option<f64>,
    epsilon: Option<f64>,
    lambda: Option<f64>,
    t: Option<f64>,
    normalize: Option<bool>,
    rescale: Option<bool>,
    scope: Option<TrimScope>,
    /// Accepted for its recipes; masks are never held here.
    int8_mask: Option<bool>,
}

impl Settings {
    fn or(self, other: Self) -> Self {
        Self {
            weight: self.weight.or(other.weight),
            density: self.density.or(other.density),
            epsilon: self.epsilon.or(other.epsilon),
            lambda: self.lambda.or(other.lambda),
            t: self.t.or(other.t),
            normalize: self.normalize.or(other.normalize),
            rescale: self.rescale.or(other.rescale),
            scope: self.scope.or(other.scope),
            int8_mask: self.int8_mask.or(other.int8_mask),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenDtype {
    Bfloat16,
    Float32,
}

impl MergeRecipe {
    /// Reads a recipe in YAML (or JSON) in the words of mergekit: `merge_method`, `base_model`,
    /// `models` with `model` and `parameters` (`weight`, `density`, `epsilon`), `parameters`
    /// (`lambda`, `t`, `normalize`, `rescale`), `dtype`. Here alone: `seed`, and `scope` (`tensor` or
    /// `model`) for trimming. Relative folders start at the recipe's own.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::RunFolder`] naming the line of what is not a recipe, unknown keys
    /// among it; as [`Method::validate`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, folder).map_err(|error| match error {
            Error::InvalidOption { key, detail } => {
                Error::run_folder(path, format!("{key}: {detail}"))
            }
            other => other,
        })
    }

    fn parse(text: &str, folder: &Path) -> Result<Self> {
        let written: Written =
            serde_saphyr::from_str(text).map_err(|e| Error::option("recipe", e.to_string()))?;
        let base = written.base_model.map(|path| folder.join(path));
        let mut models: Vec<(PathBuf, f64)> = Vec::new();
        let mut settings = Vec::new();
        for model in written.models {
            let of_model = model.parameters.or(written.parameters);
            let path = folder.join(model.model);
            let is_base = base.as_ref() == Some(&path);
            let place = match written.merge_method {
                // The arc begins at the base.
                Name::Slerp if is_base => 0,
                // Listed among the models as well, the base itself adds no change.
                _ if is_base => continue,
                _ => models.len(),
            };
            models.insert(place, (path, of_model.weight.unwrap_or(1.0)));
            settings.push(of_model);
        }
        let shared = shared(written.parameters, &settings)?;
        let method = method(written.merge_method, shared)?;
        let needs_base = method.needs_base();
        if normalises(written.merge_method, shared) {
            let sum: f64 = models.iter().map(|(_, weight)| weight).sum();
            if sum == 0.0 {
                return Err(Error::option(
                    "weight",
                    "expected weights with a sum, found 0",
                ));
            }
            models.iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
        let recipe = Self {
            method,
            base: base.filter(|_| needs_base),
            models,
            seed: written.seed,
            dtype: written.dtype.map(|dtype| match dtype {
                WrittenDtype::Bfloat16 => ExportDtype::Bf16,
                WrittenDtype::Float32 => ExportDtype::F32,
            }),
        };
        let weights: Vec<f64> = recipe.models.iter().map(|(_, weight)| *weight).collect();
        recipe.method.validate(&weights)?;
        Ok(recipe)
    }
}

/// Whether weights are divided by their sum.
fn normalises(name: Name, settings: Settings) -> bool {
    match name {
        Name::Linear => settings.normalize.unwrap_or(true),
        Name::TaskArithmetic | Name::DareLinear | Name::DellaLinear => {
            settings.normalize.unwrap_or(false)
        }
        Name::Ties | Name::DareTies | Name::Della | Name::Slerp => false,
    }
}

/// The settings of all models, where they are the same.
fn shared(all: Settings, of_models: &[Settings]) -> Result<Settings> {
    let without_weight = |settings: &Settings| Settings {
        weight: None,
        ..*settings
    };
    let first = of_models.first().map_or(all, without_weight);
    if of_models.iter().any(|s| without_weight(s) != first) {
        let detail = "expected the same density and epsilon for every model, found several";
        return Err(Error::option("parameters", detail));
    }
    Ok(first)
}

fn method(name: Name, settings: Settings) -> Result<Method> {
    let density = settings.density.unwrap_or(match name {
        Name::TaskArithmetic => 1.0,
        _ => 0.5,
    });
    let epsilon = settings.epsilon.unwrap_or(0.15);
    let lambda = settings.lambda.unwrap_or(1.0);
    let rescale = match settings.rescale {
        Some(false) => Rescale::None,
        _ => Rescale::L1,
    };
    let agreeing = |by_default: bool| match settings.normalize.unwrap_or(by_default) {
        true => Combine::AgreeingMean,
        false => Combine::AgreeingSum,
    };
    let random = Sparsify::Random { density, rescale };
    let ranked = Sparsify::Ranked {
        density,
        epsilon,
        rescale,
    };
    let changes = |sparsify, combine| Method::Changes {
        sparsify,
        combine,
        lambda,
    };
    Ok(match name {
        Name::Linear => Method::Soup,
        Name::Slerp => {
            let missing = || Error::option("t", "slerp needs it");
            Method::Slerp {
                t: settings.t.ok_or_else(missing)?,
            }
        }
        Name::TaskArithmetic => Method::task_arithmetic(lambda),
        Name::Ties => {
            let scope = settings.scope.unwrap_or_default();
            changes(Sparsify::Trim { density, scope }, agreeing(true))
        }
        Name::DareLinear => changes(random, Combine::Sum),
        Name::DareTies => changes(random, agreeing(false)),
        Name::DellaLinear => changes(ranked, Combine::Sum),
        Name::Della => changes(ranked, agreeing(false)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MergeRecipe> {
        MergeRecipe::parse(text, Path::new("/models"))
    }

    const TIES: &str = "\
merge_method: ties
base_model: base
models:
  - model: base
  - model: facts
    parameters: {weight: 0.5, density: 0.4}
  - model: stories
    parameters:
      weight: 0.3
      density: 0.4
parameters:
  normalize: true
  int8_mask: true
dtype: bfloat16
";

    #[test]
    fn a_recipe_of_mergekit_is_read() {
        let recipe = parse(TIES).unwrap();
        assert_eq!(recipe.method, Method::ties(0.4, 1.0));
        assert_eq!(recipe.base, Some(PathBuf::from("/models/base")));
        let models = [("/models/facts", 0.5), ("/models/stories", 0.3)];
        assert_eq!(recipe.models, models.map(|(p, w)| (PathBuf::from(p), w)));
        assert_eq!(recipe.dtype, Some(ExportDtype::Bf16));
    }

    #[test]
    fn weights_of_a_mean_are_divided_by_their_sum() {
        let recipe = parse("{merge_method: linear, models: [{model: a}, {model: b}]}").unwrap();
        assert_eq!(recipe.method, Method::Soup);
        assert!(recipe.models.iter().all(|(_, weight)| *weight == 0.5));
    }

    #[test]
    fn tr_06_what_is_not_a_recipe_is_refused_by_name() {
        let message = |text: &str| parse(text).unwrap_err().to_string();
        assert!(message(&TIES.replace("int8_mask", "int9_mask")).contains("int9_mask"));
        assert!(
            message(&TIES.replace("merge_method: ties", "merge_method: tise")).contains("tise")
        );
        let differing = TIES.replacen("density: 0.4}", "density: 0.7}", 1);
        assert!(message(&differing).contains("the same density"));
        assert!(message("{merge_method: slerp, models: [{model: a}, {model: b}]}").contains("t: "));
        assert!(message("models: [").contains("recipe: "));
    }

    #[test]
    fn settings_keep_their_defaults() {
        let text = "{merge_method: della, base_model: b, models: [{model: a}], parameters: {rescale: false}}";
        let method = Method::della(0.5, 0.15, Rescale::None, 1.0);
        assert_eq!(parse(text).unwrap().method, method);
    }
}
