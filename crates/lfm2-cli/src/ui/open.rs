//! From the flags to an opened model.

use std::sync::Arc;

use anyhow::{Context, Result};
use lfm2::hub::{self, Network};
use lfm2::text::LoadOptions;
use lfm2::{Device, OpenOptions, TextModel};

use super::progress::Downloads;
use crate::args::{DeviceArgs, DeviceKind, ModelArgs, SpeculationArgs};

/// Opens the chosen model, or the built-in one.
pub(crate) fn model(args: &ModelArgs) -> Result<TextModel> {
    let Some(source) = &args.model else {
        let checkpoint = lfm2::embedded_checkpoint()?;
        return Ok(TextModel::from_checkpoint(
            &checkpoint,
            &load(args.device)?,
        )?);
    };
    let mut options = OpenOptions::default().with_files(files(args.offline));
    options.load = load(args.device)?;
    TextModel::open_with(source.clone(), &options).with_context(|| format!("opening {source}"))
}

/// Opens the chosen model with the one that guesses for it, if any.
pub(crate) fn model_with_draft(
    args: &ModelArgs,
    speculation: &SpeculationArgs,
) -> Result<TextModel> {
    let model = self::model(args)?;
    let Some(source) = &speculation.draft_model else {
        return Ok(model);
    };
    let args = ModelArgs {
        model: Some(source.clone()),
        ..args.clone()
    };
    let draft = self::model(&args)?;
    let origin = model.origin().to_owned();
    let paired = model.with_draft(&draft);
    paired.with_context(|| format!("{} cannot guess for {origin}", draft.origin()))
}

/// How files are found, with bars for downloads.
pub(crate) fn files(offline: bool) -> hub::OpenOptions {
    let network = if offline {
        Network::Offline
    } else {
        Network::Allowed
    };
    hub::OpenOptions::default()
        .network(network)
        .progress(Arc::new(Downloads::default()))
}

/// Where and in which numbers a model is loaded.
pub(crate) fn load(args: DeviceArgs) -> Result<LoadOptions> {
    let device = match args.device {
        DeviceKind::Cpu => Device::Cpu,
        DeviceKind::Cuda => Device::new_cuda(0).map_err(|e| missing("cuda", &e))?,
        DeviceKind::Metal => Device::new_metal(0).map_err(|e| missing("metal", &e))?,
    };
    let options = LoadOptions::default().with_device(device);
    Ok(match args.dtype {
        None => options,
        Some(numbers) => options.with_dtype(numbers.dtype()),
    })
}

fn missing(feature: &str, cause: &impl std::fmt::Display) -> lfm2::hub::Error {
    hub::Error::Unsupported {
        what: format!("the device \"{feature}\" ({cause})"),
        hint: format!("it needs the hardware and a build with `--features {feature}`"),
    }
}
