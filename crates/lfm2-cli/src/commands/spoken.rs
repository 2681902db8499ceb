//! What `lfm2 speak` and `lfm2 converse` share: an answer in sound while it is made.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::ProgressBar;
use lfm2::Cancel;
use lfm2::hub::Error;
use lfm2::speech::{
    AudioModel, Clip, Event, FRAME_SAMPLES, OUTPUT_RATE, Reply, wav_bytes, write_wav,
};
use serde::Serialize;

use crate::exit::Doing;
use crate::ui::sound_picture;

/// An answer in sound and how long it took.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) samples: Vec<f32>,
    pub(super) times: Times,
    /// Whether the model ended it itself.
    pub(super) complete: bool,
    pub(super) cancelled: bool,
}

/// How long sound took.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Times {
    /// Of the sound.
    pub(super) seconds: f64,
    /// From the question to the first samples.
    pub(super) first_sound_seconds: Option<f64>,
    /// From the question to the last ones.
    pub(super) compute_seconds: f64,
    /// The latter over the length of the sound; `None` without any.
    pub(super) real_time_factor: Option<f64>,
}

impl Times {
    fn new(samples: usize, first: Option<Duration>, all: Duration) -> Self {
        let seconds = samples as f64 / f64::from(OUTPUT_RATE);
        Self {
            seconds,
            first_sound_seconds: first.map(|first| first.as_secs_f64()),
            compute_seconds: all.as_secs_f64(),
            real_time_factor: (samples > 0).then(|| all.as_secs_f64() / seconds),
        }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Some(first), Some(factor)) = (self.first_sound_seconds, self.real_time_factor) else {
            return write!(f, "no sound, in {:.1} s", self.compute_seconds);
        };
        write!(
            f,
            "{:.1} s of sound in {:.1} s: first sound after {first:.2} s, {factor:.2} of real time",
            self.seconds, self.compute_seconds
        )
    }
}

/// Runs an answer that is begun by `begin`; `show` gets its text piece by piece.
pub(super) fn collect<'m>(
    begin: impl FnOnce() -> lfm2::hub::Result<Reply<'m>>,
    bar: &ProgressBar,
    cancel: &Cancel,
    mut show: impl FnMut(&str) -> Result<()>,
) -> Result<Answer> {
    let started = Instant::now();
    let mut reply = begin()?;
    let (mut text, mut samples, mut first) = (String::new(), Vec::new(), None);
    while let Some(event) = reply.next().filter(|_| !cancel.is_cancelled()) {
        match event? {
            Event::Text(piece) => {
                show(&piece)?;
                text.push_str(&piece);
            }
            Event::Samples(more) => {
                first.get_or_insert_with(|| started.elapsed());
                samples.extend(more);
                bar.set_position(samples.len() as u64 / u64::from(OUTPUT_RATE));
            }
            _ => bar.tick(),
        }
    }
    bar.finish_and_clear();
    Ok(Answer {
        text: text.trim().to_owned(),
        times: Times::new(samples.len(), first, started.elapsed()),
        samples,
        complete: reply.is_complete(),
        cancelled: cancel.is_cancelled(),
    })
}

/// Writes the sound, and a picture of it if that was asked for.
pub(super) fn write(
    answer: &Answer,
    path: &Path,
    plot: Option<&Path>,
    model: &AudioModel,
) -> Result<()> {
    if answer.samples.is_empty() {
        let said = match answer.text.as_str() {
            "" => "nothing at all".to_owned(),
            text => format!("only the text {text:?}"),
        };
        let what = format!("the model made no sound, {said}; another --seed may help");
        return Err(Error::InvalidInput(what).into());
    }
    if path == Path::new("-") {
        let bytes = wav_bytes(&answer.samples, OUTPUT_RATE)?;
        io::stdout().lock().write_all(&bytes)?;
    } else {
        write_wav(path, &answer.samples, OUTPUT_RATE).doing("writing", path.display())?;
    }
    if let Some(picture) = plot {
        let clip = Clip::new(answer.samples.clone(), OUTPUT_RATE)?;
        sound_picture::write(picture, &clip, model.front_end())?;
    }
    if !answer.complete && !answer.cancelled {
        let frames = answer.samples.len() / FRAME_SAMPLES;
        eprintln!("the sound is cut off after {frames} frames of 80 ms, -n allows more");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_say_whether_it_could_be_played_at_once() {
        let times = Times::new(
            48_000,
            Some(Duration::from_millis(250)),
            Duration::from_secs(1),
        );
        assert_eq!(
            times.to_string(),
            "2.0 s of sound in 1.0 s: first sound after 0.25 s, 0.50 of real time"
        );
        let none = Times::new(0, None, Duration::from_secs(1));
        assert_eq!(none.real_time_factor, None);
        assert_eq!(none.to_string(), "no sound, in 1.0 s");
    }
}
