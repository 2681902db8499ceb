//! Speech: `lfm2 bench --synthetic lfm2.5-audio-1.5b --task converse`.
//!
//! Weights are random, so what is chosen means nothing; how much is chosen is fixed instead, and ends
//! are never chosen. Every part is timed by itself.

use std::time::Instant;

use anyhow::Result;
use lfm2::nn::{Isa, profile, threads};
use lfm2::speech::shapes::Released;
use lfm2::speech::{
    AudioModel, Clip, Ending, FRAME_SAMPLES, Generation, GenerationOptions, Mode, OUTPUT_RATE,
    PartTypes, Piece, Sampling, Sequence, Session, Token, Vocoder, VocoderStream,
};
use serde::Serialize;

use super::limits::Machine;
use super::measure::median;
use super::memory::PeakMemory;
use super::ops::OpTime;
use crate::args::{BenchArgs, SpeechTask};
use crate::ui::{open, progress};

/// Seconds of the question.
const QUESTION: f64 = 4.0;
/// Samples per second of the question.
const HEARD_RATE: u32 = 16_000;
/// Tokens before the question (the system prompt and the user's header), and behind it.
const BEFORE: usize = 22;
const BEHIND: usize = 6;
/// Turns of text and sound in an answer.
const TURNS: usize = 4;
/// Tokens of a transcript: about as many as are said in the question.
const TRANSCRIPT: usize = 24;
const FRAME_SECONDS: f64 = FRAME_SAMPLES as f64 / OUTPUT_RATE as f64;

/// The parts that are timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    /// Log-mel of the question.
    Features,
    /// Encoder and adapter.
    Encoder,
    /// Reading the question.
    Prompt,
    /// A step of the backbone, for a token or a frame.
    Backbone,
    /// The head and the choice of a token.
    Token,
    /// The codes of a frame.
    Depthformer,
    /// The sound of a frame, as soon as it is chosen.
    Detokenizer,
    /// The sound of a frame when all are there.
    Decode,
}

impl Part {
    const ALL: [Self; 8] = [
        Self::Features,
        Self::Encoder,
        Self::Prompt,
        Self::Backbone,
        Self::Token,
        Self::Depthformer,
        Self::Detokenizer,
        Self::Decode,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Features => "features",
            Self::Encoder => "encoder",
            Self::Prompt => "prompt",
            Self::Backbone => "backbone",
            Self::Token => "token",
            Self::Depthformer => "depthformer",
            Self::Detokenizer => "detokenizer",
            Self::Decode => "all at once",
        }
    }

    /// Whether it runs once for a question, and is measured against its length.
    fn hears(self) -> bool {
        matches!(self, Self::Features | Self::Encoder | Self::Prompt)
    }
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) model: String,
    pub(super) task: SpeechTask,
    pub(super) parameters: u64,
    pub(super) threads: usize,
    pub(super) repeat: usize,
    pub(super) load_seconds: f64,
    /// `None` where the system does not say.
    pub(super) peak_memory_bytes: Option<u64>,
    pub(super) question_seconds: f64,
    pub(super) sound_seconds: f64,
    pub(super) tokens: usize,
    pub(super) frames: usize,
    pub(super) parts: Vec<PartFigures>,
    /// From the end of the question to the first token.
    pub(super) first_token_seconds: f64,
    /// From the end of the question to the first samples.
    pub(super) first_sound_seconds: Option<f64>,
    /// From the end of the question to the end of the answer.
    pub(super) answer_seconds: f64,
    /// That over the length of the sound; of a transcript, over that of the question.
    pub(super) real_time_factor: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) profile: Vec<OpTime>,
}

/// Medians of one part.
#[derive(Debug, Serialize)]
pub(super) struct PartFigures {
    pub(super) part: Part,
    /// In one answer.
    pub(super) calls: usize,
    pub(super) seconds_each: f64,
    /// All its calls over the length of what is heard or said.
    pub(super) real_time_factor: f64,
}

