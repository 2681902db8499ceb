//! The losses of supervised training: what the model should have written and said.

use candle_core::{D, DType, Result, Tensor, bail};
use lfm2_nn::{Cache, Decoder, Input, Step, Want};

use super::chat::{CONVERSE, Chat, Role, TRANSCRIBE, Voice};
use super::{AudioModel, Frame, Piece, Sequence};
use crate::config::{AudioConfig, END_CODE};
use crate::{Mel, MelFrontEnd};
use lfm2_hub::Tokenizer;

/// A chat and which of its positions the model is to learn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The chat.
    pub sequence: Sequence,
    /// One flag per position; those of clips teach nothing.
    pub supervised: Vec<bool>,
}

impl Sample {
    /// A clip and its transcript in the words of [`AudioModel::transcribe`]; what the assistant says is
    /// supervised.
    ///
    /// # Errors
    /// When the tokenizer has no tokens for the format, or the text is too long.
    pub fn transcription(
        tokenizer: &Tokenizer,
        front: &MelFrontEnd,
        mel: Mel,
        text: &str,
    ) -> lfm2_hub::Result<Self> {
        let mut chat = Chat::new(tokenizer, front)?;
        chat.begin(Role::System)?.text(TRANSCRIBE)?.end()?;
        chat.begin(Role::User)?.pieces([Piece::Clip(mel)]).end()?;
        chat.begin(Role::Assistant)?;
        let asked = chat.positions();
        chat.text(text)?.end()?;
        Ok(Self::answer(chat, asked))
    }

    /// A text and its sound in the words of [`AudioModel::speak`]; `frames` are without the end of audio, which is
    /// appended. What the assistant says is supervised.
    ///
    /// # Errors
    /// As [`Sample::transcription`], and when the tokenizer has no token for the start of audio.
    pub fn speech(
        tokenizer: &Tokenizer,
        front: &MelFrontEnd,
        (text, voice): (&str, &Voice),
        frames: Vec<Frame>,
    ) -> lfm2_hub::Result<Self> {
        let mut chat = Chat::new(tokenizer, front)?;
        chat.begin(Role::System)?.text(&voice.prompt())?.end()?;
        chat.begin(Role::User)?.text(text)?.end()?;
        chat.begin(Role::Assistant)?;
        let asked = chat.positions();
        chat.audio_start()?;
        chat.pieces([Piece::Frames(ended(frames))]).end()?;
        Ok(Self::answer(chat, asked))
    }

    /// A question that was spoken and its answer in text and sound, in the words of [`AudioModel::converse`]:
    /// tokens and frames take turns as `config` says, until either has run out. What the assistant says is supervised.
    ///
    /// # Errors
    /// As [`Sample::speech`], and when the tokenizer has no token for the end of text.
    pub fn conversation(
        tokenizer: &Tokenizer,
        front: &MelFrontEnd,
        question: Mel,
        (text, frames): (&str, Vec<Frame>),
        config: &AudioConfig,
    ) -> lfm2_hub::Result<Self> {
        let mut chat = Chat::new(tokenizer, front)?;
        chat.begin(Role::System)?.text(CONVERSE)?.end()?;
        chat.begin(Role::User)?
            .pieces([Piece::Clip(question)])
            .end()?;
        chat.begin(Role::Assistant)?;
        let asked = chat.positions();
        let (ids, frames) = (chat.answer_ids(text)?, ended(frames));
        let mut ids = ids.chunks(config.interleaved_text.max(1));
        let mut frames = frames.chunks(config.interleaved_audio.max(1));
        loop {
            let turn = (ids.next(), frames.next());
            if turn == (None, None) {
                break;
            }
            let texts = turn.0.map(|ids| Piece::Text(ids.to_vec()));
            let sounds = turn.1.map(|frames| Piece::Frames(frames.to_vec()));
            chat.pieces(texts.into_iter().chain(sounds));
        }
        chat.end()?;
        Ok(Self::answer(chat, asked))
    }

    /// A chat of which all is learnt that follows the first `asked` positions.
    fn answer(chat: Chat<'_>, asked: usize) -> Self {
        let sequence = chat.into_sequence();
        let supervised = (0..sequence.positions()).map(|i| i >= asked).collect();
        Self {
            sequence,
            supervised,
        }
    }

    /// The number of positions that are learnt.
    pub fn supervised(&self) -> usize {
        self.supervised.iter().filter(|learnt| **learnt).count()
    }
}

/// Frames and the end of audio.
fn ended(mut frames: Vec<Frame>) -> Vec<Frame> {
    let codebooks = frames.first().map_or(0, |frame| frame.codes().len());
    frames.push(Frame::new(vec![END_CODE; codebooks]));
    frames
}

/// Losses as scalars that carry gradients.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Losses {
    /// What to minimise: both losses by their multipliers, over all that was supervised.
    pub total: Tensor,
    /// Mean cross-entropy of text tokens; 0 when there are none.
    pub text: Tensor,
    /// Mean cross-entropy of frames, over their codebooks by weight; 0 when there are none.
    pub audio: Tensor,
}

