//! Generation, one token or frame at a time.

use candle_core::DType;
use lfm2_hub::Result;

use super::sampling::{Chooser, Sampling};
use super::turns::{Kind, Turns, Verdict};
use super::{AudioModel, Frame, Session};

pub use super::turns::Mode;

/// What the model gives in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A text token.
    Text(u32),
    /// The codes of 80 ms, or the end of audio.
    Frame(Frame),
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
}

impl GenerationOptions {
    /// Always the best: transcription.
    pub fn greedy() -> Self {
        Self {
            text: Sampling::GREEDY,
            audio: Sampling::GREEDY,
            max_new_tokens: 512,
            seed: 0,
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
        let hidden = session.state()?;
        let token = match self.turns.next() {
            Kind::Text => {
                let logits = session.model().text_model().head(&hidden)?;
                let logits: Vec<f32> = logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
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
                let codes = depth.frame(&hidden, |_, logits| chooser.choose(logits, how))?;
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
