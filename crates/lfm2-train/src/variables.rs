//! The trainable parameters of a model.
//!
//! [`Parameters`] is a [`TensorSource`], so a model is built over it by the same code that reads a
//! checkpoint; the tensors it hands out are the variables themselves, and an update is seen by every
//! model built over them.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor, Var};
use lfm2_hub::{StoredType, TensorInfo, TensorSource};
use lfm2_text::{TensorRole, TensorSpec};
use serde::{Deserialize, Serialize};

use crate::rng::Rng;
use crate::{Error, Result};

/// How initial values are drawn.
///
/// * norms: 1; biases: 0
/// * convolution kernels `(channels, 1, width)`: uniform in ±1/sqrt(width)
/// * the embedding and linear weights: normal with deviation `std`
/// * projections that add to the residual stream: deviation `std / sqrt(2 * layers)`, so that the
///   stream's size does not grow with depth
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Init {
    /// Deviation of normal values.
    pub std: f64,
}

impl Default for Init {
    fn default() -> Self {
        Self { std: 0.02 }
    }
}

impl Init {
    pub(crate) fn values(&self, spec: &TensorSpec, layers: usize, seed: u64) -> Vec<f32> {
        let count = spec.elements();
        // One stream per name: a new layer does not change the values of the others.
        let mut rng = Rng::labelled(seed, &spec.name);
        let mut normal = |std: f64| (0..count).map(|_| (std * rng.normal()) as f32).collect();
        match spec.role {
            TensorRole::Norm => vec![1.0; count],
            TensorRole::Bias | TensorRole::ExpertBias => vec![0.0; count],
            TensorRole::ConvKernel => {
                let bound = 1.0 / (*spec.shape.last().unwrap_or(&1) as f64).sqrt();
                (0..count)
                    .map(|_| (bound * (2.0 * rng.uniform() - 1.0)) as f32)
                    .collect()
            }
            _ if adds_to_residual(spec) => normal(self.std / (2.0 * layers as f64).sqrt()),
            _ => normal(self.std),
        }
    }
}

/// Whether a projection's output is added to the residual stream.
fn adds_to_residual(spec: &TensorSpec) -> bool {
    match spec.role {
        TensorRole::OutputProjection => true,
        TensorRole::Expert => spec.name.ends_with(".w2.weight"),
        _ => false,
    }
}

/// One named trainable tensor.
#[derive(Debug, Clone)]
pub struct Parameter {
    name: String,
    role: TensorRole,
    rate: f64,
    var: Var,
}

impl Parameter {
    /// The name in a published checkpoint.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for.
    pub fn role(&self) -> TensorRole {
        self.role
    }

    /// How fast it learns, relative to the schedule; 1 as a rule, and 0 where it stays as it is.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The variable.
    pub fn tensor(&self) -> &Tensor {
        self.var.as_tensor()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.var.elem_count()
    }

    /// Replaces the values; models built over the variable see the new ones.
    ///
    /// # Errors
    /// When the shape differs.
    pub fn set(&self, values: &Tensor) -> candle_core::Result<()> {
        self.var.set(values)
    }

    /// A copy of the present values, row-major.
    ///
    /// # Errors
    /// When the device fails.
    pub fn values(&self) -> candle_core::Result<Vec<f32>> {
        self.var.as_detached_tensor().flatten_all()?.to_vec1()
    }
}

/// All parameters of a model, ordered by name; `f32` on the CPU.
#[derive(Debug, Clone)]
pub struct Parameters {
    learnt: Vec<Parameter>,
    fixed: BTreeMap<String, Tensor>,
}

impl Parameters {
    /// Fresh parameters for a model of `layers` layers, drawn as [`Init`] says.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when a name occurs twice.
    pub fn init(specs: Vec<TensorSpec>, layers: usize, init: Init, seed: u64) -> Result<Self> {
        let values = specs.into_iter().map(|spec| {
            let values = init.values(&spec, layers, seed);
            (spec, values)
        });
        Self::from_values(values.collect())
    }

