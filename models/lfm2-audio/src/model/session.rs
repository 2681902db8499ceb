//! [`Session`]: a chat in progress, with everything it has read and said in the cache.

use candle_core::Tensor;
use lfm2_hub::{Bos, Error, Result, SpecialTokens};
use lfm2_nn::{Cache, CacheSpec, Decoder, Input, Step, Want};

use super::{AudioModel, Frame, Generation, GenerationOptions, Mode, Sequence, Token};

/// Positions the models were trained for.
const CONTEXT: usize = 32_768;

/// A running chat. What was read stays in the cache, so every turn costs what it adds.
///
/// A prompt can be read in pieces, for example while the user still speaks.
#[derive(Debug)]
pub struct Session<'m> {
    model: &'m AudioModel,
    cache: Cache,
    /// Hidden state of the newest position, `(1, hidden)`.
    hidden: Option<Tensor>,
    /// What was generated last, and has not been read yet.
    pending: Option<Token>,
    /// Whether the turn already has the token that ends it.
    ended: bool,
}

impl AudioModel {
    /// A chat in which nothing was read.
    pub fn session(&self) -> Session<'_> {
        Session {
            model: self,
            cache: self.text_model().new_cache(CacheSpec::rows(1)),
            hidden: None,
            pending: None,
            ended: false,
        }
    }
}

impl<'m> Session<'m> {
    /// The model.
    pub fn model(&self) -> &'m AudioModel {
        self.model
    }

    /// Positions in the cache.
    pub fn positions(&self) -> usize {
        self.cache.len(0)
    }

    /// Reads a part of the prompt.
    ///
    /// # Errors
    /// [`Error::Limit`] when the context is full, and when the device fails.
    pub fn read(&mut self, sequence: &Sequence) -> Result<()> {
        if sequence.is_empty() {
            return self.read_pending();
        }
        // Before anything is computed.
        self.check_room(sequence.positions() + usize::from(self.pending.is_some()))?;
        self.read_embedded(&self.model.embed(sequence)?)
    }

    /// Reads a part of the prompt that is embedded already, `(positions, hidden)`, as
    /// [`AudioModel::embed`] does it: for callers that time or share the parts of that.
    ///
    /// # Errors
    /// As [`Session::read`].
    pub fn read_embedded(&mut self, embedded: &Tensor) -> Result<()> {
        self.read_pending()?;
        self.check_room(embedded.dim(0)?)?;
        self.ended = false;
        self.feed(embedded)
    }

    /// Generates an answer to what was read.
    ///
    /// # Errors
    /// When nothing was read.
    pub fn generate(&self, mode: Mode, options: &GenerationOptions) -> Result<Generation> {
        if self.hidden.is_none() {
            return Err(Error::InvalidInput("nothing to answer".to_owned()));
        }
        Ok(Generation::new(self.model, mode, options))
    }

    /// Closes the turn of the model, so that another can follow.
    ///
    /// # Errors
    /// As [`Session::read`].
    pub fn end_turn(&mut self) -> Result<()> {
        self.read_pending()?;
        let marks = if self.ended { "\n" } else { "<|im_end|>\n" };
        let tokenizer = self.model.tokenizer();
        let ids = tokenizer.encode(marks, SpecialTokens::Parse, Bos::Omit)?;
        self.read(&vec![super::Piece::Text(ids)].into())
    }

    /// The hidden state that the next token or frame comes from, `(1, hidden)`. What was generated last is
    /// read first, if that has not been done.
    ///
    /// # Errors
    /// [`Error::Limit`] when the context is full, [`Error::InvalidInput`] when nothing was read, and when
    /// the device fails.
    pub fn hidden(&mut self) -> Result<Tensor> {
        self.read_pending()?;
        let nothing = || Error::InvalidInput("nothing was read".to_owned());
        self.hidden.clone().ok_or_else(nothing)
    }

    /// Notes what was generated, to be read before anything else is.
    pub(super) fn note(&mut self, token: Token) {
        self.pending = Some(token);
    }

    fn read_pending(&mut self) -> Result<()> {
        let Some(token) = self.pending.take() else {
            return Ok(());
        };
        self.check_room(1)?;
        let embedded = match &token {
            Token::Text(id) => {
                self.ended = *id == self.model.special.end_of_turn;
                let ids = Tensor::new(&[*id], self.model.device())?;
                self.model.text_model().embed_tokens(&ids)?
            }
            Token::Frame(frame) => {
                self.ended = false;
                self.model
                    .embed_frames(std::slice::from_ref::<Frame>(frame))?
            }
        };
        self.feed(&embedded)
    }

    fn feed(&mut self, embedded: &Tensor) -> Result<()> {
        let step = Step::single(embedded.dim(0)?);
        let input = Input::Embeddings(embedded);
        let text = self.model.text_model();
        let hidden = text.forward(input, &step, &mut self.cache, Want::Hidden)?;
        let last = hidden.dim(0)?.saturating_sub(1);
        self.hidden = Some(hidden.narrow(0, last, 1)?);
        Ok(())
    }

    fn check_room(&self, more: usize) -> Result<()> {
        let found = self.positions() + more;
        let limit = CONTEXT.min(self.model.config().text.max_position_embeddings);
        if found <= limit {
            return Ok(());
        }
        Err(Error::Limit {
            what: "positions of the chat".to_owned(),
            limit: limit as u64,
            found: found as u64,
        })
    }
}
