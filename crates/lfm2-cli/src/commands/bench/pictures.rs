//! How fast a model reads pictures: a full view alone, a picture to the first token of its answer, and
//! the second question about it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use lfm2::GenerationOptions;
use lfm2::generate::Generator;
use lfm2::nn::{CacheSpec, Decoder, Isa, profile, threads};
use lfm2::vl::{ImageSettings, ImageViews, Picture, Size, VlModel, VlOptions, shapes};
use serde::Serialize;

use super::limits::Machine;
use super::measure::{Random, median};
use super::ops::OpTime;
use super::show;
use crate::args::BenchArgs;
use crate::exit::{Doing, invalid};
use crate::ui::format::table;
use crate::ui::{json_line, open, screen};

/// Tokens of text before and behind a picture, and of a second question with the answer before it.
const BEFORE: usize = 8;
const BEHIND: usize = 16;
const SECOND: usize = 32;

/// Measures with pictures of `size`.
pub(super) fn run(args: &BenchArgs, size: Size, isa: Isa) -> Result<()> {
    let (model, name) = load(args)?;
    let report = Report::measure(&model, name, size, args, isa)?;
    match args.json {
        true => json_line(&report),
        false => Ok(screen::print(&report.text())?),
    }
}

/// The model without a cache of views, and its name.
fn load(args: &BenchArgs) -> Result<(VlModel, String)> {
    let options = VlOptions::from(open::load(args.device)?).with_view_cache_bytes(0);
    if let Some(name) = &args.synthetic {
        let shape = shapes::find(name)?;
        let tensors = Arc::new(shape.tensors(args.quantization, args.seed)?);
        let facts = (
            shape.config()?,
            ImageSettings::default(),
            shapes::tokenizer()?,
        );
        let model = VlModel::from_tensors(facts, tensors, &options)?;
        let storage = args.quantization;
        return Ok((
            model,
            format!("{} with random weights in {storage}", shape.name()),
        ));
    }
    let Some(source) = &args.model else {
        return Err(invalid(
            "--image needs --model or --synthetic with a model that reads pictures",
        ));
    };
    let files = open::files(false);
    let model = lfm2::VlModel::open_with(source.clone(), None, &files, &options);
    let model = model.doing("opening", source)?;
    Ok((model.network().clone(), model.origin().to_owned()))
}

/// Medians over the repetitions, in seconds.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    threads: usize,
    repeat: usize,
    image: String,
    views: usize,
    tokens: usize,
    prompt_tokens: usize,
    /// Tower and projector on one view of a full tile.
    view_seconds: f64,
    /// From the pixels to the first token of the answer.
    first_token_seconds: f64,
    /// The same after a second question.
    second_token_seconds: f64,
    /// What the first is made of: pixels to views, views to rows, and the prompt with its first token.
    process_seconds: f64,
    tower_seconds: f64,
    prefill_seconds: f64,
    /// With `--profile`, what the time of a full view goes into.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    profile: Vec<OpTime>,
}

/// What is profiled.
const VIEW: &str = "a full view";

/// One picture and two questions.
struct Turn {
    process: f64,
    tower: f64,
    prefill: f64,
    second: f64,
    prompt_tokens: usize,
}