    /// The tensors of an existing checkpoint, widened to `f32`, as the start of a run.
    ///
    /// # Errors
    /// When one of `specs` is missing from the checkpoint or cannot be read.
    pub fn from_source(specs: Vec<TensorSpec>, source: &dyn TensorSource) -> Result<Self> {
        let values = specs.into_iter().map(|spec| {
            let tensor = source.dense(&spec.name, DType::F32, &Device::Cpu)?;
            Ok((spec, tensor.flatten_all()?.to_vec1::<f32>()?))
        });
        Self::from_values(values.collect::<Result<_>>()?)
    }

    /// Parameters with given values, row-major.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when a name occurs twice; Candle's error when values and shape
    /// disagree.
    pub fn from_values(values: Vec<(TensorSpec, Vec<f32>)>) -> Result<Self> {
        let mut learnt = BTreeMap::new();
        let mut fixed = BTreeMap::new();
        for (TensorSpec { name, shape, role }, values) in values {
            let taken = if role == TensorRole::ExpertBias {
                let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
                fixed.insert(name.clone(), tensor).is_some()
            } else {
                let var = Var::from_vec(values, shape, &Device::Cpu)?;
                learnt
                    .insert(
                        name.clone(),
                        Parameter {
                            name: name.clone(),
                            role,
                            rate: 1.0,
                            var,
                        },
                    )
                    .is_some()
            };
            if taken {
                return Err(Error::option(name, "this parameter occurs twice"));
            }
        }
        Ok(Self {
            learnt: learnt.into_values().collect(),
            fixed,
        })
    }

    /// The same parameters, each with the rate that `rate` has for its name.
    pub fn with_rates(mut self, rate: impl Fn(&str) -> f64) -> Self {
        for parameter in &mut self.learnt {
            parameter.rate = rate(&parameter.name);
        }
        self
    }

    /// The learnt parameters in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.learnt.iter()
    }

    /// Tensors of the model that no gradient changes, by name: the bias of the choice of experts,
    /// which only enters a comparison.
    pub fn fixed(&self) -> &BTreeMap<String, Tensor> {
        &self.fixed
    }

    /// Replaces a tensor that no gradient changes. Models built before keep the old one.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when there is no such tensor or its shape differs.
    pub fn set_fixed(&mut self, name: &str, values: Tensor) -> Result<()> {
        match self.fixed.get_mut(name) {
            Some(old) if old.dims() == values.dims() => {
                *old = values;
                Ok(())
            }
            Some(old) => {
                let detail = format!("expected shape {:?}, found {:?}", old.dims(), values.dims());
                Err(Error::option(name, detail))
            }
            None => Err(Error::option(name, "no such tensor outside of training")),
        }
    }

    /// The number of learnt numbers.
    pub fn elements(&self) -> usize {
        self.iter().map(Parameter::elements).sum()
    }

    /// A copy of all learnt values, in the order of [`iter`](Self::iter).
    ///
    /// # Errors
    /// When the device fails.
    pub fn values(&self) -> candle_core::Result<Vec<Vec<f32>>> {
        self.iter().map(Parameter::values).collect()
    }

    /// Every tensor of the model as `dtype`, detached from training; the bias of the expert choice
    /// stays `f32`, as in published checkpoints.
    ///
    /// # Errors
    /// When the device fails.
    pub fn export(&self, dtype: DType) -> candle_core::Result<BTreeMap<String, Tensor>> {
        let learnt = self
            .iter()
            .map(|p| Ok((p.name.clone(), p.var.as_detached_tensor().to_dtype(dtype)?)));
        let mut all = learnt.collect::<candle_core::Result<BTreeMap<_, _>>>()?;
        all.extend(
            self.fixed
                .iter()
                .map(|(name, tensor)| (name.clone(), tensor.clone())),
        );
        Ok(all)
    }

    fn find(&self, name: &str) -> Option<&Tensor> {
        let index = self.learnt.binary_search_by(|p| p.name.as_str().cmp(name));
        index
            .ok()
            .and_then(|i| self.learnt.get(i))
            .map(Parameter::tensor)
            .or_else(|| self.fixed.get(name))
    }
}

