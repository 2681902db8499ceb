//! Pictures from files to conversations, as `describe` and `chat` need them.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use lfm2::generate::PrefillProgress;
use lfm2::vl::{Budget, Cost, Frame, Frames, ImageViews, Picture, ReadProgress, Speed};
use lfm2::{Cancel, Gallery, VlModel};
use serde::Serialize;

use crate::args::{BudgetArg, PictureArgs};
use crate::exit::{Doing, invalid};
use crate::ui::format::table;
use crate::ui::progress;

/// What all frames of animations and folders may take together, unless the user says otherwise: eight
/// full views.
const VIDEO_TOKENS: usize = 2064;

/// A picture, and what it is called.
#[derive(Debug)]
pub(crate) struct Shown {
    /// The file, and the frame in it.
    pub(crate) name: String,
    pub(crate) picture: Picture,
}

/// Everything that was named on a command line, in order.
#[derive(Debug, Default)]
pub(crate) struct Pictures {
    pub(crate) shown: Vec<Shown>,
    /// Whether some of them are frames.
    pub(crate) moving: bool,
}

impl Pictures {
    /// Reads pictures, animations and folders, and says on stderr where only some frames are shown.
    pub(crate) fn read(paths: &[PathBuf], args: &PictureArgs) -> Result<Self> {
        let mut pictures = Self::default();
        for path in paths {
            let frames = frames(path, args)?;
            let (taken, found) = (frames.taken.len(), frames.found);
            if taken < found {
                eprintln!("{}: {taken} of {found} frames", path.display());
            }
            pictures.moving |= found > 1;
            for frame in frames.taken {
                let name = name(path, &frame, found);
                let picture = frame.picture;
                pictures.shown.push(Shown { name, picture });
            }
        }
        Ok(pictures)
    }

    /// What they may take together, if that is bounded.
    pub(crate) fn budget(&self, args: &PictureArgs, model: &VlModel) -> Result<Option<Budget>> {
        Ok(match args.budget {
            Some(BudgetArg::Tokens(tokens)) => Some(Budget::Tokens(tokens)),
            Some(BudgetArg::Time(time)) => Some(Budget::Time(time, model.speed()?)),
            None => self.moving.then_some(Budget::Tokens(VIDEO_TOKENS)),
        })
    }

    /// The names with the pictures.
    pub(crate) fn named(&self) -> Vec<(&str, &Picture)> {
        let named = self.shown.iter();
        named.map(|one| (one.name.as_str(), &one.picture)).collect()
    }
}

/// What is at `path`, or for `-` on stdin.
fn frames(path: &Path, args: &PictureArgs) -> Result<Frames> {
    let options = args.frame_options();
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        // One more than allowed, so that too many are noticed.
        let most = options.decode.limits.max_bytes.saturating_add(1);
        let read = io::stdin().lock().take(most).read_to_end(&mut bytes);
        read.context("reading stdin")?;
        return Frames::decode(&bytes, &options).doing("reading", "stdin");
    }
    let is_address = path.to_str().is_some_and(|text| text.contains("://"));
    if is_address && !path.exists() {
        return Err(invalid(format!(
            "{}: remote pictures are off; fetch it first, or pipe it to `-`",
            path.display()
        )));
    }
    Ok(Frames::open(path, &options)?)
}

fn name(path: &Path, frame: &Frame, found: usize) -> String {
    match &frame.path {
        Some(file) => file.display().to_string(),
        None if found > 1 => format!("{}#{}", path.display(), frame.index),
        None => path.display().to_string(),
    }
}

