//! Where somebody speaks in a clip, and where it can be cut.
//!
//! What tells a voice from other sounds is `earshot`, a small network in the crate of that name; here is
//! only what follows from its scores. It hears 16 kHz, in steps of 16 ms.

use std::ops::Range;

use lfm2_hub::Result;

use crate::Clip;

/// Samples per second that a voice is looked for in.
pub(crate) const RATE: u32 = 16_000;
/// Samples of one score.
pub(crate) const STEP: usize = 256;
/// From here on a score says that there is a voice.
pub(crate) const VOICE: f32 = 0.5;
/// What is kept before and behind a voice, which begins and ends more quietly than it is found.
const MARGIN_SECONDS: f64 = 0.2;

/// How a long clip is cut into parts.
///
/// ```
/// use lfm2_audio::CutOptions;
///
/// let options = CutOptions::default().with_longest(8.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct CutOptions {
    /// Seconds of the longest part. A clip that is not longer is one part as it is.
    pub longest: f64,
    /// Seconds without a voice that may be a border.
    pub pause: f64,
}

impl Default for CutOptions {
    fn default() -> Self {
        Self {
            longest: 30.0,
            pause: 0.3,
        }
    }
}

impl CutOptions {
    /// With parts of at most so many seconds; at least one.
    pub fn with_longest(mut self, seconds: f64) -> Self {
        self.longest = seconds.max(1.0);
        self
    }
}

/// Finds voices in sound that arrives in pieces, at 16 kHz.
pub(crate) struct Ear {
    detector: Box<earshot::Detector>,
    pending: Vec<f32>,
}

impl std::fmt::Debug for Ear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ear").finish_non_exhaustive()
    }
}

impl Ear {
    pub(crate) fn new() -> Self {
        Self {
            detector: earshot::Detector::default_boxed(),
            pending: Vec::with_capacity(STEP),
        }
    }

    /// Appends a score from 0 to 1 for every whole step.
    pub(crate) fn push(&mut self, samples: &[f32], scores: &mut Vec<f32>) {
        let mut rest = samples;
        while self.pending.len() + rest.len() >= STEP {
            let (now, later) = rest.split_at(STEP - self.pending.len());
            self.pending.extend_from_slice(now);
            rest = later;
            // Louder than full scale says no more about voices.
            self.pending
                .iter_mut()
                .for_each(|v| *v = v.clamp(-1.0, 1.0));
            scores.push(self.detector.predict_f32(&self.pending));
            self.pending.clear();
        }
        self.pending.extend_from_slice(rest);
    }
}

/// How likely there is a voice, for every 16 ms of a clip, from 0 to 1.
///
/// # Errors
/// When the rate cannot be resampled.
pub fn voice_activity(clip: &Clip) -> Result<Vec<f32>> {
    let clip = clip.resampled(RATE)?;
    let mut scores = Vec::with_capacity(clip.samples().len() / STEP + 1);
    let mut ear = Ear::new();
    ear.push(clip.samples(), &mut scores);
    let rest = (STEP - clip.samples().len() % STEP) % STEP;
    ear.push(&vec![0.0; rest], &mut scores);
    Ok(scores)
}

/// The parts of a clip in which somebody speaks, as ranges of its samples, in order: cut at pauses, or
/// where a voice is least likely when there is no pause for too long. Long pauses are in none of them.
///
/// A clip that is short enough is one part, whatever is in it.
///
/// # Errors
/// As [`voice_activity`].
pub fn cut_at_pauses(clip: &Clip, options: &CutOptions) -> Result<Vec<Range<usize>>> {
    let samples = clip.samples().len();
    if clip.seconds() <= options.longest {
        return Ok(std::iter::once(0..samples).collect());
    }
    let scores = voice_activity(clip)?;
    let per_step = STEP as f64 / f64::from(RATE);
    let steps = |seconds: f64| ((seconds / per_step) as usize).max(1);
    let sizes = Sizes {
        longest: steps(options.longest),
        pause: steps(options.pause),
        margin: steps(MARGIN_SECONDS),
    };
    let scale = f64::from(clip.rate()) / f64::from(RATE) * STEP as f64;
    let place = |step: usize| ((step as f64 * scale) as usize).min(samples);
    let parts = parts(&scores, sizes).into_iter();
    Ok(parts
        .map(|part| place(part.start)..place(part.end))
        .filter(|part| !part.is_empty())
        .collect())
}

/// [`CutOptions`] in steps.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    longest: usize,
    pause: usize,
    margin: usize,
}

/// Ranges of steps with a voice, none longer than the longest, as few as possible.
fn parts(scores: &[f32], sizes: Sizes) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    for voice in voices(scores, sizes) {
        for piece in pieces(scores, voice, sizes.longest) {
            match parts.last_mut() {
                Some(last) if piece.end - last.start <= sizes.longest => last.end = piece.end,
                _ => parts.push(piece),
            }
        }
    }
    parts
}

