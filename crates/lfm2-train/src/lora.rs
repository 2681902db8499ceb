//! Low-rank adapters: small trainable additions to frozen matrices, in the file format of PEFT.
//!
//! An adapted matrix is `W + (alpha / rank) * B A`. The sum is made whenever a model is built, so the
//! layers do not know of adapters, and an adapted model costs what a plain one does. There is no
//! dropout.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};
use lfm2_hub::{Limits, Mapping, SafetensorsSource, StoredType, TensorInfo, TensorSource};
use lfm2_text::{TensorRole, TensorSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::file::{read_json, write_text, write_weights};
use crate::rng::Rng;
use crate::variables::Parameters;
use crate::{Error, Result};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of the model's modules.
const PREFIX: &str = "base_model.model.";

/// Which adapters are trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LoraOptions {
    /// Rows of `A` and columns of `B`.
    pub rank: usize,
    /// The sum is scaled by `alpha / rank`.
    pub alpha: f64,
    /// The last parts of the names of the modules that are adapted; experts never are.
    pub targets: Vec<String>,
}

impl Default for LoraOptions {
    fn default() -> Self {
        let targets = [
            "q_proj", "k_proj", "v_proj", "out_proj", "in_proj", "w1", "w2", "w3",
        ];
        Self {
            rank: 8,
            alpha: 16.0,
            targets: targets.map(String::from).to_vec(),
        }
    }
}

impl LoraOptions {
    /// Sets rank and alpha.
    pub fn with_rank(mut self, rank: usize, alpha: f64) -> Self {
        (self.rank, self.alpha) = (rank, alpha);
        self
    }

    /// Checks that every setting is in its range.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] naming the field.
    pub fn validate(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(Error::option("lora.rank", "expected at least 1, found 0"));
        }
        if !self.alpha.is_finite() {
            let detail = format!("expected a number, found {}", self.alpha);
            return Err(Error::option("lora.alpha", detail));
        }
        Ok(())
    }

    /// New adapters for a model of `specs`, drawn as PEFT draws them: `A` evenly, `B` zero, so that
    /// the adapted model begins as the plain one.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when no module has one of the target names.
    pub fn init(&self, specs: &[TensorSpec], seed: u64) -> Result<Parameters> {
        let targets = specs.iter().filter_map(|spec| {
            let module = spec.name.strip_suffix(".weight")?;
            let last = module.rsplit('.').next()?;
            let is_matrix = spec.shape.len() == 2 && spec.role != TensorRole::Expert;
            let is_target = is_matrix && self.targets.iter().any(|target| target == last);
            is_target.then_some((module, spec.shape.as_slice()))
        });
        let mut values = Vec::new();
        for (module, shape) in targets {
            let &[output, input] = shape else { continue };
            let bound = 1.0 / (input as f64).sqrt();
            let mut rng = Rng::labelled(seed, module);
            let a = (0..self.rank * input).map(|_| (bound * (2.0 * rng.uniform() - 1.0)) as f32);
            values.push((adapter(module, "lora_A", [self.rank, input]), a.collect()));
            let b = vec![0.0; output * self.rank];
            values.push((adapter(module, "lora_B", [output, self.rank]), b));
        }
        if values.is_empty() {
            let detail = format!("no module of the model is called {:?}", self.targets);
            return Err(Error::option("lora.targets", detail));
        }
        Parameters::from_values(values)
    }
}

fn adapter(module: &str, part: &str, shape: [usize; 2]) -> TensorSpec {
    TensorSpec {
        name: format!("{PREFIX}{module}.{part}.weight"),
        shape: shape.to_vec(),
        role: TensorRole::Projection,
    }
}

/// `A`, `B` and the factor of their product.
#[derive(Debug, Clone)]
struct Adapter {
    a: Tensor,
    b: Tensor,
    scale: f64,
}

/// The tensors of a model with adapters added to some of them.
#[derive(Clone)]
pub struct LoraSource {
    base: Arc<dyn TensorSource>,
    scale: f64,
    /// By the name of the adapted tensor.
    adapters: BTreeMap<String, Adapter>,
}

impl std::fmt::Debug for LoraSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoraSource")
            .field("adapted", &self.adapters.len())
            .finish_non_exhaustive()
    }
}