impl Report {
    fn measure(
        model: &VlModel,
        name: String,
        size: Size,
        args: &BenchArgs,
        isa: Isa,
    ) -> Result<Self> {
        let mut random = Random::new(args.seed);
        let side = model.processor().settings().tile_size;
        let (mut views, mut turns) = (Vec::new(), Vec::new());
        // Pays for pages and threads.
        turn(model, &noise(&mut random, side, side)?, &mut random)?;
        for _ in 0..args.repeat.get() {
            let tile = noise(&mut random, side, side)?;
            views.push(view(model, &tile)?);
            let picture = noise(&mut random, size.width, size.height)?;
            turns.push(turn(model, &picture, &mut random)?);
        }
        let of = |part: fn(&Turn) -> f64| median(turns.iter().map(part)).unwrap_or_default();
        let mut ops = Vec::new();
        if args.profile {
            let tile = noise(&mut random, side, side)?;
            profile::start();
            let whole = view(model, &tile)?;
            let rows = profile::take();
            let machine = Machine::measure(isa, 0);
            ops = OpTime::all(VIEW, &rows, whole, Some(&machine), None);
        }
        let plan = model.processor().plan(size);
        Ok(Self {
            model: name,
            threads: threads::count(),
            repeat: args.repeat.get(),
            image: format!("{}x{}", size.width, size.height),
            views: plan.views().len(),
            tokens: plan.prompt_tokens(),
            prompt_tokens: turns.first().map_or(0, |turn| turn.prompt_tokens),
            view_seconds: median(views.into_iter()).unwrap_or_default(),
            first_token_seconds: of(|turn| turn.process + turn.tower + turn.prefill),
            second_token_seconds: of(|turn| turn.second),
            process_seconds: of(|turn| turn.process),
            tower_seconds: of(|turn| turn.tower),
            prefill_seconds: of(|turn| turn.prefill),
            profile: ops,
        })
    }

    fn text(&self) -> String {
        let row = |what: &str, seconds: f64| vec![what.to_owned(), format!("{seconds:.3} s")];
        let ratio = self.first_token_seconds / self.second_token_seconds.max(1e-9);
        let mut text = format!(
            "{}, {} threads, a picture of {} in {} views with {} tokens\n{}the second question is answered \
             {ratio:.0} times sooner\n",
            self.model,
            self.threads,
            self.image,
            self.views,
            self.tokens,
            table(&[
                row(VIEW, self.view_seconds),
                row("first token", self.first_token_seconds),
                row("  pixels to views", self.process_seconds),
                row("  views to rows", self.tower_seconds),
                row("  prompt", self.prefill_seconds),
                row(
                    "first token of the second answer",
                    self.second_token_seconds
                ),
            ])
        );
        if !self.profile.is_empty() {
            let ops: Vec<&OpTime> = self.profile.iter().collect();
            text.push('\n');
            text.push_str(&show::ops(VIEW, &ops));
        }
        text
    }
}

/// Seconds of tower and projector with one view of a picture.
fn view(model: &VlModel, picture: &Picture) -> Result<f64> {
    let views = model.processor().process(picture)?;
    let start = Instant::now();
    model.encode(views.views().get(..1).unwrap_or_default())?;
    Ok(start.elapsed().as_secs_f64())
}

/// A picture of random pixels: what it shows makes no difference.
fn noise(random: &mut Random, width: usize, height: usize) -> Result<Picture> {
    Ok(Picture::from_fn(width, height, |_, _| {
        let [.., red, green, blue] = random.next().to_be_bytes();
        [red, green, blue]
    })?)
}

/// Shows a picture to a new conversation and asks twice.
fn turn(model: &VlModel, picture: &Picture, random: &mut Random) -> Result<Turn> {
    let album = model.album();
    let generator = Generator::new(Arc::new(album.clone()), model.tokenizer().clone());
    let mut cache = album.new_cache(CacheSpec::rows(1));
    let image = model.image_tokens().image();
    let mut text = |count| -> Vec<u32> {
        let ids = random.ids_below(model.text().vocab_size(), count);
        ids.into_iter().filter(|&id| id != image).collect()
    };
    let first = [text(BEFORE), vec![image], text(BEHIND)].concat();
    let second = [&first[..], &text(SECOND)].concat();
    let options = GenerationOptions::greedy().with_max_new_tokens(1);

    let start = Instant::now();
    let views: ImageViews = model.processor().process(picture)?;
    let process = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let prompt = album.prompt(&first, &[&views])?;
    let tower = start.elapsed().as_secs_f64();
    let prompt_tokens = prompt.len();
    let start = Instant::now();
    generator
        .generate_in(&mut cache, 0, prompt, &options)?
        .complete()?;
    let prefill = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let prompt = album.prompt(&second, &[&views])?;
    generator
        .generate_in(&mut cache, 0, prompt, &options)?
        .complete()?;
    Ok(Turn {
        process,
        tower,
        prefill,
        second: start.elapsed().as_secs_f64(),
        prompt_tokens,
    })
}
