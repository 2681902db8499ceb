//! The loop of guessing and checking for one sequence: [`Speculator`].

use std::fmt;
use std::time::{Duration, Instant};

use lfm2_nn::{Decoder, Want};

use super::governor::{Governor, Verified};
use super::lookup::{self, Lookup};
use super::{Drafter, Pace};
use crate::logits::read_logits;
use crate::place::{Fed, Place};
use crate::sequence::{Drawn, Sequence};
use crate::{Cancel, Error, Proposal, Result, prefix};

/// The model being sped up, at work on its sequence.
pub(crate) struct Target<'t, 'a> {
    pub(crate) decoder: &'t dyn Decoder,
    pub(crate) place: &'t mut Place<'a>,
    pub(crate) sequence: &'t mut Sequence,
    /// Logits of the newest pass, row after row.
    pub(crate) logits: &'t mut Vec<f32>,
}

/// Guesses tokens, has them checked, and takes back what was wrong.
#[derive(Debug)]
pub(crate) struct Speculator<'a> {
    source: Source<'a>,
    governor: Governor,
    /// Prompt and output.
    tokens: Vec<u32>,
    /// The guesses that were fed and are not all decided on.
    open: Option<Open>,
    /// What would have been guessed, when guessing does not pay.
    looked_at: Option<u32>,
}

enum Source<'a> {
    Lookup(Lookup),
    Model(Box<Drafter<'a>>),
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lookup(_) => "Lookup",
            Self::Model(_) => "Model",
        })
    }
}

/// A pass with guesses. Its logits have one row more than there are guesses.
#[derive(Debug)]
struct Open {
    proposals: Vec<Proposal>,
    accepted: usize,
    /// Whether a guess was wrong.
    refused: bool,
    time: Duration,
}

impl<'a> Speculator<'a> {
    /// Guesses from prompt and output.
    pub(crate) fn from_text(prompt: &[u32], max_draft: usize, pace: Pace) -> Self {
        let mut lookup = Lookup::default();
        for end in 1..=prompt.len() {
            lookup.note_last(&prompt[..end]);
        }
        Self::new(Source::Lookup(lookup), prompt, max_draft, pace)
    }

    /// Guesses of a draft model.
    pub(crate) fn from_model(
        drafter: Drafter<'a>,
        prompt: &[u32],
        max_draft: usize,
        pace: Pace,
    ) -> Self {
        Self::new(Source::Model(Box::new(drafter)), prompt, max_draft, pace)
    }

    fn new(source: Source<'a>, prompt: &[u32], max_draft: usize, pace: Pace) -> Self {
        Self {
            source,
            governor: Governor::new(max_draft, pace),
            tokens: prompt.to_vec(),
            open: None,
            looked_at: None,
        }
    }

    /// Lets the draft model, if there is one, work in `place`.
    pub(crate) fn set_draft_place(&mut self, place: Place<'a>) {
        if let Source::Model(drafter) = &mut self.source {
            drafter.set_place(place);
        }
    }

    /// Brings the logits of the next token behind `newest`, feeding the model if need be.
    pub(crate) fn feed(
        &mut self,
        target: &mut Target<'_, '_>,
        newest: u32,
        cancel: &Cancel,
    ) -> Result<Fed> {
        if self.open.is_some() {
            return Ok(Fed::Logits);
        }
        // The last token of a text needs no guess behind it.
        let room = target.sequence.room_left().saturating_sub(1);
        let count = self.draft_len(room);
        if let (Source::Model(drafter), true) = (&mut self.source, count > 0) {
            drafter.catch_up(&self.tokens, cancel)?;
            if cancel.is_cancelled() {
                return Ok(Fed::Cancelled);
            }
        }
        let start = Instant::now();
        let mut proposals = self.propose(count, target.sequence)?;
        // A prompt can have ids that are read but never drawn.
        let vocab = target.decoder.vocab_size();
        let drawn = |proposal: &&Proposal| (proposal.id as usize) < vocab;
        proposals.truncate(proposals.iter().take_while(drawn).count());
        if proposals.is_empty() {
            let logits = target
                .place
                .feed(target.decoder, &[newest], Want::LastLogits)?;
            read_logits(&logits, target.logits)?;
            self.governor.plain(start.elapsed());
            return Ok(Fed::Logits);
        }
        let guesses = proposals.iter().map(|proposal| proposal.id);
        let ids: Vec<u32> = [newest].into_iter().chain(guesses).collect();
        let row = target.place.row();
        target.place.cache().begin_trial(row)?;
        let logits = target.place.feed(target.decoder, &ids, Want::AllLogits)?;
        read_logits(&logits, target.logits)?;
        self.open = Some(Open {
            proposals,
            accepted: 0,
            refused: false,
            time: start.elapsed(),
        });
        Ok(Fed::Logits)
    }