/// Runs of steps with a voice and their margins; what is less than a pause apart is one.
fn voices(scores: &[f32], sizes: Sizes) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (step, _) in scores.iter().enumerate().filter(|(_, s)| **s >= VOICE) {
        match found.last_mut() {
            Some(last) if step < last.end + sizes.pause => last.end = step + 1,
            _ => found.push(step..step + 1),
        }
    }
    // Two margins may not meet in the middle of a pause.
    let margin = sizes.margin.min(sizes.pause / 2);
    for voice in &mut found {
        let start = voice.start.saturating_sub(margin);
        *voice = start..(voice.end + margin).min(scores.len());
    }
    found
}

/// A run cut where a voice is least likely, so that no piece is too long.
fn pieces(scores: &[f32], mut run: Range<usize>, longest: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    while run.len() > longest {
        // Not in the first half: pieces should not become tiny.
        let latest = run.start + longest;
        let earliest = run.start + longest.div_ceil(2);
        let quietest = (earliest..=latest).min_by(|a, b| {
            let at = |step: &usize| around(scores, *step);
            at(a).total_cmp(&at(b))
        });
        let cut = quietest.unwrap_or(latest);
        pieces.push(run.start..cut);
        run.start = cut;
    }
    pieces.push(run);
    pieces
}

/// The mean score of the steps next to a border: one quiet step in a word is no place to cut.
pub(crate) fn around(scores: &[f32], step: usize) -> f32 {
    let near = scores
        .get(step.saturating_sub(2)..(step + 2).min(scores.len()))
        .unwrap_or_default();
    near.iter().sum::<f32>() / near.len().max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZES: Sizes = Sizes {
        longest: 20,
        pause: 4,
        margin: 2,
    };

    /// `#` is a voice, `.` none.
    fn scores(text: &str) -> Vec<f32> {
        let score = |c| if c == '#' { 0.9 } else { 0.1 };
        text.chars().map(score).collect()
    }

    #[test]
    fn parts_end_at_pauses_and_leave_out_long_ones() {
        let scores = scores("....######....######..............##########");
        // The first two fit into one part; the third does not fit with them.
        assert_eq!(parts(&scores, SIZES), [2..22, 32..44]);
    }

    #[test]
    fn a_run_without_pauses_is_cut_where_it_is_quietest() {
        let mut scores = vec![0.9; 50];
        for step in 14..18 {
            scores[step] = 0.6;
        }
        let parts = parts(&scores, SIZES);
        assert_eq!(parts[0], 0..16);
        assert!(parts.iter().all(|part| part.len() <= SIZES.longest));
    }

    #[test]
    fn silence_has_no_parts_and_short_clips_are_whole() {
        assert!(parts(&scores("............"), SIZES).is_empty());
        let clip = Clip::new(vec![0.0; 8_000], 8_000).unwrap();
        let whole = cut_at_pauses(&clip, &CutOptions::default()).unwrap();
        assert_eq!(whole, std::iter::once(0..8_000).collect::<Vec<_>>());
        let silent = Clip::new(vec![0.0; 40_000], 8_000).unwrap();
        let cut = CutOptions::default().with_longest(2.0);
        assert!(cut_at_pauses(&silent, &cut).unwrap().is_empty());
    }

    #[test]
    fn pieces_of_any_size_are_heard_alike() {
        let samples: Vec<f32> = (0..5_000).map(|t| (t as f32 * 0.3).sin()).collect();
        let hear = |size: usize| {
            let (mut ear, mut scores) = (Ear::new(), Vec::new());
            samples
                .chunks(size)
                .for_each(|piece| ear.push(piece, &mut scores));
            scores
        };
        let whole = hear(5_000);
        assert_eq!(whole.len(), 5_000 / STEP);
        for size in [1, 7, 255, 257, 1_000] {
            assert_eq!(hear(size), whole, "{size}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_voice_is_in_one_part_and_none_is_too_long(
            scores in prop::collection::vec(0f32..1.0, 0..400),
            longest in 1usize..60,
            pause in 1usize..10,
        ) {
            let sizes = Sizes { longest, pause, margin: 3 };
            let parts = parts(&scores, sizes);
            let mut end = 0;
            for part in &parts {
                prop_assert!(part.start >= end && part.end <= scores.len());
                prop_assert!(!part.is_empty() && part.len() <= longest.max(1));
                end = part.end;
            }
            for (step, _) in scores.iter().enumerate().filter(|(_, s)| **s >= VOICE) {
                prop_assert!(parts.iter().any(|part| part.contains(&step)), "step {step}");
            }
        }
    }
}
