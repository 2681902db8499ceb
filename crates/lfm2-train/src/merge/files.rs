//! Merging sets of tensors into a file, one tensor after another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lfm2_hub::{
    Overwrite, StoredType, TensorInfo, TensorPlan, TensorSource, write_safetensors_streamed,
};

use super::select::Cut;
use super::tensor::{Draw, Operands, Part, merge_pieces};
use super::{Method, Sparsify, TrimScope};
use crate::rng::Rng;
use crate::{Error, Result};

/// The models of a merge.
#[derive(Clone)]
pub struct MergeInputs<'a> {
    /// What the models were fine-tuned from; not needed by every [`Method`].
    pub base: Option<&'a dyn TensorSource>,
    /// The models and their weights.
    pub models: Vec<(&'a dyn TensorSource, f64)>,
    /// Fixes which changes are dropped.
    pub seed: u64,
    /// Number type of the result; `None` keeps that of the base, or of the first model.
    pub dtype: Option<DType>,
}

impl std::fmt::Debug for MergeInputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let weights: Vec<f64> = self.models.iter().map(|(_, weight)| *weight).collect();
        f.debug_struct("MergeInputs")
            .field("weights", &weights)
            .field("seed", &self.seed)
            .field("dtype", &self.dtype)
            .finish_non_exhaustive()
    }
}

/// How far a merge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergeProgress<'a> {
    /// The tensor that is next.
    pub tensor: &'a str,
    /// Tensors that are done.
    pub done: usize,
    /// All tensors.
    pub of: usize,
}

/// Merges the tensors of `inputs` by name into a new safetensors file at `path`, replacing one that
/// is there once it is complete.
///
/// Only pieces of a tensor are in memory at a time; inputs should be read from disk, not held.
///
/// # Errors
/// [`Error::InvalidOption`] as [`Method::validate`], or naming a tensor that is missing from a model,
/// has another shape, or is stored in blocks; errors of files. Nothing is written then.
pub fn merge_tensors(
    method: &Method,
    inputs: &MergeInputs<'_>,
    path: &Path,
    progress: &mut dyn FnMut(MergeProgress<'_>),
) -> Result<()> {
    let weights: Vec<f64> = inputs.models.iter().map(|(_, weight)| *weight).collect();
    method.validate(&weights)?;
    let merge = Merge {
        method: *method,
        inputs,
        weights,
        infos: check_tensors(method, inputs)?,
    };
    let cuts = merge.cuts()?;
    let plans = merge.infos.iter().map(|(name, info)| TensorPlan {
        name: name.clone(),
        dtype: merge.dtype(name, info),
        shape: info.shape.clone(),
    });
    let plans: Vec<TensorPlan> = plans.collect();
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    let (mut done, of) = (0, plans.len());
    let mut failed = None;
    let written =
        write_safetensors_streamed(path, plans, &metadata, Overwrite::Replace, |plan, sink| {
            progress(MergeProgress {
                tensor: &plan.name,
                done,
                of,
            });
            done += 1;
            let result = merge.tensor(
                plan,
                cuts.get(&plan.name).map(Vec::as_slice),
                &mut |piece| Ok(sink(piece)?),
            );
            result.map_err(|error| keep(error, &mut failed))
        });
    match failed {
        Some(error) => Err(error),
        None => Ok(written?),
    }
}

/// The writer knows only errors of files; others are kept aside and stop it.
fn keep(error: Error, failed: &mut Option<Error>) -> lfm2_hub::Error {
    match error {
        Error::Hub(error) => error,
        Error::Candle(error) => error.into(),
        other => {
            *failed = Some(other);
            lfm2_hub::Error::InvalidInput("the merge failed".to_string())
        }
    }
}

/// Every tensor's shape and type, when all models agree on names and shapes.
fn check_tensors(
    method: &Method,
    inputs: &MergeInputs<'_>,
) -> Result<BTreeMap<String, TensorInfo>> {
    let models = inputs.models.iter().map(|(source, _)| *source).enumerate();
    let mut all: Vec<(String, &dyn TensorSource)> = models
        .map(|(i, source)| (format!("model {i}"), source))
        .collect();
    match inputs.base {
        Some(base) => all.insert(0, ("the base".to_string(), base)),
        None if method.needs_base() => {
            return Err(Error::option("base", "this method needs a base model"));
        }
        None => {}
    }
    let Some(((first_name, first), others)) = all.split_first() else {
        return Err(Error::option("models", "expected at least 1, found 0"));
    };
    let names: BTreeSet<String> = first.names().into_iter().collect();
    let mut infos = BTreeMap::new();
    for name in &names {
        let Some(info) = first.info(name) else {
            continue;
        };
        if let StoredType::Quantized(kind) = info.stored {
            let detail = format!("{first_name} stores it as {kind:?}; merge before quantising");
            return Err(Error::option(name, detail));
        }
        for (model, source) in others {
            let found = source.info(name);
            let found =
                found.ok_or_else(|| Error::option(name, format!("missing from {model}")))?;
            if let StoredType::Quantized(kind) = found.stored {
                let detail = format!("{model} stores it as {kind:?}; merge before quantising");
                return Err(Error::option(name, detail));
            }
            if found.shape != info.shape {
                let detail = format!(
                    "expected shape {:?} as in {first_name}, found {:?} in {model}",
                    info.shape, found.shape
                );
                return Err(Error::option(name, detail));
            }
        }
        infos.insert(name.clone(), info);
    }
    for (model, source) in others {
        if let Some(extra) = source.names().into_iter().find(|n| !names.contains(n)) {
            let detail = format!("in {model}, but not in {first_name}");
            return Err(Error::option(extra, detail));
        }
    }
    Ok(infos)
}

struct Merge<'a> {
    method: Method,
    inputs: &'a MergeInputs<'a>,
    weights: Vec<f64>,
    infos: BTreeMap<String, TensorInfo>,
}

