//! The network over trainable weights.
#![allow(clippy::unwrap_used, clippy::panic)] // also in the helpers of tests

mod support;

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor, Var};
use lfm2_colbert::{ColbertNetwork, DenseSpec};
use lfm2_hub::{Error, Result, StoredType, TensorInfo, TensorSource};
use lfm2_nn::{Bias, FillerStates, Step, Weights};
use lfm2_text::TextConfig;
use support::{Random, Recipe, Sight, difference};

/// Variables by name.
struct Variables(HashMap<String, Var>);

impl Variables {
    fn find(&self, name: &str) -> Result<&Tensor> {
        let found = self.0.get(name).map(Var::as_tensor);
        found.ok_or_else(|| Error::MissingTensor {
            name: name.to_owned(),
        })
    }
}

impl TensorSource for Variables {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let shape = self.find(name).ok()?.dims().to_vec();
        Some(TensorInfo {
            shape,
            stored: StoredType::Dense(DType::F32),
        })
    }

    fn dense(&self, name: &str, dtype: DType, _: &Device) -> Result<Tensor> {
        Ok(self.find(name)?.to_dtype(dtype)?)
    }

    fn quantized(&self, _: &str, _: &Device) -> Result<Option<Arc<QTensor>>> {
        Ok(None)
    }
}

fn parts(recipe: &Recipe) -> (TextConfig, Vec<DenseSpec>) {
    let config = TextConfig::from_json(&recipe.config()).unwrap();
    let dense = |prefix: &str, input, output, bias| DenseSpec {
        prefix: prefix.to_owned(),
        input,
        output,
        bias,
    };
    let dense = vec![
        dense("1_Dense.linear", 32, 16, Bias::Without),
        dense("2_Dense.linear", 16, 8, Bias::With),
    ];
    (config, dense)
}

fn variables(recipe: &Recipe) -> Arc<Variables> {
    let (config, dense) = parts(recipe);
    let mut tensors = recipe.tensors();
    let mut random = Random(7);
    let variable = |spec: lfm2_text::TensorSpec| {
        let own = tensors.remove(&spec.name).unwrap_or_else(|| {
            let values: Vec<f32> = (0..spec.elements()).map(|_| 0.3 * random.next()).collect();
            Tensor::from_vec(values, spec.shape.clone(), &Device::Cpu).unwrap()
        });
        assert_eq!(own.dims(), spec.shape, "{}", spec.name);
        (spec.name, Var::from_tensor(&own).unwrap())
    };
    let specs = ColbertNetwork::tensors(&config, &dense);
    Arc::new(Variables(specs.into_iter().map(variable).collect()))
}

fn network(recipe: &Recipe, variables: &Arc<Variables>) -> ColbertNetwork {
    let (config, dense) = parts(recipe);
    let source = Arc::clone(variables) as Arc<dyn TensorSource>;
    let weights = Weights::new(source, DType::F32, &Device::Cpu);
    let network = ColbertNetwork::load(config, &dense, &weights).unwrap();
    assert!(weights.unused().is_empty(), "{:?}", weights.unused());
    network
}

/// A query with filler and a document.
fn batch(states: FillerStates) -> (Tensor, Step) {
    let ids: Vec<u32> = (0..17).map(|i| 3 + i * 5 % 60).collect();
    let step = Step::rows(&[8, 9]).with_filler(vec![3, 0], states);
    (Tensor::new(ids, &Device::Cpu).unwrap(), step)
}

/// The score of the query with the document, which every weight has a part in.
fn score(network: &ColbertNetwork, states: FillerStates) -> Tensor {
    let (ids, step) = batch(states);
    let vectors = network.forward(&ids, &step).unwrap();
    let (query, document) = (
        vectors.narrow(0, 0, 8).unwrap(),
        vectors.narrow(0, 8, 9).unwrap(),
    );
    let similarities = query.matmul(&document.t().unwrap()).unwrap();
    similarities.max(1).unwrap().sum_all().unwrap()
}

#[test]
fn every_variable_gets_the_gradient_of_finite_differences() {
    for (sight, kernel) in [(Sight::Back, 3), (Sight::Both, 3), (Sight::Both, 4)] {
        for states in [FillerStates::Flow, FillerStates::Zero] {
            let recipe = Recipe::new(sight, kernel);
            let variables = variables(&recipe);
            let network = network(&recipe, &variables);
            let gradients = score(&network, states).backward().unwrap();
            for (name, variable) in &variables.0 {
                let gradient = gradients.get(variable).unwrap_or_else(|| panic!("{name}"));
                let gradient: Vec<f32> = gradient.flatten_all().unwrap().to_vec1().unwrap();
                let before = variable.as_detached_tensor().copy().unwrap();
                // Along the gradient, so that one difference says something of all its numbers.
                let length = gradient.iter().map(|x| x * x).sum::<f32>().sqrt();
                assert!(length > 0.0 && length.is_finite(), "{name}");
                let step = 2e-3;
                let along = gradients
                    .get(variable)
                    .unwrap()
                    .affine(f64::from(step / length), 0.0)
                    .unwrap();
                let at = |sign: f64| {
                    let moved = (&before + along.affine(sign, 0.0).unwrap()).unwrap();
                    variable.set(&moved).unwrap();
                    score(&network, states).to_scalar::<f32>().unwrap()
                };
                let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
                variable.set(&before).unwrap();
                let apart = (slope - length).abs() / length.max(0.05);
                assert!(
                    apart < 0.1,
                    "{sight:?} {kernel} {states:?} {name}: {slope}, {length}"
                );
            }
        }
    }
}

#[test]
fn training_and_inference_give_the_same_vectors() {
    for states in [FillerStates::Flow, FillerStates::Zero] {
        let recipe = Recipe::new(Sight::Both, 5);
        let variables = variables(&recipe);
        let plain = variables.0.iter();
        let plain = plain.map(|(name, variable)| (name.clone(), variable.as_detached_tensor()));
        let file = support::safetensors(&plain.collect());
        let source =
            lfm2_hub::SafetensorsSource::from_bytes("w", file, &Default::default()).unwrap();
        let (config, dense) = parts(&recipe);
        let weights = Weights::new(Arc::new(source), DType::F32, &Device::Cpu);
        let inference = ColbertNetwork::load(config, &dense, &weights).unwrap();
        let training = network(&recipe, &variables);
        let (ids, step) = batch(states);
        let values = |network: &ColbertNetwork| -> Vec<f32> {
            let vectors = network.forward(&ids, &step).unwrap();
            vectors.flatten_all().unwrap().to_vec1().unwrap()
        };
        assert!(difference(&values(&training), &values(&inference)) < 1e-5);
    }
}
