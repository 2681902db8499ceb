//! [`Sections`]: the transcription of a clip of any length, part by part.

use std::ops::Range;

use lfm2_hub::Result;

use super::{AudioModel, GenerationOptions, Reply};
use crate::Clip;
use crate::pauses::{CutOptions, cut_at_pauses};

/// The parts of a clip that are transcribed one after another: an iterator of [`Section`]s. Nothing is
/// computed ahead.
#[derive(Debug)]
pub struct Sections<'a> {
    model: &'a AudioModel,
    clip: &'a Clip,
    options: GenerationOptions,
    parts: std::vec::IntoIter<Range<usize>>,
}

/// A part of a clip while it is transcribed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Section<'a> {
    /// Where it begins, in seconds.
    pub start: f64,
    /// Where it ends, in seconds.
    pub end: f64,
    /// What is said in it.
    pub reply: Reply<'a>,
}

impl AudioModel {
    /// Writes down what is said in a clip of any length, cut at pauses: the models were trained on clips
    /// of up to half a minute, and need memory and time in proportion to a part, not to the clip.
    ///
    /// # Errors
    /// When the rate of the clip cannot be resampled.
    pub fn transcribe_long<'a>(
        &'a self,
        clip: &'a Clip,
        cut: &CutOptions,
        options: &GenerationOptions,
    ) -> Result<Sections<'a>> {
        Ok(Sections {
            model: self,
            clip,
            options: options.clone(),
            parts: cut_at_pauses(clip, cut)?.into_iter(),
        })
    }
}

impl Sections<'_> {
    /// Parts that are left, as seconds of their beginnings and ends.
    pub fn remaining(&self) -> impl Iterator<Item = (f64, f64)> {
        let seconds = |sample: usize| sample as f64 / f64::from(self.clip.rate());
        let parts = self.parts.as_slice().iter();
        parts.map(move |part| (seconds(part.start), seconds(part.end)))
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = Result<Section<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (start, end) = self.remaining().next()?;
        let part = self.parts.next()?;
        let clip = self.clip.part(part.start, part.len());
        let reply = clip.and_then(|clip| self.model.transcribe(&clip, &self.options));
        Some(reply.map(|reply| Section { start, end, reply }))
    }
}