/// One answer.
#[derive(Debug, Default)]
struct Run {
    calls: Vec<(Part, f64)>,
    first_token: f64,
    first_sound: Option<f64>,
    answer: f64,
    tokens: usize,
    frames: usize,
    samples: usize,
}

impl Run {
    fn time<T>(&mut self, part: Part, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let result = f()?;
        self.calls.push((part, started.elapsed().as_secs_f64()));
        Ok(result)
    }

    fn of(&self, part: Part) -> impl Iterator<Item = f64> {
        let own = self.calls.iter().filter(move |(p, _)| *p == part);
        own.map(|(_, seconds)| *seconds)
    }
}

pub(super) fn run(args: &BenchArgs, shape: Released, isa: Isa) -> Result<Report> {
    let started = Instant::now();
    let types = PartTypes::of(args.quantization);
    // Any tokenizer will do: nothing is read or written.
    let tokenizer = lfm2::embedded::stories()?.tokenizer()?;
    let model = shape.synthetic(types, args.seed, tokenizer, &open::load(args.device)?)?;
    let load_seconds = started.elapsed().as_secs_f64();
    let subject = Subject {
        model: &model,
        clip: question()?,
        task: args.task,
    };
    subject.run()?;
    let bar = progress::bar(args.repeat.get() as u64, "answers");
    let mut runs = Vec::new();
    for _ in 0..args.repeat.get() {
        runs.push(subject.run()?);
        bar.inc(1);
    }
    let mut profiled = Vec::new();
    if args.profile {
        profile::start();
        let run = subject.run()?;
        let machine = Machine::measure(isa, 0);
        let rows = profile::take();
        profiled = OpTime::all(args.task.name(), &rows, run.answer, Some(&machine), None);
    }
    bar.finish_and_clear();
    let name = format!(
        "{} with random weights in {}",
        shape.name(),
        args.quantization
    );
    let mut report = subject.report(&runs, name);
    report.parameters = shape.parameters()?;
    report.load_seconds = load_seconds;
    report.peak_memory_bytes = PeakMemory::default().bytes();
    report.profile = profiled;
    Ok(report)
}

/// Noise that comes and goes about as syllables do.
fn question() -> Result<Clip> {
    let mut noise = 1u32;
    let samples = (0..(QUESTION * f64::from(HEARD_RATE)) as usize).map(|t| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let loud = (t as f32 / 3_200.0).sin().abs();
        (noise >> 8) as f32 / (1 << 23) as f32 * 0.3 * loud - 0.15 * loud
    });
    Ok(Clip::new(samples.collect(), HEARD_RATE)?)
}

struct Subject<'a> {
    model: &'a AudioModel,
    clip: Clip,
    task: SpeechTask,
}

impl<'a> Subject<'a> {
    /// One answer from a question that has just ended. What comes before the question was read while
    /// it was spoken.
    fn run(&self) -> Result<Run> {
        let mut session = self.model.session();
        session.read(&ids(BEFORE).into())?;
        let mut run = Run::default();
        let started = Instant::now();
        let mel = run.time(Part::Features, || {
            Ok(self.model.front_end().features(&self.clip)?)
        })?;
        let heard = run.time(Part::Encoder, || {
            let encoded = self.model.embed_clips(&[&mel])?;
            Ok(encoded.into_iter().next())
        })?;
        let behind = self.model.embed(&Sequence::from(ids(BEHIND)))?;
        run.time(Part::Prompt, || {
            let mut parts: Vec<_> = heard.into_iter().collect();
            parts.push(behind);
            Ok(session.read_embedded(&lfm2::Tensor::cat(&parts, 0)?)?)
        })?;
        let (mode, most) = match self.task {
            SpeechTask::Converse => (Mode::Interleaved, usize::MAX),
            SpeechTask::Transcribe => (Mode::Sequential, TRANSCRIPT),
        };
        let mut options = GenerationOptions::greedy()
            .with_ending(Ending::Length)
            .with_max_new_tokens(most);
        options.audio = Sampling::new(1.0, 4);
        let mut answer = session.generate(mode, &options)?;
        let frames = self.answer(&mut session, &mut answer, &mut run, started)?;
        run.answer = started.elapsed().as_secs_f64();
        if let (Some(Vocoder::Detokenizer(detokenizer)), true) =
            (self.model.vocoder(), !frames.is_empty())
        {
            let before = Instant::now();
            detokenizer.decode(&frames)?;
            let each = before.elapsed().as_secs_f64() / frames.len() as f64;
            run.calls
                .extend(frames.iter().map(|_| (Part::Decode, each)));
        }
        Ok(run)
    }

