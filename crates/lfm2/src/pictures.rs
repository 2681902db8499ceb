//! [`VlModel`]: a model that reads pictures, with everything it takes to talk about them.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::gallery::Gallery;
use crate::generate::{
    Chat, ChatStream, ChatTemplate, Content, Error as GenerateError, GenerationOptions, Generator,
    Part, RenderOptions, Reply, UserText, recommended, stop_ids,
};
use crate::hub::{self, Checkpoint, ModelSource, Tokenizer};
use crate::vl::{self, Budget, Mmproj, Picture, Speed, VlOptions};
use crate::{Error, OpenOptions, Result};

/// A text model with a vision tower, its tokenizer, chat template, end tokens and recommended options.
/// Immutable apart from its cache of views, shareable between threads, cheap to clone.
///
/// The network alone, without any text around it, is [`vl::VlModel`].
#[derive(Debug, Clone)]
pub struct VlModel {
    network: vl::VlModel,
    stop_ids: Vec<u32>,
    template: Option<ChatTemplate>,
    options: GenerationOptions,
    origin: Arc<str>,
    speed: Arc<OnceLock<Speed>>,
}

impl VlModel {
    /// Opens a model: a folder, `organisation/name` of the Hub (downloaded with the feature `download`,
    /// else taken from the local cache), or a GGUF file that has its `mmproj*.gguf` beside it.
    ///
    /// ```no_run
    /// use lfm2::{VlModel, vl::{DecodeOptions, Picture}};
    ///
    /// # fn main() -> lfm2::Result<()> {
    /// let model = VlModel::open("LiquidAI/LFM2-VL-450M")?;
    /// let cat = Picture::open("cat.jpg", &DecodeOptions::default())?;
    /// println!("{}", model.ask(&[cat], "What is the cat doing?")?.text);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the text is no source, or the checkpoint is not there, damaged, or reads no pictures.
    pub fn open<S>(source: S) -> Result<Self>
    where
        S: TryInto<ModelSource>,
        Error: From<S::Error>,
    {
        let options = OpenOptions::default();
        Self::open_with(source, None, &options.files, &options.load.into())
    }

