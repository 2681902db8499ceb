//! `lfm2 transcribe`.

mod live;
mod show;

use std::io::{self, IsTerminal};
use std::path::Path;

use anyhow::Result;
use indicatif::ProgressBar;
use lfm2::Cancel;
use lfm2::speech::{
    AudioModel, Clip, CutOptions, EMBEDDED_SECONDS, Event, GenerationOptions, Section, SoundLimits,
};

use crate::args::{TranscribeArgs, TranscriptFormat};
use crate::exit::{Doing, Stopped, invalid};
use crate::ui::interrupt::Interrupt;
use crate::ui::{open, progress, screen, sound_picture};
use show::{Part, Transcript};

/// Seconds of a part, where nothing else was asked for: as the models were trained, and as much as
/// a subtitle holds.
const LONGEST: f64 = 30.0;
const LONGEST_SUBTITLE: f64 = 8.0;

/// Bytes of a second of a large file: 48 kHz, stereo, 32 bits.
const RAW_BYTES: u64 = 48_000 * 2 * 4;

pub(crate) fn run(args: &TranscribeArgs) -> Result<()> {
    if args.files.len() > 1 {
        let single = [
            (args.format == TranscriptFormat::Srt, "subtitles are"),
            (args.plot.is_some(), "a picture is"),
        ];
        if let Some((_, what)) = single.into_iter().find(|(asked, _)| *asked) {
            return Err(invalid(format!("{what} of one file, give one at a time")));
        }
    }
    let interrupt = Interrupt::install()?;
    let (model, is_builtin) = open::speech_model(&args.model)?;
    let options = GenerationOptions::greedy().with_max_new_tokens(args.max_new_tokens.get());
    let watch = interrupt.watch();
    if let Some(rate) = args.live {
        return live::run(&model, rate, &options, args.format, &watch);
    }
    let longest = match (args.longest, args.format) {
        (Some(seconds), _) => seconds.get() as f64,
        (None, _) if is_builtin => EMBEDDED_SECONDS,
        (None, TranscriptFormat::Srt) => LONGEST_SUBTITLE,
        (None, _) => LONGEST,
    };
    let work = Work {
        model: &model,
        cut: CutOptions::default().with_longest(longest),
        options,
        format: args.format,
        titles: args.files.len() > 1,
        cancel: &watch,
    };
    let limits = limits(args.max_minutes.get() as u64);
    for path in &args.files {
        let clip = Clip::open(path, &limits).doing("reading", path.display())?;
        if let Some(picture) = &args.plot {
            sound_picture::write(picture, &clip, model.front_end())?;
        }
        work.file(path, &clip)?;
    }
    Ok(())
}

/// What files may hold that somebody has chosen: so many minutes, in whatever format.
fn limits(minutes: u64) -> SoundLimits {
    let limits = SoundLimits::default();
    let seconds = minutes.saturating_mul(60);
    let bytes = seconds.saturating_mul(RAW_BYTES).max(limits.max_bytes);
    limits.with_max_seconds(seconds).with_max_bytes(bytes)
}

/// How files are transcribed.
struct Work<'a> {
    model: &'a AudioModel,
    cut: CutOptions,
    options: GenerationOptions,
    format: TranscriptFormat,
    /// Whether the name of a file stands above its text.
    titles: bool,
    cancel: &'a Cancel,
}

impl Work<'_> {
    fn file(&self, path: &Path, clip: &Clip) -> Result<()> {
        let sections = self.model.transcribe_long(clip, &self.cut, &self.options)?;
        let voiced: f64 = sections.remaining().map(|(start, end)| end - start).sum();
        let bar = self.bar(voiced);
        bar.set_message(path.display().to_string());
        let mut transcript = Transcript::new(path, clip.seconds());
        if self.titles && self.format == TranscriptFormat::Text {
            screen::print(&format!("{}:\n", path.display()))?;
        }
        for section in sections {
            let part = self.section(section?)?;
            bar.inc((part.end - part.start).round() as u64);
            transcript.push(part, self.format)?;
        }
        bar.finish_and_clear();
        transcript.finish(self.format)
    }

    /// Transcribes a part; what is meant for people is written while it comes.
    fn section(&self, section: Section<'_>) -> Result<Part> {
        let (start, end) = (section.start, section.end);
        let mut reply = section.reply;
        let mut text = String::new();
        let streams = self.format == TranscriptFormat::Text;
        for event in reply.by_ref() {
            if self.cancel.is_cancelled() {
                return Err(Stopped.into());
            }
            if let Event::Text(piece) = event? {
                if streams {
                    screen::print(&piece)?;
                }
                text.push_str(&piece);
            }
        }
        Ok(Part {
            start,
            end,
            text: text.trim().to_owned(),
            complete: reply.is_complete(),
        })
    }

    /// A bar, unless the text itself shows how far it is.
    fn bar(&self, seconds: f64) -> ProgressBar {
        if self.format == TranscriptFormat::Text && io::stdout().is_terminal() {
            return ProgressBar::hidden();
        }
        progress::bar(seconds.round() as u64, "seconds")
    }
}