    fn answer(
        &self,
        session: &mut Session<'a>,
        answer: &mut Generation,
        run: &mut Run,
        started: Instant,
    ) -> Result<Vec<Vec<u32>>> {
        let mut sound: Option<VocoderStream> = None;
        let mut codes = Vec::new();
        let frames = match self.task {
            SpeechTask::Converse => TURNS * self.model.config().interleaved_audio,
            SpeechTask::Transcribe => usize::MAX,
        };
        while run.frames < frames {
            if run.tokens + run.frames > 0 {
                run.time(Part::Backbone, || Ok(session.hidden()?))?;
            }
            let before = Instant::now();
            let Some(token) = answer.next(session)? else {
                break;
            };
            let chosen = before.elapsed().as_secs_f64();
            let elapsed = || started.elapsed().as_secs_f64();
            let Token::Frame(frame) = token else {
                run.calls.push((Part::Token, chosen));
                run.tokens += 1;
                if run.tokens == 1 {
                    run.first_token = elapsed();
                }
                continue;
            };
            run.calls.push((Part::Depthformer, chosen));
            run.frames += 1;
            if frame.is_sound() {
                codes.push(frame.codes().to_vec());
            }
            if let Some(vocoder) = self.model.vocoder() {
                let stream = sound.get_or_insert_with(|| vocoder.stream());
                let samples = run.time(Part::Detokenizer, || Ok(vocoder.push(stream, &frame)?))?;
                run.samples += samples.len();
                if !samples.is_empty() && run.first_sound.is_none() {
                    run.first_sound = Some(elapsed());
                }
            }
        }
        Ok(codes)
    }

    fn report(&self, runs: &[Run], model: String) -> Report {
        let question = self.clip.seconds();
        let frames = runs.first().map_or(0, |run| run.frames);
        let sound = frames as f64 * FRAME_SECONDS;
        let against = |part: Part| match sound > 0.0 && !part.hears() {
            true => sound,
            false => question,
        };
        let parts = Part::ALL.into_iter().filter_map(|part| {
            let all: f64 = median(runs.iter().map(|run| run.of(part).sum()))?;
            let each = median(runs.iter().flat_map(|run| run.of(part)))?;
            Some(PartFigures {
                part,
                calls: runs.first().map_or(0, |run| run.of(part).count()),
                seconds_each: each,
                real_time_factor: all / against(part),
            })
        });
        let over = |f: fn(&Run) -> f64| median(runs.iter().map(f)).unwrap_or(0.0);
        let answer_seconds = over(|run| run.answer);
        Report {
            model,
            task: self.task,
            parameters: 0,
            threads: threads::count(),
            repeat: runs.len(),
            load_seconds: 0.0,
            peak_memory_bytes: None,
            question_seconds: question,
            sound_seconds: sound,
            tokens: runs.first().map_or(0, |run| run.tokens),
            frames,
            parts: parts.collect(),
            first_token_seconds: over(|run| run.first_token),
            first_sound_seconds: median(runs.iter().filter_map(|run| run.first_sound)),
            answer_seconds,
            real_time_factor: answer_seconds / against(Part::Backbone),
            profile: Vec::new(),
        }
    }
}

/// So many tokens, whatever they are.
fn ids(count: usize) -> Vec<Piece> {
    vec![Piece::Text((300..).take(count).collect())]
}
