//! [`Talker`]: the model of a conversation, which may read pictures or not.

use std::path::PathBuf;

use anyhow::{Context, Result};
use lfm2::generate::{Content, Part, PartKind, RenderOptions};
use lfm2::vl::{DecodeOptions, Picture};
use lfm2::{Chat, Gallery, GenerationOptions, Message, TextModel, VlModel};

use crate::args::{ChatArgs, MODEL_VARIABLE, PictureArgs};
use crate::commands::pictures::Pictures;
use crate::exit::invalid;
use crate::ui::open;

/// The model, and what it was shown.
pub(super) enum Talker {
    Text(TextModel),
    Pictures {
        model: Box<VlModel>,
        gallery: Gallery,
        args: Box<PictureArgs>,
    },
}

impl Talker {
    /// Opens the model that was asked for.
    pub(super) fn open(args: &ChatArgs) -> Result<Self> {
        let reads = open::reads_pictures(&args.model, &args.pictures)?;
        if !reads {
            let model = open::model_with_draft(&args.model, &args.speculation)?;
            return Ok(Self::Text(model));
        }
        if args.speculation.draft_model.is_some() {
            return Err(invalid(
                "--draft-model: a model that sees no pictures cannot guess for one that does",
            ));
        }
        let model = open::picture_model_of(&args.model, &args.pictures, MODEL_VARIABLE)?;
        Ok(Self::Pictures {
            gallery: model.gallery(),
            model: Box::new(model),
            args: Box::new(args.pictures.clone()),
        })
    }

    pub(super) fn origin(&self) -> &str {
        match self {
            Self::Text(model) => model.origin(),
            Self::Pictures { model, .. } => model.origin(),
        }
    }

    /// The recommended options.
    pub(super) fn options(&self) -> &GenerationOptions {
        match self {
            Self::Text(model) => model.options(),
            Self::Pictures { model, .. } => model.options(),
        }
    }

    /// Tokens that a conversation may have.
    pub(super) fn context(&self) -> usize {
        match self {
            Self::Text(model) => model.generator().context(),
            Self::Pictures { model, .. } => model.network().config().text.max_position_embeddings,
        }
    }

    /// What was shown, where anything can be.
    pub(super) fn gallery(&self) -> Option<&Gallery> {
        match self {
            Self::Text(_) => None,
            Self::Pictures { gallery, .. } => Some(gallery),
        }
    }

    /// A conversation that goes on from these messages.
    pub(super) fn chat(
        &self,
        options: &GenerationOptions,
        render: &RenderOptions,
        messages: Vec<Message>,
    ) -> Result<Chat> {
        let chat = match self {
            Self::Text(model) => model.chat_session()?.with_render_options(render.clone()),
            // Words of users are never special there, whatever the flag says.
            Self::Pictures { model, gallery, .. } => model.chat_with(gallery)?,
        };
        Ok(chat.with_options(options.clone()).with_messages(messages))
    }

    /// The parts that show what is at `path`, and a line about what they take.
    pub(super) fn show(&self, path: PathBuf) -> Result<(Vec<Part>, String)> {
        let Self::Pictures {
            model,
            gallery,
            args,
        } = self
        else {
            return Err(invalid(format!(
                "{} reads no pictures; open one that does, such as LiquidAI/LFM2-VL-450M",
                self.origin()
            )));
        };
        let pictures = Pictures::read(&[path], args)?;
        let budget = pictures.budget(args, model)?;
        let parts = gallery.add(&pictures.named(), budget.as_ref())?;
        let names = parts.iter().filter_map(Part::picture_name);
        let views: Vec<_> = names.filter_map(|name| gallery.views(name)).collect();
        let tokens: usize = views.iter().map(|v| v.plan().prompt_tokens()).sum();
        let count: usize = views.iter().map(|v| v.views().len()).sum();
        let what = match &pictures.shown[..] {
            [one] => one.picture.size().to_string(),
            several => format!("{} frames", several.len()),
        };
        Ok((parts, format!("{what}: {count} views, {tokens} tokens")))
    }

    /// Opens the pictures that messages name, as a file of a conversation has them.
    pub(super) fn recall(&self, messages: &[Message]) -> Result<()> {
        let parts = messages.iter().flat_map(|message| match &message.content {
            Some(Content::Parts(parts)) => &parts[..],
            _ => &[],
        });
        for part in parts.filter(|part| part.kind() == PartKind::Image) {
            let Some(gallery) = self.gallery() else {
                return Err(invalid(format!("{} reads no pictures", self.origin())));
            };
            let name = part.picture_name().unwrap_or_default();
            if gallery.views(name).is_none() {
                let picture = Picture::open(name, &DecodeOptions::default());
                let picture = picture.with_context(|| format!("the picture {name:?}"))?;
                gallery.add(&[(name, &picture)], None)?;
            }
        }
        Ok(())
    }
}