    /// [`open`](Self::open) with other options, and for models in GGUF with the file of tower and
    /// projector, which is looked for beside the text model if it is not given.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with<S>(
        source: S,
        mmproj: Option<&ModelSource>,
        files: &hub::OpenOptions,
        options: &VlOptions,
    ) -> Result<Self>
    where
        S: TryInto<ModelSource>,
        Error: From<S::Error>,
    {
        let source = source.try_into()?;
        let checkpoint = Checkpoint::open(&source, files)?;
        let is_gguf = checkpoint.info().gguf().is_some();
        let vision = match (mmproj, &source) {
            (Some(_), _) if !is_gguf => {
                return Err(hub::Error::InvalidInput(format!(
                    "{source} has its vision tower inside, so no mmproj file goes with it"
                ))
                .into());
            }
            (Some(mmproj), _) => mmproj.clone(),
            (None, ModelSource::Gguf(path)) => ModelSource::Gguf(Mmproj::find_beside(path)?),
            (None, ModelSource::HubGguf { id, .. }) => {
                return Err(hub::Error::NotFound {
                    what: format!("the vision tower of {source}"),
                    hint: format!("name its file too, such as {id}:mmproj-F16.gguf"),
                }
                .into());
            }
            (None, _) => return Self::from_checkpoint(&checkpoint, options),
        };
        let vision = Mmproj::fetch(&vision, files, checkpoint.info().limits())?;
        Self::from_gguf(&checkpoint, &vision, options)
    }

    /// The tiny model that is compiled into the program: it knows coloured shapes and nothing else.
    ///
    /// # Errors
    /// None: a test of this crate opens it.
    #[cfg(feature = "embedded")]
    pub fn embedded() -> Result<Self> {
        Self::from_checkpoint(&crate::embedded::vl()?, &VlOptions::default())
    }

    /// Builds the model of an opened checkpoint.
    ///
    /// # Errors
    /// When the config is not of a model with pictures, or config, weights, tokenizer and template
    /// contradict each other.
    pub fn from_checkpoint(checkpoint: &Checkpoint, options: &VlOptions) -> Result<Self> {
        if !Self::is_config(checkpoint.config()) {
            return Err(hub::Error::Unsupported {
                what: format!("pictures with {}", checkpoint.origin()),
                hint: "its config.json has no vision tower; choose a model such as \
                    LiquidAI/LFM2-VL-450M"
                    .to_owned(),
            }
            .into());
        }
        Self::around(
            vl::VlModel::from_checkpoint(checkpoint, options)?,
            checkpoint,
        )
    }

    /// Builds the model of two GGUF files: the text model, and tower and projector.
    ///
    /// # Errors
    /// As [`from_checkpoint`](Self::from_checkpoint).
    pub fn from_gguf(text: &Checkpoint, vision: &Mmproj, options: &VlOptions) -> Result<Self> {
        let network = vl::VlModel::from_gguf(text, vision, &Value::Null, options)?;
        Self::around(network, text)
    }

    fn around(network: vl::VlModel, checkpoint: &Checkpoint) -> Result<Self> {
        let (config, tokenizer) = (checkpoint.config(), network.tokenizer());
        let stop_ids = stop_ids(
            checkpoint.generation_config(),
            Self::text_config(config),
            tokenizer,
            network.config().text.vocab_size,
        )?;
        let template = checkpoint.chat_template()?;
        let template = template
            .map(|source| ChatTemplate::new(&source))
            .transpose()?;
        let origin = checkpoint.origin();
        let mut options: GenerationOptions =
            recommended(origin).map_or_else(Default::default, |preset| preset.options());
        // Places of pictures mean nothing in an answer.
        for id in network.image_tokens().all() {
            options = options.with_logit_bias(id, f32::NEG_INFINITY);
        }
        Ok(Self {
            network,
            stop_ids,
            template,
            options,
            origin: origin.into(),
            speed: Arc::default(),
        })
    }

    /// Whether a `config.json` is of a model that reads pictures.
    pub fn is_config(config: &Value) -> bool {
        config.get("vision_config").is_some_and(Value::is_object)
    }

    /// The part of such a `config.json` that says which tokens end a text: the text model's, where the
    /// whole does not.
    pub fn text_config(config: &Value) -> &Value {
        let says = config.get("eos_token_id").is_some_and(|id| !id.is_null());
        let inner = config.get("text_config").filter(|_| !says);
        inner.unwrap_or(config)
    }

    /// The same model with the keys of `json`, spelled as in the files of processors, in place of its
    /// image settings: `{"max_image_tokens": 128}`.
    ///
    /// # Errors
    /// When a value is not valid; the key is named.
    pub fn with_image_settings(&self, json: &Value) -> Result<Self> {
        Ok(Self {
            network: self.network.overridden(json)?,
            ..self.clone()
        })
    }

    /// Answers one question about pictures. Nothing is remembered but what the pictures look like to the
    /// model; see [`chat_session`](Self::chat_session) for a conversation and for text that streams.
    ///
    /// # Errors
    /// As [`VlChat::ask`].
    pub fn ask(&self, pictures: &[Picture], question: &str) -> Result<Reply> {
        let mut chat = self.chat_session()?;
        Ok(chat.ask(pictures, question)?.complete()?)
    }

    /// A conversation in which pictures can be shown at any time.
    ///
    /// # Errors
    /// When the model has no chat template.
    pub fn chat_session(&self) -> Result<VlChat> {
        let gallery = self.gallery();
        Ok(VlChat {
            chat: self.chat_with(&gallery)?,
            gallery,
            budget: None,
        })
    }

    /// An empty gallery: the pictures of one conversation.
    pub fn gallery(&self) -> Gallery {
        Gallery::new(self.network.album())
    }

    /// A conversation whose messages show what is in `gallery`, by the parts it gives.
    ///
    /// Special tokens in the words of users are plain text, so that nobody writes a picture's place.
    ///
    /// # Errors
    /// When the model has no chat template.
    pub fn chat_with(&self, gallery: &Gallery) -> Result<Chat> {
        let generator = Generator::new(Arc::new(gallery.album().clone()), self.tokenizer().clone())
            .with_stop_ids(self.stop_ids.clone())
            .with_context(self.network.config().text.max_position_embeddings);
        let render = RenderOptions::default().user_text(UserText::Literal);
        Ok(Chat::new(generator, self.template()?.clone())
            .with_options(self.options.clone())
            .with_render_options(render)
            .with_media(Arc::new(gallery.clone())))
    }

    /// How fast this machine reads pictures with this model. Measured at the first call, which takes as
    /// long as a small picture.
    ///
    /// # Errors
    /// When the device fails.
    pub fn speed(&self) -> Result<Speed> {
        if let Some(speed) = self.speed.get() {
            return Ok(*speed);
        }
        let measured = self.network.measure_speed()?;
        Ok(*self.speed.get_or_init(|| measured))
    }

    /// The options recommended for this checkpoint, by its name; tokens that stand for pictures are
    /// never drawn.
    pub fn options(&self) -> &GenerationOptions {
        &self.options
    }

    /// The network: views, features, logits, its config.
    pub fn network(&self) -> &vl::VlModel {
        &self.network
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.network.tokenizer()
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

/// A conversation about pictures. What was read once, text or picture, is not read again.
///
/// ```no_run
/// # fn main() -> lfm2::Result<()> {
/// # let model = lfm2::VlModel::open("LiquidAI/LFM2-VL-450M")?;
/// # let screenshot = lfm2::vl::Picture::open("screen.png", &Default::default())?;
/// let mut chat = model.chat_session()?;
/// for event in chat.ask(&[screenshot], "Which program is this?")? {
///     print!("{}", event?);
/// }
/// // Of this one, only the question is new.
/// println!("{}", chat.ask(&[], "Is anything wrong there?")?.complete()?.text);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct VlChat {
    chat: Chat,
    gallery: Gallery,
    budget: Option<Budget>,
}

impl VlChat {
    /// Lets the pictures of each question take no more than `budget` together.
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Sets how answers are generated.
    pub fn with_options(mut self, options: GenerationOptions) -> Self {
        self.chat = self.chat.with_options(options);
        self
    }

    /// Asks a question about these pictures, or about what was shown before, and answers. The pictures
    /// are read before this returns; the answer is written while it is iterated.
    ///
    /// # Errors
    /// When pictures and conversation are longer than the context, the budget is too small for so many
    /// pictures, or an option is not valid. The question is then not part of the conversation.
    pub fn ask(
        &mut self,
        pictures: &[Picture],
        question: impl Into<String>,
    ) -> Result<ChatStream<'_>> {
        let question = question.into();
        let named: Vec<(&str, &Picture)> = pictures.iter().map(|p| ("picture", p)).collect();
        let mut parts = self.gallery.add(&named, self.budget.as_ref())?;
        // Models of the family were trained on pictures before the text of their turn.
        parts.push(Part::text(question));
        Ok(self.chat.send(Content::Parts(parts))?)
    }

    /// The conversation.
    pub fn chat(&self) -> &Chat {
        &self.chat
    }

    /// The conversation, to be changed.
    pub fn chat_mut(&mut self) -> &mut Chat {
        &mut self.chat
    }

    /// The pictures.
    pub fn gallery(&self) -> &Gallery {
        &self.gallery
    }
}