/// What the pictures of a question take.
#[derive(Debug, Serialize)]
pub(crate) struct Costs {
    pictures: Vec<PictureCost>,
    /// Views of all pictures, and those that are not known yet.
    views: usize,
    new_views: usize,
    patches: usize,
    tokens: usize,
    /// Until the pictures are read.
    seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct PictureCost {
    name: String,
    width: usize,
    height: usize,
    views: Vec<ViewCost>,
    tokens: usize,
}

#[derive(Debug, Serialize)]
struct ViewCost {
    kind: String,
    width: usize,
    height: usize,
    tokens: usize,
}

impl Costs {
    /// Of pictures that are in the gallery under `names`, each shown with its own size.
    pub(crate) fn new(
        gallery: &Gallery,
        names: &[&str],
        pictures: &Pictures,
        speed: Option<&Speed>,
    ) -> Self {
        let views: Vec<ImageViews> = names
            .iter()
            .filter_map(|name| gallery.views(name))
            .collect();
        let model = gallery.album().model();
        let costs: Vec<Cost> = views
            .iter()
            .map(|views| model.cost(views.plan(), speed))
            .collect();
        let times: Option<Vec<Duration>> = costs.iter().map(|cost| cost.time).collect();
        let shown = pictures.shown.iter().zip(&costs);
        Self {
            pictures: shown
                .map(|(one, cost)| PictureCost::new(one, cost))
                .collect(),
            views: costs.iter().map(|cost| cost.views.len()).sum(),
            new_views: gallery.album().unread(&views.iter().collect::<Vec<_>>()),
            patches: costs.iter().map(|cost| cost.patches).sum(),
            tokens: costs.iter().map(|cost| cost.tokens).sum(),
            seconds: times.map(|times| times.iter().sum::<Duration>().as_secs_f64()),
        }
    }

    /// A line per view, and the sums.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for picture in &self.pictures {
            let PictureCost {
                name,
                width,
                height,
                ..
            } = picture;
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}: {width} x {height}");
            let row = |view: &ViewCost| {
                vec![
                    format!("  {}", view.kind),
                    format!("{} x {}", view.width, view.height),
                    format!("{} tokens", view.tokens),
                ]
            };
            text.push_str(&table(&picture.views.iter().map(row).collect::<Vec<_>>()));
        }
        let _ = write!(
            text,
            "{} views, {} of them to be read; {} patches; {} tokens with markers",
            self.views, self.new_views, self.patches, self.tokens
        );
        match self.seconds {
            Some(seconds) => {
                let _ = writeln!(text, "; at most {seconds:.2} s until they are read");
            }
            None => text.push('\n'),
        }
        text
    }
}

impl PictureCost {
    fn new(shown: &Shown, cost: &Cost) -> Self {
        let view = |view: &lfm2::vl::PlannedView| ViewCost {
            kind: view.kind.to_string(),
            width: view.size.width,
            height: view.size.height,
            tokens: view.tokens,
        };
        Self {
            name: shown.name.clone(),
            width: shown.picture.width(),
            height: shown.picture.height(),
            views: cost.views.iter().map(view).collect(),
            tokens: cost.tokens,
        }
    }
}

/// Shows how far pictures are read, and lets Ctrl-C stop that.
pub(crate) fn watch_reading(gallery: &Gallery, cancel: &Cancel) {
    let (cancel, mut bar) = (cancel.clone(), None);
    gallery.on_read(move |ReadProgress { done, total }| {
        let bar: &mut ProgressBar =
            bar.get_or_insert_with(|| progress::bar(total as u64, "views read"));
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        if done == total {
            bar.finish_and_clear();
        }
        match cancel.is_cancelled() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
}

/// A bar for prompts that take longer than a moment.
pub(crate) fn prefill_bar() -> impl FnMut(PrefillProgress) + Send {
    const PATIENCE: Duration = Duration::from_millis(500);
    let (started, mut bar) = (Instant::now(), None::<ProgressBar>);
    move |PrefillProgress { done, total }| {
        if bar.is_none() && started.elapsed() > PATIENCE && io::stderr().is_terminal() {
            bar = Some(progress::bar(total as u64, "tokens of the prompt"));
        }
        if let Some(bar) = &bar {
            bar.set_position(done as u64);
            if done == total {
                bar.finish_and_clear();
            }
        }
    }
}
