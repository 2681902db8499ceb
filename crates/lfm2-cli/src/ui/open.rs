//! From the flags to an opened model.

use std::env::{self, VarError};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use lfm2::hub::{self, Checkpoint, CheckpointInfo, Network, PackedCache};
use lfm2::nn::Accuracy;
use lfm2::retrieval::{self, Error, IndexError, Library, LibraryCard, RetrievalModel};
use lfm2::sentence::SentenceEncoder;
use lfm2::speech::{self, AudioModel, AudioOptions};
use lfm2::text::LoadOptions;
use lfm2::vl::VlOptions;
use lfm2::{Device, ModelSource, OpenOptions, TextModel, VlModel};

use super::progress::{self, Downloads};
use crate::args::{
    Builtin, DeviceArgs, DeviceKind, EncoderArgs, EncoderSource, MODEL_VARIABLE, ModelArgs,
    PACKED_CACHE_VARIABLE, PICTURE_MODEL_VARIABLE, PictureArgs, RETRIEVAL_MODEL_VARIABLE,
    SPEECH_MODEL_VARIABLE, SpeculationArgs,
};
use crate::exit::{Doing, invalid};

/// Opens the chosen model, or the built-in one.
pub(crate) fn model(args: &ModelArgs) -> Result<TextModel> {
    let Some(source) = source(args, MODEL_VARIABLE)? else {
        let checkpoint = lfm2::embedded::stories()?;
        return Ok(TextModel::from_checkpoint(
            &checkpoint,
            &load(args.device)?,
        )?);
    };
    let mut options = OpenOptions::default().with_files(files(args.offline));
    options.load = load(args.device)?;
    TextModel::open_with(source.clone(), &options).doing("opening", source)
}

/// The files of the chosen text model, or of the built-in one.
pub(crate) fn checkpoint(args: &ModelArgs) -> Result<Checkpoint> {
    match source(args, MODEL_VARIABLE)? {
        Some(source) => Checkpoint::open(&source, &files(args.offline)).doing("opening", source),
        None => Ok(lfm2::embedded::stories()?),
    }
}

/// Opens the chosen retrieval model, else the one an index was `made_with`, else the built-in one; and
/// says where it is, unless it is built in.
///
/// What an index says is a wish of whoever made it, so no connection is opened for that.
pub(crate) fn retrieval_model(
    args: &ModelArgs,
    made_with: Option<&str>,
) -> Result<(RetrievalModel, Option<String>)> {
    let chosen = source(args, RETRIEVAL_MODEL_VARIABLE)?;
    let offline = args.offline || chosen.is_none();
    let found = match (chosen, made_with) {
        (Some(source), _) => Some(source),
        (None, Some(text)) => Some(text.parse().doing("opening", text)?),
        (None, None) => None,
    };
    let Some(source) = found else {
        let checkpoint = lfm2::embedded::colbert()?;
        let model = RetrievalModel::from_checkpoint(&checkpoint, &load(args.device)?)?;
        return Ok((model, None));
    };
    let mut options = OpenOptions::default().with_files(files(offline));
    options.load = load(args.device)?;
    let model = retrieval::open_with(source.clone(), &options).doing("opening", &source)?;
    Ok((model, Some(lasting(&source))))
}

/// Opens the chosen model that reads pictures, or the built-in one.
pub(crate) fn picture_model(args: &ModelArgs, pictures: &PictureArgs) -> Result<VlModel> {
    picture_model_of(args, pictures, PICTURE_MODEL_VARIABLE)
}

/// Whether the model that was asked for, or the one that `LFM2_MODEL` names, reads pictures.
pub(crate) fn reads_pictures(args: &ModelArgs, pictures: &PictureArgs) -> Result<bool> {
    let Some(source) = source(args, MODEL_VARIABLE)? else {
        return Ok(false);
    };
    if pictures.mmproj.is_some() {
        return Ok(true);
    }
    let info = CheckpointInfo::open(&source, &files(args.offline)).doing("opening", &source)?;
    Ok(VlModel::is_config(info.config()))
}

/// [`picture_model`] with another variable.
pub(crate) fn picture_model_of(
    args: &ModelArgs,
    pictures: &PictureArgs,
    variable: &str,
) -> Result<VlModel> {
    let options = pictures.load(VlOptions::from(load(args.device)?));
    let model = match source(args, variable)? {
        Some(source) => {
            let mmproj = pictures.mmproj.as_ref();
            VlModel::open_with(source.clone(), mmproj, &files(args.offline), &options)
                .doing("opening", source)?
        }
        None => VlModel::from_checkpoint(&lfm2::embedded::vl()?, &options)?,
    };
    Ok(model.with_image_settings(&pictures.settings())?)
}

/// The files of the chosen model that reads pictures, or of the built-in one, and what it is called.
pub(crate) fn picture_checkpoint(args: &ModelArgs) -> Result<(Checkpoint, String)> {
    let Some(source) = source(args, PICTURE_MODEL_VARIABLE)? else {
        return Ok((lfm2::embedded::vl()?, "the built-in model".to_owned()));
    };
    let checkpoint = Checkpoint::open(&source, &files(args.offline)).doing("opening", &source)?;
    Ok((checkpoint, source.to_string()))
}

/// Opens the chosen speech model, or the built-in one, and says whether it is that.
pub(crate) fn speech_model(args: &ModelArgs) -> Result<(AudioModel, bool)> {
    if let Some(model) = chosen_speech_model(args)? {
        return Ok((model, false));
    }
    let options = AudioOptions::default().with_load(load(args.device)?);
    let model = AudioModel::from_checkpoint(&lfm2::embedded::audio()?, &options);
    Ok((model.map_err(lfm2::Error::from)?, true))
}

