//! Texts as a network reads them.

use candle_core::{Device, Result, Tensor};
use lfm2_colbert::TokenInput;
use lfm2_nn::Step;

/// Texts as token ids, one after another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Texts {
    ids: Vec<u32>,
    lens: Vec<usize>,
    counted: Vec<bool>,
}

impl Texts {
    /// Appends a text.
    pub(crate) fn push(&mut self, text: &TokenInput) {
        let start = self.ids.len();
        self.ids.extend_from_slice(text.ids());
        self.lens.push(text.ids().len());
        self.counted.resize(self.ids.len(), false);
        for &place in text.kept() {
            if let Some(counted) = self.counted.get_mut(start + place as usize) {
                *counted = true;
            }
        }
    }

    /// The packed ids, `(tokens)`.
    pub(crate) fn ids(&self) -> Result<Tensor> {
        Tensor::new(self.ids.as_slice(), &Device::Cpu)
    }

    /// The segments: one per text.
    pub(crate) fn step(&self) -> Step {
        Step::rows(&self.lens)
    }

    /// The number of tokens of each text.
    pub(crate) fn lens(&self) -> &[usize] {
        &self.lens
    }

    /// Per token, whether its vector takes part in scores.
    pub(crate) fn counted(&self) -> &[bool] {
        &self.counted
    }
}
