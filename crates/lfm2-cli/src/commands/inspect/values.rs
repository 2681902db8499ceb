//! Looks for numbers in the weights that no model should have.

use anyhow::Result;
use lfm2::hub::TensorSource;
use lfm2::{DType, Device};
use serde::Serialize;

use crate::ui::progress;

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Values {
    pub(super) tensors: usize,
    /// The largest magnitude of all finite values.
    pub(super) largest: f32,
    pub(super) broken: Vec<Broken>,
}

/// A tensor with values that are not finite.
#[derive(Debug, Serialize)]
pub(super) struct Broken {
    pub(super) tensor: String,
    pub(super) nan: usize,
    pub(super) infinite: usize,
}

/// Reads every tensor.
pub(super) fn check(source: &dyn TensorSource) -> Result<Values> {
    let mut names = source.names();
    names.sort_unstable();
    let bar = progress::bar(names.len() as u64, "tensors");
    let mut found = Values {
        tensors: names.len(),
        largest: 0.0,
        broken: Vec::new(),
    };
    for tensor in names {
        bar.set_message(tensor.clone());
        let values = source
            .dense(&tensor, DType::F32, &Device::Cpu)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        let (mut nan, mut infinite) = (0, 0);
        for value in values {
            if value.is_nan() {
                nan += 1;
            } else if value.is_infinite() {
                infinite += 1;
            } else {
                found.largest = found.largest.max(value.abs());
            }
        }
        if nan + infinite > 0 {
            found.broken.push(Broken {
                tensor,
                nan,
                infinite,
            });
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(found)
}
