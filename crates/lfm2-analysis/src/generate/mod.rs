//! Pairs of sentences from a small grammar: no foreign data, any number of seeds.
//!
//! The sentences are made from lists of words of our own and may be used by anyone for anything
//! (CC0). A seed gives the same pairs for ever, within one version of the grammar.

mod clause;
mod contrasts;
mod morphology;
mod words;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::pairs::{Pair, PairSet};
use crate::random::Random;

/// Draws in a row that may bring nothing new before the grammar counts as exhausted.
const PATIENCE: usize = 200;
/// Streams of random numbers from here on belong to contrasts.
const PURPOSE: u64 = 16;

/// What the two sentences of a generated pair differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Contrast {
    /// Nothing: two sentences of other contrasts, drawn at random.
    Control,
    /// A word and its synonym.
    Synonym,
    /// A number and another one, or a vague amount.
    Quantity,
    /// Present and past.
    Tense,
    /// Plain and with an intensifier.
    Intensifier,
    /// Active and passive.
    Voice,
    /// "the" and "a".
    Definiteness,
    /// A statement and the same with "might", "may" or "could".
    Factuality,
    /// A good word about something and a bad one.
    Polarity,
    /// A statement and its negation.
    Negation,
}

impl Contrast {
    /// All of them, in the order of the study.
    pub const ALL: [Self; 10] = [
        Self::Control,
        Self::Synonym,
        Self::Quantity,
        Self::Tense,
        Self::Intensifier,
        Self::Voice,
        Self::Definiteness,
        Self::Factuality,
        Self::Polarity,
        Self::Negation,
    ];

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => crate::CONTROL,
            Self::Synonym => "synonym",
            Self::Quantity => "quantity",
            Self::Tense => "tense",
            Self::Intensifier => "intensifier",
            Self::Voice => "voice",
            Self::Definiteness => "definiteness",
            Self::Factuality => "factuality",
            Self::Polarity => "polarity",
            Self::Negation => "negation",
        }
    }

    /// The contrast of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|contrast| contrast.name() == name)
    }
}

/// `count` pairs of one contrast. No sentence occurs twice among them.
///
/// # Errors
/// When the grammar does not hold that many; it has several thousands of each contrast.
pub fn generate(contrast: Contrast, count: usize, seed: u64) -> Result<PairSet> {
    let mut random = Random::new(seed, PURPOSE + contrast as u64);
    let draw = || match contrast {
        Contrast::Control => control(&mut random),
        _ => contrasts::pair(contrast, &mut random),
    };
    let pairs = different(count, draw);
    if pairs.len() < count {
        let name = contrast.name();
        return Err(Error::InvalidOption {
            key: "count",
            detail: format!(
                "{count} pairs of {name}, the grammar holds about {}",
                pairs.len()
            ),
        });
    }
    Ok(PairSet::new(contrast.name(), pairs))
}

/// Draws until there are `count` pairs without a sentence twice, or nothing new comes.
fn different(count: usize, mut draw: impl FnMut() -> Pair) -> Vec<Pair> {
    let mut seen: HashSet<String> = HashSet::new();
    let mut pairs = Vec::new();
    let mut in_vain = 0;
    while pairs.len() < count && in_vain < PATIENCE {
        let pair = draw();
        in_vain += 1;
        if pair.first != pair.second && !seen.contains(&pair.first) && !seen.contains(&pair.second)
        {
            seen.insert(pair.first.clone());
            seen.insert(pair.second.clone());
            pairs.push(pair);
            in_vain = 0;
        }
    }
    pairs
}

/// A side of a pair of any other contrast, twice.
fn control(random: &mut Random) -> Pair {
    let mut side = || {
        let contrast = Contrast::ALL[1 + random.below(Contrast::ALL.len() - 1)];
        let pair = contrasts::pair(contrast, random);
        if random.below(2) == 0 {
            pair.first
        } else {
            pair.second
        }
    };
    Pair {
        first: side(),
        second: side(),
    }
}

#[cfg(test)]
mod tests;