impl LoraSource {
    /// Plain tensors that are held in memory, for adapters to be trained over.
    ///
    /// # Errors
    /// When a tensor is missing from `source` or cannot be read.
    pub(crate) fn frozen(
        specs: &[TensorSpec],
        source: &dyn TensorSource,
        options: &LoraOptions,
    ) -> Result<Self> {
        let tensors = specs.iter().map(|spec| {
            let tensor = source.dense(&spec.name, DType::F32, &Device::Cpu)?;
            Ok((spec.name.clone(), tensor.detach()))
        });
        Ok(Self {
            base: Arc::new(Held(tensors.collect::<Result<_>>()?)),
            scale: options.alpha / options.rank as f64,
            adapters: BTreeMap::new(),
        })
    }

    /// The same base with the adapters of `parameters`, which keep their graph.
    pub(crate) fn with(&self, parameters: &Parameters) -> Self {
        let mut halves: BTreeMap<String, (Option<Tensor>, Option<Tensor>)> = BTreeMap::new();
        for parameter in parameters.iter() {
            if let Some((tensor, part)) = adapted(parameter.name()) {
                let half = halves.entry(tensor).or_default();
                match part {
                    Part::A => half.0 = Some(parameter.tensor().clone()),
                    Part::B => half.1 = Some(parameter.tensor().clone()),
                }
            }
        }
        let scale = self.scale;
        let whole = halves.into_iter().filter_map(|(name, (a, b))| {
            Some((
                name,
                Adapter {
                    a: a?,
                    b: b?,
                    scale,
                },
            ))
        });
        Self {
            base: Arc::clone(&self.base),
            scale,
            adapters: whole.collect(),
        }
    }

    /// The tensors of `base` with the adapters of a PEFT folder added.
    ///
    /// # Errors
    /// [`Error::RunFolder`] when the folder holds another kind of adapter, settings that change the
    /// sum in other ways, adapters of tensors that the base has not got, or of other shapes.
    pub fn open(base: Arc<dyn TensorSource>, folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let config: PeftConfig = read_json(&path)?;
        config.check().map_err(|e| Error::run_folder(&path, e))?;
        let path = folder.join(WEIGHTS);
        let source = SafetensorsSource::open(&path, Mapping::Read, &Limits::default())?;
        let mut adapters = BTreeMap::new();
        for name in source.names() {
            let invalid = |detail: String| Error::run_folder(&path, format!("{name}: {detail}"));
            let Some((tensor, part)) = adapted(&name) else {
                return Err(invalid("neither lora_A nor lora_B of a module".to_string()));
            };
            if part == Part::B {
                continue;
            }
            let other = name.replace("lora_A", "lora_B");
            if source.info(&other).is_none() {
                return Err(invalid("there is no lora_B beside it".to_string()));
            }
            let a = source.dense(&name, DType::F32, &Device::Cpu)?;
            let b = source.dense(&other, DType::F32, &Device::Cpu)?;
            let found = base.info(&tensor).map(|info| info.shape);
            let shape = [b.dims()[0], *a.dims().last().unwrap_or(&0)];
            let ranks = (a.dims().first(), b.dims().last());
            if a.dims().len() != 2 || b.dims().len() != 2 || ranks.0 != ranks.1 {
                let detail = format!("{:?} and {:?} are no adapter", a.dims(), b.dims());
                return Err(invalid(detail));
            }
            if found.as_deref() != Some(&shape[..]) {
                let detail = format!("adapts {shape:?}, found {found:?} in the model");
                return Err(invalid(detail));
            }
            let scale = config.scale(a.dims()[0], &tensor);
            adapters.insert(tensor, Adapter { a, b, scale });
        }
        if adapters.is_empty() {
            return Err(Error::run_folder(path, "there is no adapter in this file"));
        }
        Ok(Self {
            base,
            scale: 1.0,
            adapters,
        })
    }

