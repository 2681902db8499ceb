//! The views that a model sees of a picture: as a table, and as a picture.

use std::path::Path;

use anyhow::Result;
use lfm2::VlModel;
use lfm2::hub::{CheckpointInfo, Overwrite};
use lfm2::vl::{
    Cost, DecodeOptions, ImageProcessor, ImageSettings, ImageViews, Picture, contact_sheet,
};
use serde::Serialize;

use crate::args::InspectArgs;
use crate::exit::{Doing, invalid};
use crate::ui::format::table;
use crate::ui::{json_pretty, open, screen};

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Facts {
    source: String,
    width: usize,
    height: usize,
    views: Vec<View>,
    patches: usize,
    tokens: usize,
    tokens_with_markers: usize,
}

#[derive(Debug, Serialize)]
struct View {
    view: String,
    width: usize,
    height: usize,
    tokens: usize,
}

/// Shows the views of the picture at `path`.
pub(super) fn run(args: &InspectArgs, path: &Path) -> Result<()> {
    let (source, settings) = settings(args)?;
    let picture = Picture::open(path, &DecodeOptions::default())?;
    let processor = ImageProcessor::new(settings)?;
    let views = processor.process(&picture)?;
    let facts = Facts::new(source, &picture, &views, processor.settings());
    match args.json {
        true => json_pretty(&facts)?,
        false => screen::print(&facts.text())?,
    }
    if let Some(out) = &args.out {
        let overwrite = match args.force {
            true => Overwrite::Replace,
            false => Overwrite::Refuse,
        };
        contact_sheet(&views)?.save(out, overwrite)?;
        eprintln!("{}: written", out.display());
    }
    Ok(())
}

/// The image settings of the model, or those that published models have in common.
fn settings(args: &InspectArgs) -> Result<(String, ImageSettings)> {
    let Some(source) = &args.source else {
        return Ok(("the usual settings".to_owned(), ImageSettings::default()));
    };
    let info = CheckpointInfo::open(source, &open::files(args.offline)).doing("opening", source)?;
    if !VlModel::is_config(info.config()) {
        return Err(invalid(format!("{source} reads no pictures")));
    }
    let settings = ImageSettings::of(&info).doing("opening", source)?;
    Ok((info.origin().to_owned(), settings))
}

impl Facts {
    fn new(
        source: String,
        picture: &Picture,
        views: &ImageViews,
        settings: &ImageSettings,
    ) -> Self {
        let cost = Cost::new(views.plan(), settings, None);
        let view = |view: &lfm2::vl::PlannedView| View {
            view: view.kind.to_string(),
            width: view.size.width,
            height: view.size.height,
            tokens: view.tokens,
        };
        Self {
            source,
            width: picture.width(),
            height: picture.height(),
            views: cost.views.iter().map(view).collect(),
            patches: cost.patches,
            tokens: views.plan().image_tokens(),
            tokens_with_markers: cost.tokens,
        }
    }

    fn text(&self) -> String {
        let row = |(index, view): (usize, &View)| {
            vec![
                format!("{}: {}", index + 1, view.view),
                format!("{} x {}", view.width, view.height),
                format!("{} tokens", view.tokens),
            ]
        };
        let rows: Vec<_> = self.views.iter().enumerate().map(row).collect();
        format!(
            "{} x {} with {}\n{}{} views, {} patches, {} tokens, {} with markers\n",
            self.width,
            self.height,
            self.source,
            table(&rows),
            self.views.len(),
            self.patches,
            self.tokens,
            self.tokens_with_markers
        )
    }
}
