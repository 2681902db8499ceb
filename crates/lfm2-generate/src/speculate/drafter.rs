//! A second, smaller model that writes ahead: [`Drafter`].

use std::fmt;

use candle_core::Tensor;
use lfm2_nn::{CacheSpec, Decoder, Want};

use super::DraftChoice;
use crate::logits::read_logits;
use crate::place::Place;
use crate::{Cancel, GenerationOptions, Proposal, Result, Sampler, prefix};

/// Tokens per pass while the draft model reads what is there already.
const CATCH_UP_CHUNK: usize = 512;
/// Tokens that every draft has to read: the one just drawn, and the last guess if it was right.
const NEWS: usize = 2;

/// A draft model at work on one sequence.
pub(crate) struct Drafter<'a> {
    decoder: &'a dyn Decoder,
    place: Place<'a>,
    sampler: Sampler,
    logits: Vec<f32>,
}

impl fmt::Debug for Drafter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drafter").finish_non_exhaustive()
    }
}

impl<'a> Drafter<'a> {
    /// A drafter with a cache of its own for a sequence that is drawn with `options` and `seed`.
    pub(crate) fn new(
        decoder: &'a dyn Decoder,
        options: &GenerationOptions,
        seed: u64,
        choice: DraftChoice,
    ) -> Result<Self> {
        let mut options = GenerationOptions {
            logprobs: None,
            ..options.clone()
        };
        if choice == DraftChoice::Greedy {
            options.temperature = 0.0;
        }
        Ok(Self {
            sampler: Sampler::for_proposals(&options, decoder.vocab_size(), seed)?,
            place: Place::Own(decoder.new_cache(CacheSpec::rows(1))),
            decoder,
            logits: Vec::new(),
        })
    }

    /// Works in this place from now on.
    pub(super) fn set_place(&mut self, place: Place<'a>) {
        self.place = place;
    }

    /// Reads `tokens` up to the newest, of which every draft reads some.
    pub(super) fn catch_up(&mut self, tokens: &[u32], cancel: &Cancel) -> Result<()> {
        let mut done = self.go_back(tokens)?;
        let end = tokens.len().saturating_sub(NEWS);
        while done < end && !cancel.is_cancelled() {
            let next = end.min(done + CATCH_UP_CHUNK);
            self.feed(&tokens[done..next], Want::Hidden)?;
            done = next;
        }
        Ok(())
    }

    /// Proposes `count` tokens to follow `tokens`, for `target` to decide on.
    pub(super) fn propose(
        &mut self,
        tokens: &[u32],
        count: usize,
        target: &Sampler,
    ) -> Result<Vec<Proposal>> {
        let known = self.go_back(tokens)?;
        self.sampler.follow(target);
        self.read(&tokens[known..])?;
        // Guesses are taken back sooner or later; they are the end of the sequence at no time.
        let row = self.place.row();
        self.place.cache().begin_trial(row)?;
        let mut proposals = Vec::with_capacity(count);
        loop {
            let proposal = self.sampler.propose(&mut self.logits)?;
            let id = proposal.id;
            proposals.push(proposal);
            if proposals.len() >= count {
                return Ok(proposals);
            }
            self.read(&[id])?;
        }
    }

    /// Cuts the row to what it has in common with `tokens`, without the last of them; its length.
    fn go_back(&mut self, tokens: &[u32]) -> Result<usize> {
        let row = self.place.row();
        let cache = self.place.cache();
        let known = prefix::known_len(cache, row, tokens);
        prefix::keep(self.decoder, cache, row, known)?;
        cache.end_trial(row);
        Ok(known)
    }

    fn read(&mut self, ids: &[u32]) -> Result<()> {
        let logits = self.feed(ids, Want::LastLogits)?;
        read_logits(&logits, &mut self.logits)
    }

    fn feed(&mut self, ids: &[u32], want: Want) -> Result<Tensor> {
        let output = self.place.feed(self.decoder, ids, want);
        if output.is_err() {
            // A failed pass leaves the row half fed.
            let row = self.place.row();
            self.place.cache().clear_row(row);
        }
        output
    }
}

/// The trial ends with the drafter: whoever uses the cache next would have its inputs kept.
impl Drop for Drafter<'_> {
    fn drop(&mut self) {
        let row = self.place.row();
        self.place.cache().end_trial(row);
    }
}