fn chosen_speech_model(args: &ModelArgs) -> Result<Option<AudioModel>> {
    let Some(source) = source(args, SPEECH_MODEL_VARIABLE)? else {
        return Ok(None);
    };
    let mut options = OpenOptions::default().with_files(files(args.offline));
    options.load = load(args.device)?;
    let model = speech::open_with(source.clone(), &options).doing("opening", source)?;
    Ok(Some(model))
}

/// The files of the chosen retrieval model, or of the built-in one.
pub(crate) fn retrieval_checkpoint(args: &ModelArgs) -> Result<Checkpoint> {
    match source(args, RETRIEVAL_MODEL_VARIABLE)? {
        Some(source) => Checkpoint::open(&source, &files(args.offline)).doing("opening", source),
        None => Ok(lfm2::embedded::colbert()?),
    }
}

/// Opens the chosen encoder of sentences, or a built-in one, and says which.
pub(crate) fn sentence_encoder(args: &EncoderArgs) -> Result<(SentenceEncoder, String)> {
    let chosen = match &args.model {
        Some(EncoderSource::Builtin(model)) => Err(*model),
        Some(EncoderSource::Source(source)) => Ok(source.clone()),
        None => match from_environment(MODEL_VARIABLE)? {
            Some(source) => Ok(source),
            None => Err(Builtin::Stories),
        },
    };
    let load = load(args.device)?;
    let (checkpoint, name) = match chosen {
        Err(builtin) => {
            let checkpoint = match builtin {
                Builtin::Stories => lfm2::embedded::stories()?,
                Builtin::Colbert => lfm2::embedded::colbert()?,
            };
            (checkpoint, builtin.name().to_owned())
        }
        Ok(source) => {
            let name = source.to_string();
            let opened =
                Checkpoint::open(&source, &files(args.offline)).doing("opening", source)?;
            (opened, name)
        }
    };
    let encoder = SentenceEncoder::from_checkpoint(&checkpoint, &load).doing("opening", &name)?;
    Ok((encoder, name))
}

/// Opens a library; when it is another model's, says whose.
pub(crate) fn library(folder: &Path, card: &LibraryCard, model: RetrievalModel) -> Result<Library> {
    let origin = model.origin().to_owned();
    Library::open(folder, model).map_err(|error| {
        let Error::Index(IndexError::OtherModel { .. }) = error else {
            return error.into();
        };
        let maker = card.model.as_deref().unwrap_or("the built-in model");
        invalid(format!(
            "{}: the index was made with {maker}, not with {origin}; use that one, or build the index again with --force",
            folder.display()
        ))
    })
}

/// A source as text that means the same in every folder.
fn lasting(source: &ModelSource) -> String {
    match source {
        ModelSource::Dir(path) | ModelSource::Gguf(path) => {
            let whole = path.canonicalize().unwrap_or_else(|_| path.clone());
            whole.to_string_lossy().into_owned()
        }
        ModelSource::Hub { .. } | ModelSource::HubGguf { .. } => source.to_string(),
    }
}

/// The model that was asked for: by the option, else by the variable.
fn source(args: &ModelArgs, variable: &str) -> Result<Option<ModelSource>> {
    if args.model.is_some() {
        return Ok(args.model.clone());
    }
    from_environment(variable)
}

fn from_environment(variable: &str) -> Result<Option<ModelSource>> {
    match env::var(variable) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => text.parse().map(Some).context(variable.to_owned()),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(invalid(format!("{variable} is not utf-8"))),
    }
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
    let mut options = LoadOptions::default()
        .with_device(device)
        .with_progress(progress::loading());
    if let Some(numbers) = args.dtype {
        options = options.with_dtype(numbers.dtype());
    }
    if args.exact {
        options = options.with_accuracy(Accuracy::Exact);
    }
    options.quantize = args.quantize;
    options.packed_cache = packed_cache(args, env::var_os(PACKED_CACHE_VARIABLE));
    Ok(options)
}

/// Where packed weights are kept, if anywhere, by the flags and the variable.
fn packed_cache(args: DeviceArgs, variable: Option<OsString>) -> Option<PackedCache> {
    if args.no_packed_cache {
        return None;
    }
    let folder = match variable {
        Some(value) if value == "off" => None,
        Some(value) if !value.is_empty() => Some(value.into()),
        Some(_) | None => PackedCache::user_folder(),
    };
    folder.map(PackedCache::new)
}

fn missing(feature: &str, cause: &impl std::fmt::Display) -> lfm2::hub::Error {
    hub::Error::Unsupported {
        what: format!("the device \"{feature}\" ({cause})"),
        hint: format!("it needs the hardware and a build with `--features {feature}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_and_the_variable_say_where_packed_weights_are_kept() {
        let args = |no_packed_cache| DeviceArgs {
            device: DeviceKind::Cpu,
            dtype: None,
            quantize: None,
            exact: false,
            no_packed_cache,
        };
        let folder = |no, variable: Option<&str>| {
            let cache = packed_cache(args(no), variable.map(OsString::from));
            cache.map(|cache| cache.folder().to_path_buf())
        };
        assert_eq!(folder(false, None), PackedCache::user_folder());
        assert_eq!(folder(false, Some("")), PackedCache::user_folder());
        assert_eq!(
            folder(false, Some("/x/y")).as_deref(),
            Some(Path::new("/x/y"))
        );
        assert_eq!(folder(false, Some("off")), None);
        assert_eq!(folder(true, Some("/x/y")), None);
    }
}
