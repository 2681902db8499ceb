//! `lfm2 bench`: speed and memory of a model, beside the limits of the machine.

mod limits;
mod measure;
mod memory;
mod ops;
mod pictures;
mod show;
mod speech;
mod work;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use lfm2::hub::{Checkpoint, TensorSource};
use lfm2::nn::{Cache, Decoder, Isa, profile, threads};
use lfm2::text::{TextModel, shapes};
use serde::Serialize;

use crate::args::BenchArgs;
use crate::exit::{Doing, invalid};
use crate::ui::{json_line, open, progress};
use limits::{Machine, Reading};
use measure::{Figures, Random, Subject, Test};
use memory::PeakMemory;
use ops::OpTime;
use work::ModelWork;

/// Tokens of the prompt that is answered right after loading.
const FIRST_PROMPT: usize = 8;

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let isa = Isa::from_env().map_err(|error| invalid(error.to_string()))?;
    if args.limits {
        let machine = Machine::measure(isa, args.reading);
        return if args.json {
            json_line(&machine)
        } else {
            print(&show::machine(&machine))
        };
    }
    if let Some(size) = args.image {
        return pictures::run(args, size, isa);
    }
    let shape = args.synthetic.as_deref();
    if let Some(shape) = shape.and_then(lfm2::speech::shapes::find) {
        let report = speech::run(args, shape, isa)?;
        return if args.json {
            json_line(&report)
        } else {
            print(&show::speech(&report))
        };
    }
    let tests = Test::all(&args.tests);
    if tests.is_empty() {
        return Err(invalid("there is no test: all numbers of tokens are 0"));
    }
    let report = Bench::load(args, isa)?.measure(&tests)?;
    if args.json {
        return json_line(&report);
    }
    print(&show::report(&report))
}

fn print(text: &str) -> Result<()> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    parameters: u64,
    threads: usize,
    repeat: usize,
    /// How the model got ready.
    #[serde(flatten)]
    start: Start,
    /// `None` where the system does not say.
    peak_memory_bytes: Option<u64>,
    /// Tokens per second of the first test that decodes, or else of the first: the one figure of a
    /// run that has one test.
    tps: f64,
    /// `None` for devices other than the CPU.
    machine: Option<Machine>,
    tests: Vec<Figures>,
    /// With `--profile`, what the time of every test goes into.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    profile: Vec<OpTime>,
}

/// From nothing to the first token.
#[derive(Debug, Clone, Copy, Serialize)]
struct Start {
    /// Until weights and tokenizer were there.
    load_seconds: f64,
    /// Until a prompt of a few tokens was answered with one.
    first_token_seconds: f64,
}

/// A loaded model, ready to be measured.
struct Bench<'a> {
    args: &'a BenchArgs,
    isa: Isa,
    model: TextModel,
    name: String,
    work: ModelWork,
    start: Start,
    memory: PeakMemory,
}

impl<'a> Bench<'a> {
    fn load(args: &'a BenchArgs, isa: Isa) -> Result<Self> {
        let started = Instant::now();
        let (model, tensors, name) = load(args)?;
        let load_seconds = started.elapsed().as_secs_f64();
        let subject = subject(args, &model);
        let ids = Random::new(args.seed).ids(&model, FIRST_PROMPT);
        subject.feed_prompt(&mut subject.fill(0, &[])?, &ids)?;
        let start = Start {
            load_seconds,
            first_token_seconds: started.elapsed().as_secs_f64(),
        };
        let work = ModelWork::new(model.config(), tensors.as_ref(), subject.kv());
        Ok(Self {
            args,
            isa,
            model,
            name,
            work,
            start,
            memory: PeakMemory::default(),
        })
    }