    /// Draws the next token from the logits that [`feed`](Self::feed) brought.
    pub(crate) fn draw(&mut self, target: &mut Target<'_, '_>) -> Result<Drawn> {
        let row = self.open.as_ref().map_or(0, |open| open.accepted);
        let vocab = target.decoder.vocab_size();
        let logits = target.logits.chunks_exact_mut(vocab).nth(row);
        let logits = logits.ok_or_else(|| {
            Error::Candle(candle_core::Error::Msg(format!(
                "the model gave no logits for token {row} of a pass"
            )))
        })?;
        let proposal = self.open.as_ref().and_then(|o| o.proposals.get(row));
        let guess = proposal.map(|proposal| proposal.id);
        let drawn = match proposal {
            Some(proposal) => target.sequence.draw_proposed(logits, proposal)?,
            None => target.sequence.draw(logits)?,
        };
        let newest = target.sequence.generated().last().copied();
        match &mut self.open {
            Some(open) if guess.is_some() && guess == newest => open.accepted += 1,
            Some(open) => {
                open.refused = guess.is_some();
                self.settle(target)?;
            }
            None => {
                if let Some(guess) = self.looked_at.take() {
                    self.governor.guessed(newest == Some(guess));
                }
            }
        }
        self.tokens.extend(newest);
        if let Source::Lookup(lookup) = &mut self.source {
            lookup.note_last(&self.tokens);
        }
        Ok(drawn)
    }

    /// Takes back what was fed for guesses that did not become text: the cache is then as if there
    /// had been none.
    pub(crate) fn settle(&mut self, target: &mut Target<'_, '_>) -> Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let start = Instant::now();
        // The token drawn last is always still to be fed.
        let len = target.sequence.len() - 1;
        let row = target.place.row();
        let cache = target.place.cache();
        prefix::keep(target.decoder, cache, row, len)?;
        cache.end_trial(row);
        let drafted = open.proposals.len();
        target.sequence.count_drafts(drafted, open.accepted);
        self.governor.verified(Verified {
            drafted,
            accepted: open.accepted,
            refused: open.refused,
            time: open.time + start.elapsed(),
        });
        Ok(())
    }

    /// How many tokens to guess.
    fn draft_len(&mut self, room: usize) -> usize {
        let Source::Lookup(lookup) = &self.source else {
            return self.governor.draft_len(room);
        };
        let Some(from) = lookup.find(&self.tokens) else {
            return 0;
        };
        let count = self.governor.draft_len(room);
        if count == 0 {
            self.looked_at = self.tokens.get(from).copied();
        }
        count
    }

    fn propose(&mut self, count: usize, sequence: &Sequence) -> Result<Vec<Proposal>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        match &mut self.source {
            Source::Lookup(lookup) => {
                let from = lookup.find(&self.tokens).unwrap_or(self.tokens.len());
                let ids = lookup::copy(&self.tokens, from, count);
                Ok(ids.into_iter().map(Proposal::certain).collect())
            }
            Source::Model(drafter) => drafter.propose(&self.tokens, count, sequence.sampler()),
        }
    }
}
