//! Drawing a token where one was proposed: speculative sampling.
//!
//! Whatever is proposed, the drawn token has the distribution that [`Sampler::sample`] draws from. A
//! proposal only makes it likelier that the two are the same token.

use super::{Candidate, RandomStream, Sampler, Token};
use crate::{GenerationOptions, Result};

/// A guess of the next token.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The guess.
    pub id: u32,
    /// The distribution that `id` was drawn from, in the order of ids; empty when nothing was drawn.
    pub from: Vec<Candidate>,
}

impl Proposal {
    /// A guess without a distribution behind it.
    pub fn certain(id: u32) -> Self {
        Self {
            id,
            from: Vec::new(),
        }
    }
}

impl Sampler {
    /// A sampler of the same options for proposing tokens to the one with this seed: it draws from
    /// another random stream, since proposal and decision have to be independent.
    pub(crate) fn for_proposals(
        options: &GenerationOptions,
        vocab: usize,
        seed: u64,
    ) -> Result<Self> {
        let mut sampler = Self::new(options, vocab)?;
        sampler.random = RandomStream::for_proposals(seed);
        Ok(sampler)
    }

    /// Takes over what `other` knows of its sequence.
    pub(crate) fn follow(&mut self, other: &Self) {
        self.history.clone_from(&other.history);
    }

    /// Draws a token to propose to another sampler, and remembers it.
    pub(crate) fn propose(&mut self, logits: &mut [f32]) -> Result<Proposal> {
        let id = if self.options.temperature == 0.0 {
            self.choose(logits)?
        } else {
            self.distribution(logits)?;
            self.pick(1.0)?
        };
        self.history.observe_output(id);
        let from = if self.options.temperature == 0.0 {
            Vec::new()
        } else {
            self.candidates.clone()
        };
        Ok(Proposal { id, from })
    }

    /// Draws the next token and remembers it, like [`sample`](Self::sample) and with the same
    /// distribution, and makes it the proposed one as often as that allows.
    ///
    /// For a guess without a distribution this is [`sample`](Self::sample) itself, random numbers
    /// included. Otherwise one random number decides on the proposal, and a second one draws from what
    /// is left when it is refused (Leviathan et al. 2023, Chen et al. 2023).
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub fn sample_proposed(&mut self, logits: &mut [f32], proposal: &Proposal) -> Result<Token> {
        self.draw(logits, |sampler, logits| {
            sampler.choose_proposed(logits, proposal)
        })
    }

    fn choose_proposed(&mut self, logits: &mut [f32], proposal: &Proposal) -> Result<u32> {
        if self.options.temperature == 0.0 || proposal.from.is_empty() {
            return self.choose(logits);
        }
        self.distribution(logits)?;
        let wanted = probability(&self.candidates, proposal.id);
        let proposed = probability(&proposal.from, proposal.id);
        if self.random.fraction() * proposed < wanted {
            return Ok(proposal.id);
        }
        let mass = subtract(&mut self.candidates, &proposal.from);
        if mass > 0.0 {
            self.pick(mass)
        } else {
            // Distributions that are equal but for rounding.
            Ok(proposal.id)
        }
    }
}

fn probability(candidates: &[Candidate], id: u32) -> f64 {
    let found = candidates.binary_search_by_key(&id, |c| c.id).ok();
    let found = found.and_then(|at| candidates.get(at));
    found.map_or(0.0, |c| f64::from(c.probability))
}

/// Leaves of every candidate what it has more than in `others`, both in the order of ids, and returns
/// the sum.
fn subtract(candidates: &mut [Candidate], others: &[Candidate]) -> f64 {
    let mut others = others.iter().peekable();
    let mut mass = 0.0;
    for candidate in candidates {
        while others.next_if(|other| other.id < candidate.id).is_some() {}
        let other = others.next_if(|other| other.id == candidate.id);
        let other = other.map_or(0.0, |other| other.probability);
        candidate.probability = (candidate.probability - other).max(0.0);
        mass += f64::from(candidate.probability);
    }
    mass
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(probabilities: &[(u32, f32)]) -> Vec<Candidate> {
        let candidates = probabilities
            .iter()
            .map(|&(id, probability)| Candidate { id, probability });
        candidates.collect()
    }

    #[test]
    fn what_is_left_has_nothing_of_the_proposal() {
        let mut left = candidates(&[(1, 0.5), (4, 0.25), (5, 0.25)]);
        let others = candidates(&[(0, 0.1), (1, 0.25), (3, 0.15), (4, 0.5)]);
        assert_eq!(subtract(&mut left, &others), 0.5);
        assert_eq!(left, candidates(&[(1, 0.25), (4, 0.0), (5, 0.25)]));
    }

    #[test]
    fn a_guess_takes_no_random_number_of_its_own() {
        let options = GenerationOptions::neutral().with_seed(3);
        let mut plain = Sampler::new(&options, 4).unwrap();
        let mut guessing = Sampler::new(&options, 4).unwrap();
        for i in 0..200u32 {
            let logits = [0.1, 0.7, 0.3, (i % 7) as f32 / 5.0];
            let expected = plain.sample(&mut logits.clone()).unwrap();
            let guess = Proposal::certain(i % 4);
            let found = guessing
                .sample_proposed(&mut logits.clone(), &guess)
                .unwrap();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn equal_distributions_refuse_nothing() {
        let options = GenerationOptions::neutral().with_seed(3).with_top_k(3);
        let mut proposing = Sampler::for_proposals(&options, 4, 3).unwrap();
        let mut drawing = Sampler::new(&options, 4).unwrap();
        for _ in 0..200 {
            let logits = [0.1, 0.7, 0.3, -0.4];
            let proposal = proposing.propose(&mut logits.clone()).unwrap();
            assert_eq!(proposal.from.len(), 3);
            let token = drawing.sample_proposed(&mut logits.clone(), &proposal);
            assert_eq!(token.unwrap().id, proposal.id);
        }
    }

    #[test]
    fn a_forbidden_proposal_is_refused() {
        let options = GenerationOptions::neutral().with_logit_bias(2, f32::NEG_INFINITY);
        let mut drawing = Sampler::new(&options, 3).unwrap();
        let proposal = Proposal {
            id: 2,
            from: candidates(&[(1, 0.5), (2, 0.5)]),
        };
        for _ in 0..100 {
            let token = drawing
                .sample_proposed(&mut [0.0, 0.0, 9.0], &proposal)
                .unwrap();
            assert_eq!(token.id, 0, "id 1 was proposed as often as it is wanted");
        }
    }

    #[test]
    fn proposals_have_their_own_random_numbers() {
        let options = GenerationOptions::neutral();
        let mut proposing = Sampler::for_proposals(&options, 1000, 5).unwrap();
        let mut drawing = Sampler::new(&options.with_seed(5), 1000).unwrap();
        let same = (0..50).filter(|_| {
            let proposed = proposing.propose(&mut [0.0; 1000]).unwrap().id;
            drawing.sample(&mut [0.0; 1000]).unwrap().id == proposed
        });
        assert!(same.count() < 5);
    }
}