impl TensorSource for Parameters {
    fn names(&self) -> Vec<String> {
        self.iter()
            .map(|p| p.name.clone())
            .chain(self.fixed.keys().cloned())
            .collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let tensor = self.find(name)?;
        Some(TensorInfo {
            shape: tensor.dims().to_vec(),
            stored: StoredType::Dense(DType::F32),
        })
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> lfm2_hub::Result<Tensor> {
        let missing = || lfm2_hub::Error::MissingTensor {
            name: name.to_string(),
        };
        // Both conversions return the variable itself when nothing changes, and keep the graph
        // otherwise.
        Ok(self
            .find(name)
            .ok_or_else(missing)?
            .to_device(device)?
            .to_dtype(dtype)?)
    }

    fn quantized(&self, name: &str, _device: &Device) -> lfm2_hub::Result<Option<Arc<QTensor>>> {
        match self.find(name) {
            Some(_) => Ok(None),
            None => Err(lfm2_hub::Error::MissingTensor {
                name: name.to_string(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> Vec<TensorSpec> {
        let spec = |name: &str, shape: &[usize], role| TensorSpec {
            name: name.into(),
            shape: shape.to_vec(),
            role,
        };
        vec![
            spec(
                "model.layers.0.feed_forward.w2.weight",
                &[64, 64],
                TensorRole::OutputProjection,
            ),
            spec(
                "model.embed_tokens.weight",
                &[64, 64],
                TensorRole::Embedding,
            ),
            spec(
                "model.layers.0.conv.conv.weight",
                &[64, 1, 3],
                TensorRole::ConvKernel,
            ),
            spec("model.layers.0.conv.conv.bias", &[64], TensorRole::Bias),
            spec("model.embedding_norm.weight", &[64], TensorRole::Norm),
            spec(
                "model.layers.0.feed_forward.expert_bias",
                &[4],
                TensorRole::ExpertBias,
            ),
        ]
    }

    #[test]
    fn initial_values_have_the_documented_spread() {
        let parameters = Parameters::init(specs(), 8, Init { std: 0.02 }, 1).unwrap();
        let spread = |name: &str| {
            let xs = parameters
                .find(name)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap();
            (xs.iter().map(|x| x * x).sum::<f32>() / xs.len() as f32).sqrt()
        };
        assert!((spread("model.embed_tokens.weight") - 0.02).abs() < 1e-3);
        assert!((spread("model.layers.0.feed_forward.w2.weight") - 0.005).abs() < 3e-4);
        assert!((spread("model.layers.0.conv.conv.weight") - 1.0 / 3.0).abs() < 0.04);
        assert_eq!(spread("model.embedding_norm.weight"), 1.0);
        assert_eq!(spread("model.layers.0.conv.conv.bias"), 0.0);
    }

    #[test]
    fn the_same_seed_gives_the_same_values_whatever_else_there_is() {
        let all = Parameters::init(specs(), 8, Init::default(), 4).unwrap();
        let few = Parameters::init(specs()[..1].to_vec(), 8, Init::default(), 4).unwrap();
        let name = &specs()[0].name;
        let of = |p: &Parameters| p.find(name).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(of(&all), of(&few));
    }

    #[test]
    fn the_expert_bias_is_handed_out_but_not_learnt() {
        let parameters = Parameters::init(specs(), 8, Init::default(), 1).unwrap();
        assert!(
            parameters
                .iter()
                .all(|p| !p.name().ends_with("expert_bias"))
        );
        assert!(
            parameters
                .names()
                .contains(&"model.layers.0.feed_forward.expert_bias".to_string())
        );
        assert_eq!(parameters.names().len(), 6);
        assert_eq!(parameters.elements(), 2 * 64 * 64 + 64 * 3 + 64 + 64);
    }

    #[test]
    fn tensors_handed_out_are_the_variables_themselves() {
        let parameters = Parameters::init(specs(), 8, Init::default(), 1).unwrap();
        let handed = parameters
            .dense("model.embedding_norm.weight", DType::F32, &Device::Cpu)
            .unwrap();
        let norm = parameters
            .iter()
            .find(|p| p.role() == TensorRole::Norm)
            .unwrap();
        assert_eq!(handed.id(), norm.tensor().id());
        assert!(
            parameters
                .dense("no.such", DType::F32, &Device::Cpu)
                .is_err()
        );
    }

    #[test]
    fn a_name_that_occurs_twice_is_refused() {
        let twice = vec![specs()[0].clone(), specs()[0].clone()];
        assert!(Parameters::init(twice, 1, Init::default(), 1).is_err());
    }
}