/// Positions before the supervised ones, and what they should have led to.
#[derive(Default)]
struct Targets<'a> {
    before_text: Vec<u32>,
    ids: Vec<u32>,
    before_frames: Vec<u32>,
    frames: Vec<&'a Frame>,
}

impl AudioModel {
    /// The losses of some samples together. Every position is predicted from the one before; samples do not see
    /// each other.
    ///
    /// # Errors
    /// When there is no sample, flags do not fit a sequence, an id or a code is out of range, or the device fails.
    pub fn losses(&self, samples: &[Sample]) -> Result<Losses> {
        let mut targets = Targets::default();
        let mut inputs = Vec::with_capacity(samples.len());
        let mut lens = Vec::with_capacity(samples.len());
        for sample in samples {
            targets.add(sample, lens.iter().sum())?;
            lens.push(sample.sequence.positions());
            inputs.push(self.embed(&sample.sequence)?);
        }
        let x = Tensor::cat(&inputs, 0)?;
        let hidden = self.text_model().forward(
            Input::Embeddings(&x),
            &Step::rows(&lens),
            &mut Cache::stateless(lens.len()),
            Want::Hidden,
        )?;
        let at = |positions: &[u32]| hidden.index_select(&Tensor::new(positions, x.device())?, 0);
        let zero = Tensor::zeros((), DType::F32, x.device())?;

        let text = if targets.ids.is_empty() {
            zero.clone()
        } else {
            let logits = self.text_model().head(&at(&targets.before_text)?)?;
            let ids = Tensor::new(targets.ids.as_slice(), x.device())?;
            cross_entropy(&logits, &ids)?.sum_all()?
        };
        let audio = if targets.frames.is_empty() {
            zero
        } else {
            self.frame_losses(&at(&targets.before_frames)?, &targets.frames)?
        };
        let (texts, frames) = (targets.ids.len() as f64, targets.frames.len() as f64);
        let (m_text, m_audio) = (self.config().text_loss, self.config().audio_loss);
        let total = ((&text * m_text)? + (&audio * m_audio)?)?;
        Ok(Losses {
            total: (total / (m_text * texts + m_audio * frames + 1e-6))?,
            text: (text / texts.max(1.0))?,
            audio: (audio / frames.max(1.0))?,
        })
    }

    /// The sum over frames of the weighted means over codebooks.
    fn frame_losses(&self, hidden: &Tensor, frames: &[&Frame]) -> Result<Tensor> {
        let codebooks = self.config().codebooks;
        let mut codes = Vec::with_capacity(frames.len() * codebooks);
        for frame in frames {
            frame.check(codebooks)?;
            codes.extend_from_slice(frame.codes());
        }
        let codes = Tensor::from_vec(codes, (frames.len(), codebooks), hidden.device())?;
        let logits = self.depthformer().forced(hidden, &codes)?.flatten(0, 1)?;
        let losses = cross_entropy(&logits, &codes.flatten_all()?)?;
        let weights = self.config().codebook_weights();
        let sum: f32 = weights.iter().sum();
        let weights = Tensor::new(weights, hidden.device())?;
        let weighted = losses
            .reshape((frames.len(), codebooks))?
            .broadcast_mul(&weights)?;
        weighted.sum_all()? / f64::from(sum)
    }
}

impl<'a> Targets<'a> {
    /// Those of a sample whose first position is `start`.
    fn add(&mut self, sample: &'a Sample, start: usize) -> Result<()> {
        let positions = sample.sequence.positions();
        if sample.supervised.len() != positions {
            let found = sample.supervised.len();
            bail!("{found} flags for {positions} positions");
        }
        let mut own = 0;
        for piece in sample.sequence.pieces() {
            let learnt = |i: usize| own + i > 0 && sample.supervised[own + i];
            let before = |i: usize| (start + own + i - 1) as u32;
            match piece {
                Piece::Text(ids) => {
                    for (i, id) in ids.iter().enumerate().filter(|(i, _)| learnt(*i)) {
                        self.before_text.push(before(i));
                        self.ids.push(*id);
                    }
                }
                Piece::Frames(frames) => {
                    for (i, frame) in frames.iter().enumerate().filter(|(i, _)| learnt(*i)) {
                        self.before_frames.push(before(i));
                        self.frames.push(frame);
                    }
                }
                Piece::Clip(_) => {}
            }
            own += piece.positions();
        }
        Ok(())
    }
}

/// The cross-entropy of every row, `(rows)`.
fn cross_entropy(logits: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let logs = candle_nn::ops::log_softmax(&logits.to_dtype(DType::F32)?, D::Minus1)?;
    logs.gather(&ids.unsqueeze(1)?, 1)?.squeeze(1)?.neg()
}