    /// Every tensor of the adapted model as `dtype`, without a graph; the bias of the choice of experts
    /// stays `f32`, as in published checkpoints.
    pub(crate) fn export(&self, dtype: DType) -> Result<BTreeMap<String, Tensor>> {
        let tensors = self.base.names().into_iter().map(|name| {
            let is_bias = name.ends_with("expert_bias");
            let dtype = if is_bias { DType::F32 } else { dtype };
            let tensor = self.dense(&name, dtype, &Device::Cpu)?.detach();
            Ok((name, tensor))
        });
        tensors.collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    A,
    B,
}

/// The tensor an adapter is added to, and which half of it this is.
fn adapted(name: &str) -> Option<(String, Part)> {
    let module = name.strip_prefix(PREFIX)?;
    let (module, part) = match module.strip_suffix(".lora_A.weight") {
        Some(module) => (module, Part::A),
        None => (module.strip_suffix(".lora_B.weight")?, Part::B),
    };
    Some((format!("{module}.weight"), part))
}

impl TensorSource for LoraSource {
    fn names(&self) -> Vec<String> {
        self.base.names()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let info = self.base.info(name)?;
        Some(if self.adapters.contains_key(name) {
            TensorInfo {
                shape: info.shape,
                stored: StoredType::Dense(DType::F32),
            }
        } else {
            info
        })
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> lfm2_hub::Result<Tensor> {
        let Some(adapter) = self.adapters.get(name) else {
            return self.base.dense(name, dtype, device);
        };
        let base = self.base.dense(name, DType::F32, &Device::Cpu)?;
        let change = (adapter.b.matmul(&adapter.a)? * adapter.scale)?;
        Ok((base + change)?.to_device(device)?.to_dtype(dtype)?)
    }

    fn quantized(&self, name: &str, device: &Device) -> lfm2_hub::Result<Option<Arc<QTensor>>> {
        if self.adapters.contains_key(name) {
            return Ok(None);
        }
        self.base.quantized(name, device)
    }
}

/// Tensors in memory.
struct Held(BTreeMap<String, Tensor>);

impl TensorSource for Held {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.0.get(name).map(|tensor| TensorInfo {
            shape: tensor.dims().to_vec(),
            stored: StoredType::Dense(tensor.dtype()),
        })
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> lfm2_hub::Result<Tensor> {
        let missing = || lfm2_hub::Error::MissingTensor {
            name: name.to_string(),
        };
        let tensor = self.0.get(name).ok_or_else(missing)?;
        Ok(tensor.to_device(device)?.to_dtype(dtype)?)
    }

    fn quantized(&self, name: &str, device: &Device) -> lfm2_hub::Result<Option<Arc<QTensor>>> {
        self.dense(name, DType::F32, device).map(|_| None)
    }
}

/// The settings of `adapter_config.json` that matter for the sum.
#[derive(Debug, Deserialize)]
struct PeftConfig {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f64>,
}

impl PeftConfig {
    fn check(&self) -> std::result::Result<(), String> {
        if self.peft_type != "LORA" {
            return Err(format!(
                "peft_type: expected LORA, found {}",
                self.peft_type
            ));
        }
        if self.r == 0 {
            return Err("r: expected at least 1, found 0".to_string());
        }
        let bias = self.bias.as_deref().unwrap_or("none");
        if bias != "none" {
            return Err(format!("bias: expected none, found {bias}"));
        }
        if self.modules_to_save.as_ref().is_some_and(|m| !m.is_empty()) {
            return Err("modules_to_save: expected none".to_string());
        }
        for (key, is_set) in [
            ("use_dora", self.use_dora),
            ("fan_in_fan_out", self.fan_in_fan_out),
        ] {
            if is_set {
                return Err(format!("{key}: expected false, found true"));
            }
        }
        Ok(())
    }

