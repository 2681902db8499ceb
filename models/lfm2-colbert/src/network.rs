//! [`ColbertNetwork`]: from ids to unit vectors, for inference and for training.

use lfm2_hub::{Error as HubError, Joined, Result as HubResult, TensorSource};
use lfm2_nn::{Bias, Cache, DType, Decoder, Input, Linear, Module, Step, Tensor, Want, Weights};
use lfm2_text::{TensorRole, TensorSpec, TextConfig, TextModel};

use crate::modules::DenseSpec;

/// Vectors shorter than this are divided by it instead of by their length.
const LEAST_LENGTH: f64 = 1e-12;

/// A trunk, linear layers behind it, and vectors of length 1. Immutable, shareable between threads,
/// cheap to clone.
///
/// Over trainable weights every operation carries gradients:
///
/// ```
/// use lfm2_colbert::{ColbertNetwork, DenseSpec};
/// use lfm2_nn::{Bias, Step, Tensor, Weights};
/// use lfm2_text::TextConfig;
///
/// # fn vectors(config: TextConfig, weights: &Weights, ids: &Tensor) -> anyhow::Result<Tensor> {
/// let dense = DenseSpec {
///     prefix: "1_Dense.linear".to_owned(),
///     input: config.hidden_size,
///     output: 48,
///     bias: Bias::Without,
/// };
/// let network = ColbertNetwork::load(config, &[dense], weights)?;
/// // Two texts of 5 and 3 tokens, one after another; the second ends with a hidden token.
/// let step = Step::rows(&[5, 3]).with_filler(vec![0, 1], Default::default());
/// # Ok(
/// network.forward(ids, &step)?
/// # )
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ColbertNetwork {
    trunk: TextModel,
    dense: Vec<Linear>,
    dim: usize,
}

impl ColbertNetwork {
    /// Loads trunk and layers from `weights`: the tensors of the trunk as in any checkpoint of one, and
    /// those of each layer under its prefix.
    ///
    /// # Errors
    /// When a tensor is missing, contradicts config or layers, or two layers do not fit together; all
    /// are named.
    pub fn load(config: TextConfig, dense: &[DenseSpec], weights: &Weights) -> HubResult<Self> {
        let mut dim = config.hidden_size;
        let mut layers = Vec::with_capacity(dense.len());
        for spec in dense {
            if spec.input != dim {
                let detail = format!("expected {dim}, the width before it, found {}", spec.input);
                return Err(HubError::config(
                    format!("{}: in_features", spec.prefix),
                    detail,
                ));
            }
            let layer = weights
                .pp(&spec.prefix)
                .linear(spec.input, spec.output, spec.bias)?;
            // A last step that is cheap and decides everything.
            layers.push(layer.fine());
            dim = spec.output;
        }
        Ok(Self {
            trunk: TextModel::load(config, weights)?,
            dense: layers,
            dim,
        })
    }

    /// Every tensor of such a network, by the names [`load`](Self::load) asks for.
    pub fn tensors(config: &TextConfig, dense: &[DenseSpec]) -> Vec<TensorSpec> {
        let trunk = config.tensors().into_iter().filter_map(|spec| {
            let name = spec.name.strip_prefix("model.")?.to_owned();
            Some(TensorSpec { name, ..spec })
        });
        let layers = dense.iter().flat_map(|layer| {
            let tensor = |name: &str, shape: &[usize], role| TensorSpec {
                name: format!("{}.{name}", layer.prefix),
                shape: shape.to_vec(),
                role,
            };
            let weight = tensor(
                "weight",
                &[layer.output, layer.input],
                TensorRole::Projection,
            );
            let bias = match layer.bias {
                Bias::With => Some(tensor("bias", &[layer.output], TensorRole::Bias)),
                Bias::Without => None,
            };
            std::iter::once(weight).chain(bias)
        });
        trunk.chain(layers).collect()
    }

    /// The trunk.
    pub fn trunk(&self) -> &TextModel {
        &self.trunk
    }

    /// Numbers per vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// States `(tokens, hidden)` behind the trunk's final norm for packed ids `(tokens)`.
    ///
    /// # Errors
    /// When an id is outside the vocabulary, or ids and step disagree.
    pub fn hidden(&self, ids: &Tensor, step: &Step) -> candle_core::Result<Tensor> {
        let mut cache = Cache::stateless(step.segments().len());
        self.trunk
            .forward(Input::Ids(ids), step, &mut cache, Want::Hidden)
    }

    /// States `(tokens, hidden)` to vectors `(tokens, dim)` of length 1, at least `f32`.
    ///
    /// # Errors
    /// When the width differs.
    pub fn project(&self, hidden: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = hidden.clone();
        for layer in &self.dense {
            x = layer.forward(&x)?;
        }
        unit(&x)
    }

    /// Vectors `(tokens, dim)` of length 1 for packed ids `(tokens)`: [`project`](Self::project) of
    /// [`hidden`](Self::hidden).
    ///
    /// # Errors
    /// As both.
    pub fn forward(&self, ids: &Tensor, step: &Step) -> candle_core::Result<Tensor> {
        self.project(&self.hidden(ids, step)?)
    }
}

/// Rows divided by their lengths.
pub(crate) fn unit(x: &Tensor) -> candle_core::Result<Tensor> {
    let x = match x.dtype() {
        DType::F32 | DType::F64 => x.clone(),
        _ => x.to_dtype(DType::F32)?,
    };
    let length = x.sqr()?.sum_keepdim(1)?.sqrt()?;
    x.broadcast_div(&length.maximum(LEAST_LENGTH)?)
}

/// The tensors of a trunk and of the folders behind it.
pub(crate) fn joined(
    trunk: std::sync::Arc<dyn TensorSource>,
    folders: Vec<(String, std::sync::Arc<dyn TensorSource>)>,
) -> std::sync::Arc<dyn TensorSource> {
    if folders.is_empty() {
        return trunk;
    }
    let parts = std::iter::once((String::new(), trunk)).chain(folders);
    std::sync::Arc::new(Joined::new(parts.collect()))
}
