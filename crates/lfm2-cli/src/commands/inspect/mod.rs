//! `lfm2 inspect`: gathers facts, as far as the source has them, and shows them.

mod facts;
mod show;
mod values;
mod views;

use anyhow::Result;
use lfm2::hub::{Checkpoint, CheckpointInfo, Error, Limits};
use lfm2::{ErrorKind, ModelSource};
use serde_json::Value;

use crate::args::InspectArgs;
use crate::exit::{Doing, invalid};
use crate::ui::{json_pretty, open, screen};
use facts::Facts;

pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    if let Some(image) = &args.image {
        return views::run(args, image);
    }
    let parts = Parts::open(args)?;
    let mut facts = Facts::gather(&parts).doing("opening", &parts.name)?;
    if args.check_values {
        let checkpoint = parts
            .weights
            .as_ref()
            .ok_or_else(|| invalid("there are no weights to check"))?;
        facts.values = Some(values::check(checkpoint.tensors().as_ref())?);
    }
    if args.json {
        json_pretty(&facts)?;
    } else {
        screen::print(&show::text(&facts))?;
    }
    match facts.values.map_or(0, |values| values.broken.len()) {
        0 => Ok(()),
        n => Err(Error::invalid_file(
            &parts.name,
            format!("{n} tensors have values that are not finite"),
        )
        .into()),
    }
}

/// What there is of a model.
struct Parts {
    name: String,
    config: Value,
    info: Option<CheckpointInfo>,
    weights: Option<Checkpoint>,
}

impl Parts {
    fn open(args: &InspectArgs) -> Result<Self> {
        let Some(source) = &args.source else {
            return Ok(Self::whole(lfm2::embedded::stories()?));
        };
        let name = source.to_string();
        let options = open::files(args.offline);
        let info = CheckpointInfo::open(source, &options).doing("opening", &name)?;
        let is_config_alone = matches!(source, ModelSource::Dir(path) if path.is_file());
        // Weights of a Hub model are looked at when they are there, and not fetched for this.
        match Checkpoint::open(source, &open::files(true)) {
            Ok(checkpoint) => Ok(Self::whole(checkpoint)),
            Err(error) if is_config_alone || error.kind() == ErrorKind::NotFound => {
                let config = info.config().clone();
                Ok(Self {
                    name: info.origin().to_owned(),
                    config,
                    info: Some(info),
                    weights: None,
                })
            }
            Err(error) => Err(error).doing("opening", &name),
        }
    }

    fn whole(checkpoint: Checkpoint) -> Self {
        let (name, config) = (checkpoint.origin().to_owned(), checkpoint.config().clone());
        Self {
            name,
            config,
            info: None,
            weights: Some(checkpoint),
        }
    }

    /// The files beside the weights.
    fn info(&self) -> Option<&CheckpointInfo> {
        self.weights
            .as_ref()
            .map(Checkpoint::info)
            .or(self.info.as_ref())
    }

    fn limits(&self) -> Limits {
        self.info()
            .map_or_else(Limits::default, |info| info.limits().clone())
    }
}