    /// The factor of an adapter of this rank; patterns name the end of a module.
    fn scale(&self, rank: usize, tensor: &str) -> f64 {
        let module = tensor.strip_suffix(".weight").unwrap_or(tensor);
        let matches = |pattern: &str| {
            let rest = module.strip_suffix(pattern);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let of_module = self.alpha_pattern.iter().find(|(p, _)| matches(p));
        let alpha = of_module.map_or(self.lora_alpha, |(_, alpha)| *alpha);
        if self.use_rslora {
            alpha / (rank as f64).sqrt()
        } else {
            alpha / rank as f64
        }
    }
}

/// Writes adapters as PEFT does: `adapter_config.json` and `adapter_model.safetensors`.
///
/// # Errors
/// When a file cannot be written.
pub fn write_adapter(
    folder: &Path,
    adapters: &Parameters,
    options: &LoraOptions,
    base_model: &str,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let config: Value = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": options.rank,
        "lora_alpha": options.alpha,
        "lora_dropout": 0.0,
        "target_modules": options.targets,
        "bias": "none",
        "fan_in_fan_out": false,
        "use_rslora": false,
        "use_dora": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": null,
        "rank_pattern": {},
        "alpha_pattern": {},
    });
    write_text(&folder.join(CONFIG), &format!("{config:#}\n"))?;
    write_weights(&folder.join(WEIGHTS), &adapters.export(DType::F32)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> (Vec<TensorSpec>, Arc<dyn TensorSource>) {
        let spec = |name: &str, shape: &[usize], role| TensorSpec {
            name: name.into(),
            shape: shape.to_vec(),
            role,
        };
        let specs = vec![
            spec(
                "model.layers.0.self_attn.q_proj.weight",
                &[4, 3],
                TensorRole::Projection,
            ),
            spec(
                "model.layers.0.self_attn.q_layernorm.weight",
                &[3],
                TensorRole::Norm,
            ),
            spec(
                "model.layers.1.feed_forward.experts.0.w1.weight",
                &[4, 3],
                TensorRole::Expert,
            ),
        ];
        let parameters = Parameters::init(specs.clone(), 2, Default::default(), 1).unwrap();
        (specs, Arc::new(parameters))
    }

    fn values(source: &dyn TensorSource, name: &str) -> Vec<f32> {
        let tensor = source.dense(name, DType::F32, &Device::Cpu).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Adapters that are not zero.
    fn trained(specs: &[TensorSpec], options: &LoraOptions) -> Parameters {
        let adapters = options.init(specs, 3).unwrap();
        for (i, p) in adapters.iter().enumerate() {
            let count = p.elements();
            let numbers: Vec<f32> = (0..count)
                .map(|j| (i + 1) as f32 * 0.1 + j as f32)
                .collect();
            let tensor = Tensor::from_vec(numbers, p.tensor().dims(), &Device::Cpu).unwrap();
            p.set(&tensor).unwrap();
        }
        adapters
    }

    #[test]
    fn new_adapters_change_nothing_and_get_gradients() {
        let (specs, base) = base();
        let options = LoraOptions::default().with_rank(2, 4.0);
        let adapters = options.init(&specs, 3).unwrap();
        let names: Vec<&str> = adapters.iter().map(|p| p.name()).collect();
        assert_eq!(
            names,
            [
                "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
                "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
            ]
        );
        let source = LoraSource::frozen(&specs, &*base, &options)
            .unwrap()
            .with(&adapters);
        let name = &specs[0].name;
        assert_eq!(values(&source, name), values(&*base, name));
        let sum = source.dense(name, DType::F32, &Device::Cpu).unwrap();
        let grads = sum.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let b = adapters.iter().nth(1).unwrap();
        assert!(grads.get(b.tensor()).is_some());
    }

    #[test]
    fn an_adapter_written_and_read_gives_the_same_sum() {
        let (specs, base) = base();
        let options = LoraOptions::default().with_rank(2, 4.0);
        let adapters = trained(&specs, &options);
        let folder = tempfile::tempdir().unwrap();
        write_adapter(folder.path(), &adapters, &options, "base").unwrap();
        let read = LoraSource::open(Arc::clone(&base), folder.path()).unwrap();
        let held = LoraSource::frozen(&specs, &*base, &options)
            .unwrap()
            .with(&adapters);
        for spec in &specs {
            assert_eq!(values(&read, &spec.name), values(&held, &spec.name));
        }
        assert_ne!(
            values(&read, &specs[0].name),
            values(&*base, &specs[0].name)
        );
    }

    #[test]
    fn other_adapters_are_refused_by_key() {
        let (specs, base) = base();
        let options = LoraOptions::default().with_rank(2, 4.0);
        let folder = tempfile::tempdir().unwrap();
        write_adapter(folder.path(), &trained(&specs, &options), &options, "base").unwrap();
        let path = folder.path().join(CONFIG);
        let text = std::fs::read_to_string(&path).unwrap();
        let with = |from: &str, to: &str| {
            std::fs::write(&path, text.replace(from, to)).unwrap();
            let result = LoraSource::open(Arc::clone(&base), folder.path());
            result.unwrap_err().to_string()
        };
        assert!(with("\"use_dora\": false", "\"use_dora\": true").contains("use_dora"));
        assert!(with("LORA", "IA3").contains("peft_type"));
        assert!(with("\"bias\": \"none\"", "\"bias\": \"all\"").contains("bias"));
        std::fs::write(&path, &text).unwrap();
        let other: Arc<dyn TensorSource> = Arc::new(Held(BTreeMap::new()));
        let error = LoraSource::open(other, folder.path()).unwrap_err();
        assert!(
            error.to_string().contains("found None in the model"),
            "{error}"
        );
        let nothing = LoraOptions {
            targets: vec!["fc1".into()],
            ..options
        };
        assert!(
            nothing
                .init(&specs, 1)
                .unwrap_err()
                .to_string()
                .contains("fc1")
        );
    }
}
