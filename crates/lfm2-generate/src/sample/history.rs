//! What a sequence contains, and the penalties that follow from it.

use std::collections::{BTreeMap, HashMap};

use crate::GenerationOptions;

#[derive(Debug, Clone)]
pub(super) struct History {
    repetition: f32,
    presence: f32,
    frequency: f32,
    bias: BTreeMap<u32, f32>,
    /// Occurrences in the output of every token that occurs in prompt or output.
    seen: HashMap<u32, u32>,
}

impl History {
    pub(super) fn new(options: &GenerationOptions) -> Self {
        Self {
            repetition: options.repetition_penalty,
            presence: options.presence_penalty,
            frequency: options.frequency_penalty,
            bias: options.logit_bias.clone(),
            seen: HashMap::new(),
        }
    }

    pub(super) fn observe_prompt(&mut self, ids: &[u32]) {
        if self.repetition != 1.0 {
            for id in ids {
                self.seen.entry(*id).or_insert(0);
            }
        }
    }

    pub(super) fn observe_output(&mut self, id: u32) {
        if self.repetition != 1.0 || self.presence != 0.0 || self.frequency != 0.0 {
            *self.seen.entry(id).or_insert(0) += 1;
        }
    }

    /// Applies every penalty, then the bias. Only tokens that were seen or are biased are touched.
    pub(super) fn penalise(&self, logits: &mut [f32]) {
        // The order of the map does not matter: each token is changed on its own.
        for (id, count) in &self.seen {
            change(logits, *id, |x| {
                let x = if x > 0.0 {
                    x / self.repetition
                } else {
                    x * self.repetition
                };
                match count {
                    0 => x,
                    n => x - self.presence - self.frequency * *n as f32,
                }
            });
        }
        for (id, bias) in &self.bias {
            if bias.is_finite() {
                change(logits, *id, |x| x + bias);
            } else if let Some(logit) = logits.get_mut(*id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// Changes one logit. What was finite stays finite, so that an extreme penalty can neither forbid a
/// token nor make an infinity out of good numbers.
fn change(logits: &mut [f32], id: u32, f: impl Fn(f32) -> f32) {
    if let Some(logit) = logits.get_mut(id as usize)
        && logit.is_finite()
    {
        *logit = f(*logit).clamp(f32::MIN, f32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalised(
        options: &GenerationOptions,
        prompt: &[u32],
        output: &[u32],
        logits: &[f32],
    ) -> Vec<f32> {
        let mut history = History::new(options);
        history.observe_prompt(prompt);
        output.iter().for_each(|id| history.observe_output(*id));
        let mut logits = logits.to_vec();
        history.penalise(&mut logits);
        logits
    }

    #[test]
    fn repetition_counts_prompt_and_output_once() {
        let options = GenerationOptions::neutral().with_repetition_penalty(2.0);
        let logits = penalised(&options, &[0, 0, 1], &[0], &[4.0, -4.0, 4.0]);
        assert_eq!(logits, [2.0, -8.0, 4.0]);
    }

    #[test]
    fn presence_and_frequency_count_the_output_only() {
        let options = GenerationOptions::neutral()
            .with_presence_penalty(0.5)
            .with_frequency_penalty(0.25);
        let logits = penalised(&options, &[2, 2], &[0, 0, 1], &[1.0, 1.0, 1.0]);
        assert_eq!(logits, [0.0, 0.25, 1.0]);
    }

    #[test]
    fn bias_comes_last_and_can_forbid() {
        let options = GenerationOptions::neutral()
            .with_repetition_penalty(2.0)
            .with_logit_bias(0, 1.0)
            .with_logit_bias(1, f32::NEG_INFINITY);
        let logits = penalised(&options, &[0], &[], &[4.0, 9.0]);
        assert_eq!(logits, [3.0, f32::NEG_INFINITY]);
    }

    #[test]
    fn extreme_penalties_stay_finite() {
        let options = GenerationOptions::neutral().with_repetition_penalty(1e-40);
        let logits = penalised(&options, &[0, 1], &[], &[3.0, f32::NEG_INFINITY]);
        assert_eq!(logits, [f32::MAX, f32::NEG_INFINITY]);
    }
}
