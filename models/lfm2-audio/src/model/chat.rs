//! The chat format: turns of text and sound between two markers.

use lfm2_hub::{Bos, Error, Result, SpecialTokens, Tokenizer};

use super::{AudioModel, Piece, Sequence};
use crate::{Clip, MelFrontEnd};

const START_OF_TEXT: &str = "<|startoftext|>";
const START_OF_TURN: &str = "<|im_start|>";
const START_OF_AUDIO: &str = "<|audio_start|>";
const END_OF_TEXT: &str = "<|text_end|>";
const END_OF_TURN: &str = "<|im_end|>\n";

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// What the model is to do.
    System,
    /// Whom it listens to.
    User,
    /// The model.
    Assistant,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// Who speaks when the model reads a text aloud.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Voice {
    /// The American man of LFM2.5-Audio.
    #[default]
    UsMale,
    /// Its American woman.
    UsFemale,
    /// Its British man.
    UkMale,
    /// Its British woman.
    UkFemale,
    /// The voice that the model was trained with alone.
    Own,
    /// A free description of speaker and recording, for LFM2-Audio.
    Described(String),
}

impl Voice {
    /// The voices with names, and the names.
    pub const NAMED: [(&str, Self); 4] = [
        ("us-male", Self::UsMale),
        ("us-female", Self::UsFemale),
        ("uk-male", Self::UkMale),
        ("uk-female", Self::UkFemale),
    ];

    /// The system prompt that asks for this voice.
    pub fn prompt(&self) -> String {
        let named = |name: &str| format!("Perform TTS. Use the {name} voice.");
        match self {
            Self::UsMale => named("US male"),
            Self::UsFemale => named("US female"),
            Self::UkMale => named("UK male"),
            Self::UkFemale => named("UK female"),
            Self::Own => "Perform TTS.".to_owned(),
            Self::Described(how) => format!("Perform TTS.\nUse the following voice: {how}"),
        }
    }
}

/// What asks for a transcription.
pub(super) const TRANSCRIBE: &str = "Perform ASR.";
/// What asks for a spoken answer.
pub(super) const CONVERSE: &str = "Respond with interleaved text and audio.";

/// Builds the sequence of a chat. Each piece is tokenised on its own, as in training.
///
/// Texts are ordinary text: a user who spells a special token cannot end their own turn.
#[derive(Debug, Clone)]
pub struct Chat<'m> {
    tokenizer: &'m Tokenizer,
    front: &'m MelFrontEnd,
    sequence: Sequence,
}

impl<'m> Chat<'m> {
    /// A chat in which nothing was said.
    ///
    /// # Errors
    /// When the tokenizer has no tokens for the format.
    pub fn new(tokenizer: &'m Tokenizer, front: &'m MelFrontEnd) -> Result<Self> {
        let mut chat = Self::more(tokenizer, front);
        chat.marks(START_OF_TEXT)?;
        Ok(chat)
    }

    /// Turns that follow others in a running [`Session`](super::Session).
    pub fn more(tokenizer: &'m Tokenizer, front: &'m MelFrontEnd) -> Self {
        Self {
            tokenizer,
            front,
            sequence: Sequence::new(),
        }
    }

    /// Begins a turn.
    ///
    /// # Errors
    /// As [`Chat::new`].
    pub fn begin(&mut self, role: Role) -> Result<&mut Self> {
        self.marks(&format!("{START_OF_TURN}{}\n", role.name()))
    }

    /// Appends text to the turn.
    ///
    /// # Errors
    /// When the text is too long.
    pub fn text(&mut self, text: &str) -> Result<&mut Self> {
        self.encode(text, SpecialTokens::Literal)
    }

    /// Appends sound to the turn.
    ///
    /// # Errors
    /// When its rate cannot be resampled.
    pub fn clip(&mut self, clip: &Clip) -> Result<&mut Self> {
        let mel = self.front.features(clip)?;
        Ok(self.pieces([Piece::Clip(mel)]))
    }

    /// Appends pieces that exist already: what was generated before, or features.
    pub fn pieces(&mut self, pieces: impl IntoIterator<Item = Piece>) -> &mut Self {
        for piece in pieces {
            self.sequence.push(piece);
        }
        self
    }

    /// Ends the turn.
    ///
    /// # Errors
    /// As [`Chat::new`].
    pub fn end(&mut self) -> Result<&mut Self> {
        self.marks(END_OF_TURN)
    }

    /// What an answer in sound begins with.
    pub(super) fn audio_start(&mut self) -> Result<&mut Self> {
        self.marks(START_OF_AUDIO)
    }

    /// The tokens of an answer in text and sound.
    pub(super) fn answer_ids(&self, text: &str) -> Result<Vec<u32>> {
        let encode = |text, special| self.tokenizer.encode(text, special, Bos::Omit);
        let mut ids = encode(text, SpecialTokens::Literal)?;
        ids.extend(encode(END_OF_TEXT, SpecialTokens::Parse)?);
        Ok(ids)
    }

    /// Positions of the backbone so far.
    pub fn positions(&self) -> usize {
        self.sequence.positions()
    }

    /// The sequence so far.
    pub fn into_sequence(self) -> Sequence {
        self.sequence
    }

    fn marks(&mut self, text: &str) -> Result<&mut Self> {
        self.encode(text, SpecialTokens::Parse)
    }

    fn encode(&mut self, text: &str, special: SpecialTokens) -> Result<&mut Self> {
        let ids = self.tokenizer.encode(text, special, Bos::Omit)?;
        self.sequence.push(Piece::Text(ids));
        Ok(self)
    }
}

/// The sequence of a system prompt and one turn of the user, up to the answer.
pub(super) fn question<'m>(
    model: &'m AudioModel,
    system: &str,
    say: impl FnOnce(&mut Chat<'m>) -> Result<()>,
) -> Result<Sequence> {
    if system.is_empty() {
        return Err(Error::InvalidInput("an empty system prompt".to_owned()));
    }
    let mut chat = Chat::new(model.tokenizer(), model.front_end())?;
    chat.begin(Role::System)?.text(system)?.end()?;
    chat.begin(Role::User)?;
    say(&mut chat)?;
    chat.end()?.begin(Role::Assistant)?;
    Ok(chat.into_sequence())
}
