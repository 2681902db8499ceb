//! The saved state of a run: weights, moments and the step they belong to.
//!
//! Tensors are written to a file named after the step; `state.json` names that file and is replaced
//! only once it is complete. Killed at any moment, a run folder holds one whole state.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use lfm2_hub::{Limits, Mapping, Overwrite, SafetensorsSource, TensorSource, write_safetensors};
use serde::{Deserialize, Serialize};

use crate::file::write_text;
use crate::optim::{AdamW, AdamWOptions, Moments};
use crate::variables::Parameters;
use crate::{Error, Result};

/// What `state.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StateHeader {
    /// The last finished step.
    pub(crate) step: u64,
    /// Updates of the optimiser; fewer than steps where some were left out.
    pub(crate) updates: u64,
    /// The tensor file beside this one.
    pub(crate) tensors: String,
}

const PARTS: [&str; 3] = ["weight", "first", "second"];

fn header_path(run: &Path) -> PathBuf {
    run.join("state.json")
}

/// The header of the state in `run`; `None` in a folder without one.
pub(crate) fn find(run: &Path) -> Result<Option<StateHeader>> {
    let path = header_path(run);
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|e| Error::run_folder(&path, e.to_string())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, e)),
    }
}

/// Writes the state after `step` and removes the one before.
pub(crate) fn save(
    run: &Path,
    step: u64,
    parameters: &Parameters,
    optimizer: &AdamW,
) -> Result<()> {
    let previous = find(run)?;
    let header = StateHeader {
        step,
        updates: optimizer.updates(),
        tensors: format!("state-{step:08}.safetensors"),
    };
    let mut tensors = BTreeMap::new();
    for (parameter, moments) in parameters.iter().zip(optimizer.moments()) {
        let shape = parameter.tensor().dims();
        let moment = |values: &[f32]| Tensor::from_slice(values, shape, &Device::Cpu);
        let parts = [
            parameter.tensor().clone(),
            moment(&moments.first)?,
            moment(&moments.second)?,
        ];
        tensors.extend(
            PARTS
                .into_iter()
                .zip(parts)
                .map(|(part, t)| (format!("{part}/{}", parameter.name()), t)),
        );
    }
    let fixed = parameters.fixed().iter();
    tensors.extend(fixed.map(|(name, tensor)| (format!("fixed/{name}"), tensor.clone())));
    let metadata = BTreeMap::from([("step".to_string(), step.to_string())]);
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(
        &run.join(&header.tensors),
        named,
        &metadata,
        Overwrite::Replace,
    )?;
    let text =
        serde_json::to_string_pretty(&header).map_err(|e| Error::run_folder(run, e.to_string()))?;
    write_text(&header_path(run), &text)?;
    if let Some(old) = previous.filter(|old| old.tensors != header.tensors) {
        // Left over after a crash at worst; the header decides which file counts.
        if let Err(error) = std::fs::remove_file(run.join(&old.tensors)) {
            tracing::debug!(file = old.tensors, %error, "could not remove the previous state");
        }
    }
    Ok(())
}

/// Puts the state of `header` into `parameters` and returns its optimiser.
pub(crate) fn load(
    run: &Path,
    header: &StateHeader,
    parameters: &mut Parameters,
    options: AdamWOptions,
) -> Result<AdamW> {
    // The name comes from a file: it must not lead anywhere else.
    if Path::new(&header.tensors).file_name() != Some(header.tensors.as_ref()) {
        return Err(Error::run_folder(
            header_path(run),
            format!("{:?} is not a file name", header.tensors),
        ));
    }
    let path = run.join(&header.tensors);
    let source: Arc<dyn TensorSource> = Arc::new(SafetensorsSource::open(
        &path,
        Mapping::Read,
        &Limits::default(),
    )?);
    let mut moments = Vec::new();
    for parameter in parameters.iter() {
        let part = |part: &str| -> Result<Tensor> {
            let name = format!("{part}/{}", parameter.name());
            let tensor = source.dense(&name, candle_core::DType::F32, &Device::Cpu)?;
            if tensor.dims() != parameter.tensor().dims() {
                let (expected, found) =
                    (parameter.tensor().dims().to_vec(), tensor.dims().to_vec());
                return Err(lfm2_hub::Error::TensorShape {
                    name,
                    expected,
                    found,
                }
                .into());
            }
            Ok(tensor)
        };
        let [weight, first, second] = PARTS;
        parameter.set(&part(weight)?)?;
        let values = |name| -> Result<Vec<f32>> { Ok(part(name)?.flatten_all()?.to_vec1()?) };
        moments.push(Moments {
            first: values(first)?,
            second: values(second)?,
        });
    }
    for name in parameters.fixed().keys().cloned().collect::<Vec<_>>() {
        let saved = source.dense(
            &format!("fixed/{name}"),
            candle_core::DType::F32,
            &Device::Cpu,
        )?;
        parameters.set_fixed(&name, saved)?;
    }
    AdamW::from_state(options, header.updates, moments, parameters)
}
