//! Generation, one token or frame at a time.

use candle_core::DType;
use lfm2_hub::Result;

use super::sampling::{Chooser, Sampling};
use super::turns::{Kind, Turns, Verdict};
use super::{AudioModel, Frame, Session};
use crate::config::END_CODE;

pub use super::turns::Mode;

/// What the model gives in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A text token.
    Text(u32),
    /// The codes of 80 ms, or the end of audio.
    Frame(Frame),
}

/// Who ends an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// The model, or the most tokens and frames it may use.
    #[default]
    Model,
    /// Those alone: no token that ends something is chosen, nor one that begins audio out of turn. To
    /// measure speed with weights that mean nothing.
    Length,
}

/// How to choose, and when to stop.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GenerationOptions {
    /// How text tokens are chosen.
    pub text: Sampling,
    /// How codes are chosen.
    pub audio: Sampling,
    /// Most tokens and frames together.
    pub max_new_tokens: usize,
    /// Start of the random numbers.
    pub seed: u64,
    /// Who ends the answer.
    pub ending: Ending,
}

impl GenerationOptions {
    /// Always the best: transcription.
    pub fn greedy() -> Self {
        Self {
            text: Sampling::GREEDY,
            audio: Sampling::GREEDY,
            max_new_tokens: 512,
            seed: 0,
            ending: Ending::default(),
        }
    }

    /// As published for reading aloud.
    pub fn speech() -> Self {
        Self {
            audio: Sampling::new(0.8, 64),
            ..Self::greedy()
        }
    }

    /// As published for speech chat.
    pub fn chat() -> Self {
        Self {
            audio: Sampling::new(1.0, 4),
            ..Self::greedy()
        }
    }

    /// With at most `count` tokens and frames.
    pub fn with_max_new_tokens(mut self, count: usize) -> Self {
        self.max_new_tokens = count;
        self
    }

    /// Ended by another.
    pub fn with_ending(mut self, ending: Ending) -> Self {
        self.ending = ending;
        self
    }

    /// With other random numbers.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

/// An answer in progress. It belongs to the [`Session`] it was started in.
#[derive(Debug)]
pub struct Generation {
    turns: Turns,
    options: GenerationOptions,
    chooser: Chooser,
    steps: usize,
    done: bool,
}

impl Generation {
    pub(super) fn new(model: &AudioModel, mode: Mode, options: &GenerationOptions) -> Self {
        Self {
            turns: Turns::new(mode, model.config(), model.special),
            chooser: Chooser::new(options.seed),
            options: options.clone(),
            steps: 0,
            done: false,
        }
    }

    /// The next token or frame; `None` when the answer is over.
    ///
    /// # Errors
    /// When the context is full or the device fails.
    pub fn next(&mut self, session: &mut Session<'_>) -> Result<Option<Token>> {
        if self.done || self.steps == self.options.max_new_tokens {
            return Ok(None);
        }
        self.steps += 1;
        let hidden = session.hidden()?;
        let token = match self.turns.next() {
            Kind::Text => {
                let logits = session.model().text_model().head(&hidden)?;
                let mut logits: Vec<f32> = logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
                if self.options.ending == Ending::Length {
                    let special = session.model().special;
                    forbid(&mut logits, &special.all());
                }
                let id = self.chooser.choose(&logits, self.options.text)?;
                match self.turns.text(id) {
                    Verdict::Emit => {}
                    Verdict::EmitAndEnd => self.done = true,
                    Verdict::End => {
                        self.done = true;
                        return Ok(None);
                    }
                }
                Token::Text(id)
            }
            Kind::Audio => {
                let (chooser, how) = (&mut self.chooser, self.options.audio);
                let depth = session.model().depthformer();
                let ending = self.options.ending;
                let codes = depth.frame(&hidden, |codebook, logits| {
                    if codebook == 0 && ending == Ending::Length {
                        let mut logits = logits.to_vec();
                        forbid(&mut logits, &[END_CODE]);
                        return chooser.choose(&logits, how);
                    }
                    chooser.choose(logits, how)
                })?;
                let frame = Frame::new(codes);
                self.turns.frame(frame.is_end());
                Token::Frame(frame)
            }
        };
        session.note(token.clone());
        Ok(Some(token))
    }

    /// Whether the model ended its answer itself.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

/// Makes choices impossible.
fn forbid(logits: &mut [f32], ids: &[u32]) {
    for id in ids {
        if let Some(logit) = logits.get_mut(*id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}
