//! LFM2 and LFM3 text models: dense and mixture of experts, from one set of blocks.
//!
//! Reads like the paper: [`TextConfig`] (what the model is), [`TextModel`] (embedding, hybrid
//! blocks, final norm, head). State lives in a [`Cache`](lfm2_nn::Cache) beside the model.

mod config;
mod model;
pub mod shapes;

pub use config::{
    ConfigKeys, Family, FfnRule, LayerKind, MoeSpec, RopeSpec, TensorRole, TensorSpec, TextConfig,
    wrong_config,
};
pub use model::{LoadOptions, TextModel};
