//! [`Live`]: an approximate transcription of sound that is still arriving.
//!
//! The encoder hears a clip as a whole, so an exact one does not exist. Here the sound since the last
//! pause is transcribed again and again from its beginning. Words that two transcriptions in a row agree
//! on are given out and stay; a pause, or too long without one, makes the rest final.

use lfm2_hub::Result;

use super::{AudioModel, GenerationOptions};
use crate::pauses::{Ear, RATE, STEP, VOICE, around};
use crate::{Clip, Resampler};

/// How sound that is still arriving is transcribed.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct LiveOptions {
    /// Seconds of new sound before it is worth listening again.
    pub step: f64,
    /// Seconds without a voice that end a sentence.
    pub pause: f64,
    /// Seconds of sound that are listened to again at most.
    pub longest: f64,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            step: 1.0,
            pause: 0.6,
            longest: 15.0,
        }
    }
}

/// What is known after listening again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveText {
    /// Words that are new and stay.
    pub settled: String,
    /// The words behind them, which may still change.
    pub tentative: String,
    /// Whether a sentence ended behind the settled words.
    pub ends: bool,
}

/// An approximate transcription of sound that is still arriving: push samples, and ask for an update
/// as often as there is time for one.
#[derive(Debug)]
pub struct Live<'m> {
    model: &'m AudioModel,
    generation: GenerationOptions,
    options: LiveOptions,
    resampler: Resampler,
    ear: Ear,
    /// Sound since the last border, at 16 kHz, and whether there is a voice in each step of it.
    samples: Vec<f32>,
    scores: Vec<f32>,
    /// Samples that were listened to already.
    heard: usize,
    agreement: Agreement,
}

impl AudioModel {
    /// An approximate transcription of sound at `rate` that is still arriving.
    ///
    /// # Errors
    /// When the rate cannot be resampled.
    pub fn live(
        &self,
        rate: u32,
        options: LiveOptions,
        generation: &GenerationOptions,
    ) -> Result<Live<'_>> {
        Ok(Live {
            model: self,
            generation: generation.clone(),
            options,
            resampler: Resampler::new(rate, RATE)?,
            ear: Ear::new(),
            samples: Vec::new(),
            scores: Vec::new(),
            heard: 0,
            agreement: Agreement::default(),
        })
    }
}

impl Live<'_> {
    /// Takes more samples.
    ///
    /// # Errors
    /// When one is not a number or absurdly loud.
    pub fn push(&mut self, samples: &[f32]) -> Result<()> {
        if samples.is_empty() {
            return Ok(());
        }
        // Checks them.
        let clip = Clip::new(samples.to_vec(), RATE)?;
        let before = self.samples.len();
        self.resampler.push(clip.samples(), &mut self.samples);
        self.ear.push(&self.samples[before..], &mut self.scores);
        Ok(())
    }

    /// Listens again, if enough is new; `None` if not, or nobody speaks.
    ///
    /// # Errors
    /// As [`AudioModel::transcribe`].
    pub fn update(&mut self) -> Result<Option<LiveText>> {
        self.drop_silence();
        let new = self.samples.len().saturating_sub(self.heard);
        if seconds(new) < self.options.step || !self.has_voice() {
            return Ok(None);
        }
        match self.border() {
            Some(border) => self.settle(border).map(Some),
            None => {
                self.heard = self.samples.len();
                let words = self.transcribe(self.samples.len())?;
                Ok(Some(self.agreement.update(words)))
            }
        }
    }

    /// Ends the sound: everything left is settled.
    ///
    /// # Errors
    /// As [`Live::update`].
    pub fn finish(mut self) -> Result<LiveText> {
        let before = self.samples.len();
        self.resampler.finish(&mut self.samples);
        self.ear.push(&self.samples[before..], &mut self.scores);
        let mut text = LiveText::default();
        // What arrived while nobody asked may be longer than one window.
        while seconds(self.samples.len()) > self.options.longest {
            let border = self.quietest();
            append(&mut text, &self.settle(border)?);
        }
        if self.has_voice() {
            append(&mut text, &self.settle(self.samples.len())?);
        }
        Ok(text)
    }

    /// Where the window may end for good: in a pause behind a voice, or where it becomes too long.
    fn border(&self) -> Option<usize> {
        let longest = (self.options.longest * f64::from(RATE)) as usize;
        if self.samples.len() > longest {
            return Some(self.quietest());
        }
        let last = self.scores.iter().rposition(|score| *score >= VOICE)?;
        let silent = (self.scores.len() - 1 - last) * STEP;
        (seconds(silent) >= self.options.pause).then_some(self.samples.len())
    }

    /// The sample in the second half of the longest window where a voice is least likely.
    fn quietest(&self) -> usize {
        let longest = (self.options.longest * f64::from(RATE)) as usize / STEP;
        let steps = longest / 2..longest.min(self.scores.len());
        let least =
            |a: &usize, b: &usize| around(&self.scores, *a).total_cmp(&around(&self.scores, *b));
        let step = steps.min_by(least).unwrap_or(longest);
        (step * STEP).clamp(1, self.samples.len().max(1))
    }

    /// Makes the words up to sample `border` final and goes on behind it.
    fn settle(&mut self, border: usize) -> Result<LiveText> {
        let words = self.transcribe(border)?;
        self.samples.drain(..border.min(self.samples.len()));
        self.scores.drain(..(border / STEP).min(self.scores.len()));
        self.heard = 0;
        Ok(self.agreement.settle(&words))
    }

    fn transcribe(&self, samples: usize) -> Result<Vec<String>> {
        let window = self.samples.get(..samples).unwrap_or(&self.samples);
        let clip = Clip::new(window.to_vec(), RATE)?;
        let text = self
            .model
            .transcribe(&clip, &self.generation)?
            .finish()?
            .text;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    fn has_voice(&self) -> bool {
        self.scores.iter().any(|score| *score >= VOICE)
    }

    /// Forgets sound before anybody speaks, but for half a second.
    fn drop_silence(&mut self) {
        if self.has_voice() {
            return;
        }
        let steps = self.samples.len().saturating_sub(RATE as usize / 2) / STEP;
        let steps = steps.min(self.scores.len());
        self.samples.drain(..steps * STEP);
        self.scores.drain(..steps);
        self.heard = self.heard.saturating_sub(steps * STEP);
    }
}