impl Merge<'_> {
    /// The bias of the choice of experts stays as it is, as in published checkpoints.
    fn dtype(&self, name: &str, info: &TensorInfo) -> DType {
        let wanted = self.inputs.dtype.filter(|_| !name.ends_with("expert_bias"));
        match info.stored {
            StoredType::Dense(stored) => wanted.unwrap_or(stored),
            StoredType::Quantized(_) => DType::F32,
        }
    }

    fn read(&self, name: &str, part: Part, range: Range<usize>) -> Result<Vec<f64>> {
        let source = match part {
            Part::Base => self.inputs.base,
            Part::Model(model) => self.inputs.models.get(model).map(|(source, _)| *source),
        };
        let missing = || Error::option(name, "read from a model that is not there");
        let values = source.ok_or_else(missing)?.elements(name, range)?;
        Ok(values.into_iter().map(f64::from).collect())
    }

    /// Calls `work` with one tensor of all models.
    fn with_operands<R>(
        &self,
        name: &str,
        work: impl FnOnce(&Operands<'_, '_>) -> Result<R>,
    ) -> Result<R> {
        let Some(info) = self.infos.get(name) else {
            return Err(Error::option(name, "not a tensor of the merge"));
        };
        let draw = |model: usize| -> Draw<'_> {
            let mut rng = Rng::labelled(self.inputs.seed, &format!("{model} {name}"));
            Box::new(move |probability| rng.uniform() < probability)
        };
        work(&Operands {
            shape: &info.shape,
            weights: &self.weights,
            read: &|part, range| self.read(name, part, range),
            draw: &draw,
        })
    }

    fn tensor(
        &self,
        plan: &TensorPlan,
        cuts: Option<&[Cut]>,
        take: &mut dyn FnMut(&Tensor) -> Result<()>,
    ) -> Result<()> {
        self.with_operands(&plan.name, |operands| {
            merge_pieces(&self.method, operands, cuts, |piece| {
                let length = piece.len();
                let piece = Tensor::from_vec(piece, length, &Device::Cpu)?;
                take(&piece.to_dtype(plan.dtype)?)
            })
        })?;
        let models = self.inputs.models.iter().map(|(source, _)| *source);
        models
            .chain(self.inputs.base)
            .for_each(|source| source.release(&plan.name));
        Ok(())
    }

    /// The cuts of every tensor where changes are trimmed over the whole model, in the order of names.
    fn cuts(&self) -> Result<HashMap<String, Vec<Cut>>> {
        let Method::Changes {
            sparsify:
                Sparsify::Trim {
                    density,
                    scope: TrimScope::Model,
                },
            ..
        } = self.method
        else {
            return Ok(HashMap::new());
        };
        let mut cuts: HashMap<String, Vec<Cut>> = HashMap::new();
        for model in 0..self.weights.len() {
            let elements = self
                .infos
                .values()
                .map(|info| info.shape.iter().product::<usize>());
            let keep = (density * elements.sum::<usize>() as f64).floor() as u64;
            let each = |take: &mut dyn FnMut(f64)| {
                let mut tensors = self.infos.keys();
                tensors.try_for_each(|name| {
                    self.with_operands(name, |operands| operands.each_change(model, take))
                })
            };
            let mut whole = if density >= 1.0 {
                Cut::ALL
            } else {
                Cut::find(keep, each)?
            };
            for name in self.infos.keys() {
                let mut equal = 0;
                self.with_operands(name, |operands| {
                    operands.each_change(model, &mut |x| equal += u64::from(whole.is_at(x)))
                })?;
                cuts.entry(name.clone())
                    .or_default()
                    .push(whole.split(equal));
            }
        }
        Ok(cuts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::Rescale;
    use crate::variables::Parameters;
    use lfm2_hub::{Limits, Mapping, SafetensorsSource};
    use lfm2_text::{TensorRole, TensorSpec};

    fn source(tensors: &[(&str, &[usize])], seed: u64) -> Parameters {
        let values = tensors.iter().map(|(name, shape)| {
            let mut rng = Rng::labelled(seed, name);
            let spec = TensorSpec {
                name: (*name).to_string(),
                shape: shape.to_vec(),
                role: TensorRole::Projection,
            };
            let elements = spec.elements();
            (spec, (0..elements).map(|_| rng.normal() as f32).collect())
        });
        Parameters::from_values(values.collect()).unwrap()
    }

    fn inputs<'a>(base: &'a Parameters, models: &[&'a Parameters]) -> MergeInputs<'a> {
        let weight = 1.0 / models.len() as f64;
        MergeInputs {
            base: Some(base),
            models: models
                .iter()
                .map(|m| (*m as &dyn TensorSource, weight))
                .collect(),
            seed: 3,
            dtype: None,
        }
    }

    fn merged(method: &Method, inputs: &MergeInputs<'_>) -> Result<SafetensorsSource> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("merged.safetensors");
        merge_tensors(method, inputs, &path, &mut |_| ())?;
        Ok(SafetensorsSource::open(
            &path,
            Mapping::Read,
            &Limits::default(),
        )?)
    }

    fn numbers(source: &dyn TensorSource, name: &str, count: usize) -> Vec<f32> {
        source.elements(name, 0..count).unwrap()
    }

    const SHAPES: [(&str, &[usize]); 3] = [("a", &[700, 500]), ("b", &[9]), ("c", &[4, 3, 5])];

    #[test]
    fn dropping_keeps_the_mean_and_repeats_by_the_seed() {
        let (base, model) = (source(&SHAPES, 1), source(&SHAPES, 2));
        let one = inputs(&base, &[&model]);
        for rescale in [Rescale::Inverse, Rescale::L1] {
            let method = Method::dare_linear(0.5, rescale, 1.0);
            let found = numbers(&merged(&method, &one).unwrap(), "a", 350_000);
            let again = numbers(&merged(&method, &one).unwrap(), "a", 350_000);
            assert_eq!(found, again);
            let old = numbers(&base, "a", 350_000);
            let new = numbers(&model, "a", 350_000);
            let kept = found.iter().zip(&old).filter(|(a, b)| a != b).count();
            assert!((kept as f64 / 350_000.0 - 0.5).abs() < 0.01, "{kept}");
            let mass = |values: &[f32]| -> f64 {
                let pairs = values.iter().zip(&old);
                pairs.map(|(a, b)| f64::from((a - b).abs())).sum()
            };
            let ratio = mass(&found) / mass(&new);
            assert!((ratio - 1.0).abs() < 0.01, "{rescale:?}: {ratio}");
        }
    }

    #[test]
    fn trimming_over_the_model_keeps_as_many_as_it_says() {
        let (base, model) = (source(&SHAPES, 1), source(&SHAPES, 2));
        let method = Method::Changes {
            sparsify: Sparsify::Trim {
                density: 0.1,
                scope: TrimScope::Model,
            },
            combine: crate::merge::Combine::Sum,
            lambda: 1.0,
        };
        let found = merged(&method, &inputs(&base, &[&model])).unwrap();
        let changed = |name: &str, n: usize| {
            let (new, old) = (numbers(&found, name, n), numbers(&base, name, n));
            let pairs = new.into_iter().zip(old);
            pairs.filter(|(a, b)| a != b).count()
        };
        let kept = changed("a", 350_000) + changed("b", 9) + changed("c", 60);
        assert_eq!(kept, (0.1f64 * 350_069.0).floor() as usize);
    }

    #[test]
    fn tr_06_models_that_do_not_fit_are_refused_by_tensor() {
        let base = source(&SHAPES, 1);
        let other_shape = source(&[("a", &[500, 700]), SHAPES[1], SHAPES[2]], 2);
        let missing = source(&SHAPES[..2], 2);
        let extra = source(&[SHAPES[0], SHAPES[1], SHAPES[2], ("d", &[1])], 2);
        let message = |model: &Parameters| {
            let result = merged(&Method::ties(0.5, 1.0), &inputs(&base, &[model]));
            result.unwrap_err().to_string()
        };
        assert!(message(&other_shape).contains("a: expected shape [700, 500]"));
        assert!(message(&missing).contains("c: missing from model 0"));
        assert!(message(&extra).contains("d: in model 0"));
        let mut alone = inputs(&base, &[&base]);
        alone.base = None;
        let error = merged(&Method::ties(0.5, 1.0), &alone).unwrap_err();
        assert!(error.to_string().contains("needs a base"), "{error}");
    }

    #[test]
    fn the_ends_of_slerp_are_the_models() {
        let (a, b) = (source(&SHAPES, 1), source(&SHAPES, 2));
        for (t, expected) in [(0.0, &a), (1.0, &b)] {
            let found = merged(&Method::Slerp { t }, &inputs(&a, &[&a, &b])).unwrap();
            assert_eq!(numbers(&found, "c", 60), numbers(expected, "c", 60));
        }
    }
}
