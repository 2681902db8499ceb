//! [`TextModel`]: a text model with everything it takes to talk to it.

use std::sync::Arc;

use crate::generate::{
    Chat, ChatPrompt, ChatStream, ChatTemplate, Error as GenerateError, Generation,
    GenerationOptions, Generator, Message, RenderOptions, recommended,
};
use crate::hub::{Checkpoint, ModelSource, Tokenizer};
use crate::text::LoadOptions;
use crate::{Error, OpenOptions, Result, text};

/// A text model with its tokenizer, chat template, end tokens and recommended options. Immutable,
/// shareable between threads, cheap to clone.
///
/// The network alone, without any text around it, is [`text::TextModel`].
#[derive(Debug, Clone)]
pub struct TextModel {
    network: text::TextModel,
    generator: Generator,
    template: Option<ChatTemplate>,
    options: GenerationOptions,
    origin: Arc<str>,
}

impl TextModel {
    /// Opens a model: a folder, a GGUF file, or `organisation/name` of the Hub (downloaded with the
    /// feature `download`, else taken from the local cache).
    ///
    /// ```no_run
    /// # fn main() -> lfm2::Result<()> {
    /// let from_hub = lfm2::TextModel::open("LiquidAI/LFM2-350M@main")?;
    /// let from_file = lfm2::TextModel::open(std::path::PathBuf::from("LFM2-350M-Q4_0.gguf"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the text is no source, or the checkpoint is not there, damaged or of another family.
    pub fn open<S>(source: S) -> Result<Self>
    where
        S: TryInto<ModelSource>,
        Error: From<S::Error>,
    {
        Self::open_with(source, &OpenOptions::default())
    }

    /// [`open`](Self::open) with other options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with<S>(source: S, options: &OpenOptions) -> Result<Self>
    where
        S: TryInto<ModelSource>,
        Error: From<S::Error>,
    {
        let checkpoint = Checkpoint::open(&source.try_into()?, &options.files)?;
        Self::from_checkpoint(&checkpoint, &options.load)
    }

    /// The tiny model that is compiled into the program: it tells stories of a few sentences and
    /// answers questions on a story.
    ///
    /// ```
    /// # fn main() -> lfm2::Result<()> {
    /// let model = lfm2::TextModel::embedded()?;
    /// let options = model.options().clone().with_max_new_tokens(8);
    /// let story = model.generate("Once upon a time", &options)?.complete()?;
    /// assert!(story.finish.generated_tokens <= 8);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// None: a test of this crate opens it.
    #[cfg(feature = "embedded")]
    pub fn embedded() -> Result<Self> {
        Self::from_checkpoint(&crate::embedded::stories()?, &LoadOptions::default())
    }

    /// Builds the model of an opened checkpoint.
    ///
    /// # Errors
    /// When the config is not of a text model, or config, weights, tokenizer and template
    /// contradict each other.
    pub fn from_checkpoint(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self> {
        let network = text::TextModel::from_checkpoint(checkpoint, options)?;
        let generator = Generator::for_checkpoint(Arc::new(network.clone()), checkpoint)?;
        let template = checkpoint.chat_template()?;
        let template = template
            .map(|source| ChatTemplate::new(&source))
            .transpose()?;
        let origin = checkpoint.origin();
        Ok(Self {
            options: recommended(origin).map_or_else(Default::default, |preset| preset.options()),
            origin: origin.into(),
            template,
            network,
            generator,
        })
    }

    /// Lets `draft`, a smaller model of the same vocabulary, guess tokens ahead where the options choose
    /// [`Speculation::DraftModel`](crate::generate::Speculation::DraftModel).
    ///
    /// # Errors
    /// When the two vocabularies differ.
    pub fn with_draft(mut self, draft: &Self) -> Result<Self> {
        let network = Arc::new(draft.network.clone());
        self.generator = self
            .generator
            .with_draft(network, Some(draft.tokenizer()))?;
        Ok(self)
    }

    /// Answers one question: an iterator over the parts of the answer, which write themselves as
    /// text. Nothing is remembered; see [`chat_session`](Self::chat_session) for that.
    ///
    /// # Errors
    /// When the model has no chat template, or the question is longer than its context.
    pub fn chat(&self, text: impl Into<String>) -> Result<ChatStream<'_>> {
        self.answer(
            &[Message::user(text.into())],
            &RenderOptions::default(),
            &self.options,
        )
    }

    /// Answers a conversation, without remembering it.
    ///
    /// # Errors
    /// As [`chat`](Self::chat), and when an option is not valid.
    pub fn answer(
        &self,
        messages: &[Message],
        render: &RenderOptions,
        options: &GenerationOptions,
    ) -> Result<ChatStream<'_>> {
        let prompt = ChatPrompt::new(self.tokenizer(), self.template()?, messages, &[], render)?;
        let generation = self
            .generator
            .generate_ids(prompt.ids().to_vec(), options)?;
        Ok(ChatStream::new(generation, &prompt))
    }

    /// A conversation that feeds the model only what is new in each turn.
    ///
    /// # Errors
    /// When the model has no chat template.
    pub fn chat_session(&self) -> Result<Chat> {
        let template = self.template.clone().ok_or(GenerateError::NoChatTemplate)?;
        Ok(Chat::new(self.generator.clone(), template).with_options(self.options.clone()))
    }

    /// Continues `prompt` as plain text, without a chat template.
    ///
    /// # Errors
    /// When the prompt is empty or longer than the context, or an option is not valid.
    pub fn generate(&self, prompt: &str, options: &GenerationOptions) -> Result<Generation<'_>> {
        Ok(self.generator.generate(prompt, options)?)
    }

    /// The options recommended for this checkpoint, by its name.
    pub fn options(&self) -> &GenerationOptions {
        &self.options
    }

    /// The network: logits, hidden states, its config.
    pub fn network(&self) -> &text::TextModel {
        &self.network
    }

    /// The network with its tokenizer.
    pub fn generator(&self) -> &Generator {
        &self.generator
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.generator.tokenizer()
    }

    /// The chat template.
    ///
    /// # Errors
    /// When the checkpoint has none.
    pub fn template(&self) -> Result<&ChatTemplate> {
        Ok(self
            .template
            .as_ref()
            .ok_or(GenerateError::NoChatTemplate)?)
    }

    /// Where the checkpoint came from, for people.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}