fn seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(RATE)
}

fn append(text: &mut LiveText, more: &LiveText) {
    if !text.settled.is_empty() && !more.settled.is_empty() {
        text.settled.push(' ');
    }
    text.settled.push_str(&more.settled);
    text.ends = more.ends;
}

/// Which words of a window stay.
#[derive(Debug, Default)]
struct Agreement {
    before: Vec<String>,
    /// Words of the window that were given out.
    given: usize,
}

impl Agreement {
    /// A new transcription of the same window, grown: words that it begins with as the one before did
    /// are settled.
    fn update(&mut self, words: Vec<String>) -> LiveText {
        let pairs = self.before.iter().zip(&words);
        let agreed = pairs.take_while(|(a, b)| plain(a) == plain(b)).count();
        let settled = words.get(self.given..agreed).unwrap_or_default().join(" ");
        self.given = self.given.max(agreed);
        let tentative = words.get(self.given..).unwrap_or_default().join(" ");
        self.before = words;
        LiveText {
            settled,
            tentative,
            ends: false,
        }
    }

    /// The last transcription of a window: all words that were not given out are settled.
    fn settle(&mut self, words: &[String]) -> LiveText {
        let settled = words.get(self.given..).unwrap_or_default().join(" ");
        *self = Self::default();
        LiveText {
            settled,
            tentative: String::new(),
            ends: true,
        }
    }
}

/// A word without what changes with its neighbours: case and punctuation.
fn plain(word: &str) -> String {
    let letters = word.chars().filter(|c| c.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn words_settle_when_two_transcriptions_agree() {
        let mut agreement = Agreement::default();
        let mut update = |text: &str| {
            let text = agreement.update(words(text));
            (text.settled, text.tentative)
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(update("the cat."), pair("", "the cat."));
        assert_eq!(update("The cat sad"), pair("The cat", "sad"));
        // What was given out stays, whatever comes.
        assert_eq!(update("A cat sat on"), pair("", "sat on"));
        assert_eq!(update("A cat sat on the"), pair("sat on", "the"));
        let rest = agreement.settle(&words("A cat sat on the mat."));
        assert_eq!((rest.settled.as_str(), rest.ends), ("the mat.", true));
        // The next window begins anew.
        assert_eq!(agreement.update(words("It")).tentative, "It");
    }

    #[test]
    fn a_shorter_last_transcription_takes_nothing_back() {
        let mut agreement = Agreement::default();
        agreement.update(words("one two three"));
        agreement.update(words("one two three"));
        assert_eq!(agreement.settle(&words("one two")).settled, "");
    }
}