    fn measure(mut self, tests: &[Test]) -> Result<Report> {
        let args = self.args;
        let machine = self.model.device().is_cpu().then(|| {
            // Memory is read beside every figure instead.
            Machine::measure(self.isa, 0)
        });
        let bar = progress::bar((tests.len() * usize::from(args.repeat)) as u64, "runs");
        let (mut figures, mut profile) = (Vec::new(), Vec::new());
        let mut base: Option<(usize, Cache)> = None;
        for &test in tests {
            let cache = match base.take() {
                Some((depth, cache)) if depth == test.depth => cache,
                _ => self.subject().fill(test.depth, tests)?,
            };
            let runs = self.repeat(test, &cache, || bar.inc(1))?;
            let found = Figures::of(test, &runs, &self.work, machine.as_ref());
            figures.push(found.ok_or_else(|| invalid("nothing was measured"))?);
            if args.profile {
                let reading = runs.iter().rev().find_map(|(_, reading)| *reading);
                let times = self.subject().run(test, &cache, profile::start)?;
                let rows = profile::take();
                let whole = times.iter().sum::<Duration>().as_secs_f64();
                let machine = machine.as_ref();
                profile.extend(OpTime::all(&test.name(), &rows, whole, machine, reading));
            }
            base = Some((test.depth, cache));
        }
        bar.finish_and_clear();
        let decoding = figures.iter().zip(tests);
        let decoding = decoding.filter(|(_, test)| test.is_bound_by_memory());
        let single = decoding.map(|(figure, _)| figure).chain(&figures).next();
        Ok(Report {
            model: self.name,
            parameters: self.model.config().parameters(),
            threads: threads::count(),
            repeat: args.repeat.into(),
            start: self.start,
            peak_memory_bytes: self.memory.bytes(),
            tps: single.map_or(0.0, |figure| figure.tokens_per_second),
            machine,
            tests: figures,
            profile,
        })
    }

    /// Runs a test again and again, with a reading of the memory's speed behind each.
    fn repeat(
        &mut self,
        test: Test,
        cache: &Cache,
        done: impl Fn(),
    ) -> Result<Vec<(Vec<Duration>, Option<Reading>)>> {
        if !test.is_bound_by_memory() {
            // A prompt is one pass: this one warms up.
            self.subject().run(test, cache, || ())?;
        }
        let mut runs = Vec::new();
        for _ in 0..self.args.repeat.get() {
            let times = self.subject().run(test, cache, || ())?;
            runs.push((times, self.reading(test)));
            done();
        }
        Ok(runs)
    }

    fn reading(&mut self, test: Test) -> Option<Reading> {
        let size = self.args.reading;
        let wanted = size > 0 && test.is_bound_by_memory() && self.model.device().is_cpu();
        let bytes = self.work.bytes(test.pass());
        wanted.then(|| self.memory.without(|| Reading::take(self.isa, size, bytes)))
    }

    fn subject(&self) -> Subject<'_> {
        subject(self.args, &self.model)
    }
}

fn subject<'a>(args: &BenchArgs, model: &'a TextModel) -> Subject<'a> {
    Subject {
        model,
        kv: args.tests.kv_type.map(|numbers| numbers.dtype()),
        seed: args.seed,
    }
}

/// The model, its tensors and its name.
fn load(args: &BenchArgs) -> Result<(TextModel, Arc<dyn TensorSource>, String)> {
    let options = open::load(args.device)?;
    if let Some(shape) = &args.synthetic {
        let shape = shapes::find(shape)?;
        let tensors = Arc::new(shape.tensors(args.quantization, args.seed)?);
        let model = TextModel::from_tensors(shape.config()?, tensors.clone(), &options)?;
        let (name, storage) = (shape.name(), args.quantization);
        return Ok((
            model,
            tensors,
            format!("{name} with random weights in {storage}"),
        ));
    }
    let checkpoint = match &args.model {
        None => lfm2::embedded::stories()?,
        Some(source) => Checkpoint::open(source, &open::files(false)).doing("opening", source)?,
    };
    // Part of getting ready, though ids are all that is fed here.
    if let Err(error) = checkpoint.tokenizer() {
        tracing::warn!("measured without its tokenizer: {error}");
    }
    let model = TextModel::from_checkpoint(&checkpoint, &options)?;
    Ok((model, checkpoint.tensors(), checkpoint.origin().to_owned()))
}
