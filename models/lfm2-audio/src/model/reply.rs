//! [`Reply`]: an answer as text and sound, while it is made.

use lfm2_hub::{Error, Result};

use super::chat::{CONVERSE, TRANSCRIBE, question};
use super::text::TextPieces;
use super::{
    AudioModel, Frame, Generation, GenerationOptions, Mode, Sequence, Session, Token,
    VocoderStream, Voice,
};
use crate::Clip;

/// Something new of an answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// More text, in whole characters.
    Text(String),
    /// The codes of the next frame.
    Frame(Frame),
    /// More sound, at 24 kHz.
    Samples(Vec<f32>),
}

/// A whole answer.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Spoken {
    /// The text.
    pub text: String,
    /// The frames, ends of audio included.
    pub frames: Vec<Frame>,
    /// The sound, at 24 kHz.
    pub samples: Vec<f32>,
}

/// An answer in progress: an iterator of [`Event`]s. Dropping it stops the work.
#[derive(Debug)]
pub struct Reply<'m> {
    session: Session<'m>,
    generation: Generation,
    text: TextPieces,
    sound: Option<VocoderStream>,
    /// Events of a step that have not been given out, the next one last.
    ready: Vec<Event>,
    over: bool,
}

impl AudioModel {
    /// Writes down what is said in a clip; [greedily](GenerationOptions::greedy) is how it was published.
    ///
    /// # Errors
    /// As [`Session::read`].
    pub fn transcribe(&self, clip: &Clip, options: &GenerationOptions) -> Result<Reply<'_>> {
        let sequence = question(self, TRANSCRIBE, |chat| chat.clip(clip).map(|_| ()))?;
        self.reply(&sequence, Mode::Sequential, options)
    }

    /// Reads a text aloud.
    ///
    /// # Errors
    /// As [`Session::read`], and [`Error::Unsupported`] when the checkpoint has no decoder of sound.
    pub fn speak(
        &self,
        text: &str,
        voice: &Voice,
        options: &GenerationOptions,
    ) -> Result<Reply<'_>> {
        self.require_vocoder()?;
        let sequence = question(self, &voice.prompt(), |chat| chat.text(text).map(|_| ()))?;
        self.reply(&sequence, Mode::Sequential, options)
    }

    /// Answers a question that was spoken, in text and sound.
    ///
    /// # Errors
    /// As [`AudioModel::speak`].
    pub fn converse(&self, clip: &Clip, options: &GenerationOptions) -> Result<Reply<'_>> {
        self.require_vocoder()?;
        let sequence = question(self, CONVERSE, |chat| chat.clip(clip).map(|_| ()))?;
        self.reply(&sequence, Mode::Interleaved, options)
    }

    /// Answers a sequence that ends where the model's turn begins.
    ///
    /// # Errors
    /// As [`Session::read`].
    pub fn reply(
        &self,
        sequence: &Sequence,
        mode: Mode,
        options: &GenerationOptions,
    ) -> Result<Reply<'_>> {
        let mut session = self.session();
        session.read(sequence)?;
        session.reply(mode, options)
    }

    fn require_vocoder(&self) -> Result<()> {
        if self.vocoder().is_some() {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: "sound from this checkpoint".to_owned(),
            hint: "it has neither audio_detokenizer/ nor the file of the mimi codec".to_owned(),
        })
    }
}

impl<'m> Session<'m> {
    /// Answers what was read, as text and sound. [`Reply::into_session`] gives the session back for the
    /// next turn.
    ///
    /// # Errors
    /// When nothing was read.
    pub fn reply(self, mode: Mode, options: &GenerationOptions) -> Result<Reply<'m>> {
        Ok(Reply {
            generation: self.generate(mode, options)?,
            session: self,
            text: TextPieces::default(),
            sound: None,
            ready: Vec::new(),
            over: false,
        })
    }
}

impl<'m> Reply<'m> {
    /// Runs to the end and collects everything.
    ///
    /// # Errors
    /// As the iterator's items.
    pub fn finish(mut self) -> Result<Spoken> {
        let mut spoken = Spoken::default();
        for event in &mut self {
            match event? {
                Event::Text(text) => spoken.text.push_str(&text),
                Event::Frame(frame) => spoken.frames.push(frame),
                Event::Samples(samples) => spoken.samples.extend(samples),
            }
        }
        Ok(spoken)
    }

    /// Ends the answer where it is and gives the session back, ready for another turn.
    ///
    /// # Errors
    /// As [`Session::end_turn`].
    pub fn into_session(mut self) -> Result<Session<'m>> {
        self.session.end_turn()?;
        Ok(self.session)
    }

    /// Whether the model ended its answer itself, rather than at the most it was allowed.
    pub fn is_complete(&self) -> bool {
        self.generation.is_done()
    }

    /// Makes the events of one step; they are given out from the end.
    fn step(&mut self) -> Result<()> {
        match self.generation.next(&mut self.session)? {
            Some(Token::Text(id)) => {
                let text = self.text.push(self.session.model().tokenizer(), id)?;
                self.text_event(text);
            }
            Some(Token::Frame(frame)) => {
                let samples = self.sound(&frame)?;
                if !samples.is_empty() {
                    self.ready.push(Event::Samples(samples));
                }
                self.ready.push(Event::Frame(frame));
            }
            None => {
                self.over = true;
                if let Some(stream) = self.sound.take() {
                    let samples = stream.finish();
                    if !samples.is_empty() {
                        self.ready.push(Event::Samples(samples));
                    }
                }
                let rest = self.text.finish();
                self.text_event(rest);
            }
        }
        Ok(())
    }

    fn text_event(&mut self, text: String) {
        if !text.is_empty() {
            self.ready.push(Event::Text(text));
        }
    }

    /// The sound that a frame finishes.
    fn sound(&mut self, frame: &Frame) -> Result<Vec<f32>> {
        let Some(vocoder) = self.session.model().vocoder() else {
            return Ok(Vec::new());
        };
        if frame.is_end() {
            let ended = self.sound.take();
            return Ok(ended.map(VocoderStream::finish).unwrap_or_default());
        }
        let stream = self.sound.get_or_insert_with(|| vocoder.stream());
        Ok(vocoder.push(stream, frame)?)
    }
}

impl Iterator for Reply<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.over {
            if let Err(error) = self.step() {
                self.over = true;
                return Some(Err(error));
            }
        }
        self.ready.pop().map(Ok)
    }
}
