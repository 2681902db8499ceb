//! The conversation itself: asks, remembers, saves.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result};
use lfm2::generate::{Finish, FinishReason, RenderOptions, Role};
use lfm2::hub::{Error, Overwrite, write_atomic};
use lfm2::{Cancel, Chat, ChatEvent, GenerationOptions, Message, TextModel};

use crate::args::ChatArgs;
use crate::commands::generate::{show_reasoning, user_text};
use crate::commands::report::summary;
use crate::exit::invalid;
use crate::ui::{input, screen};

pub(super) struct Session {
    model: TextModel,
    options: GenerationOptions,
    render: RenderOptions,
    verbose: bool,
    chat: Chat,
    last: Option<Finish>,
}

impl Session {
    pub(super) fn new(model: TextModel, args: &ChatArgs) -> Result<Self> {
        let options = args.sampling.options(model.options());
        let options = args.speculation.apply(options);
        let render = RenderOptions::default().user_text(user_text(args.literal_user_text));
        let messages = args
            .system
            .iter()
            .map(|text| Message::system(text.as_str()))
            .collect();
        let chat = chat(&model, &options, &render, messages)?;
        Ok(Self {
            model,
            options,
            render,
            verbose: args.verbose,
            chat,
            last: None,
        })
    }

    /// Answers a question on stdout.
    pub(super) fn ask(&mut self, text: &str, cancel: &Cancel) -> Result<()> {
        for event in self.chat.send(text)?.with_cancel(cancel) {
            match event? {
                ChatEvent::Text(piece) => screen::print(&piece)?,
                ChatEvent::Reasoning(piece) => show_reasoning(&piece),
                ChatEvent::ToolCall(call) => {
                    screen::print(&format!("{}\n", serde_json::to_string(&call)?))?;
                }
                ChatEvent::Done(finish) => self.last = Some(finish),
                _ => {}
            }
        }
        screen::print("\n")?;
        if let Some(finish) = &self.last {
            if self.verbose {
                eprintln!("{}", summary(finish));
            }
            if finish.reason == FinishReason::Length && io::stderr().is_terminal() {
                eprintln!("(cut off: there was no room for more tokens)");
            }
        }
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.chat.clear();
        eprintln!("forgotten");
    }

    pub(super) fn undo(&mut self) {
        match self.chat.undo() {
            Some(question) => eprintln!("taken back: {question}"),
            None => eprintln!("there is nothing to take back"),
        }
    }

    /// Sets the instructions; an empty text drops them.
    pub(super) fn set_system(&mut self, text: &str) -> Result<()> {
        let system = Some(text)
            .filter(|text| !text.is_empty())
            .map(Message::system);
        let rest = self
            .chat
            .messages()
            .iter()
            .filter(|message| message.role != Role::System);
        let messages = system.into_iter().chain(rest.cloned()).collect();
        self.chat = chat(&self.model, &self.options, &self.render, messages)?;
        Ok(())
    }

    pub(super) fn save(&self, path: &Path, overwrite: Overwrite) -> Result<()> {
        let json = serde_json::to_string_pretty(self.chat.messages())?;
        write_atomic(path, overwrite, |file| {
            writeln!(file, "{json}").map_err(|e| Error::io(path, e))
        })?;
        eprintln!(
            "{} messages saved to {}",
            self.chat.messages().len(),
            path.display()
        );
        Ok(())
    }

    pub(super) fn load(&mut self, path: &Path) -> Result<()> {
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        let name = path.display().to_string();
        let text = input::read_text(file, &name)?;
        let messages: Vec<Message> = serde_json::from_str(&text)
            .map_err(|e| invalid(format!("{name}: not a list of messages: {e}")))?;
        let count = messages.len();
        self.chat = chat(&self.model, &self.options, &self.render, messages).context(name)?;
        eprintln!("{count} messages loaded");
        Ok(())
    }

    pub(super) fn stats(&self) {
        let (messages, tokens) = (self.chat.messages().len(), self.chat.cached_tokens());
        eprintln!(
            "{messages} messages, {tokens} of {} tokens",
            self.model.generator().context()
        );
        if let Some(finish) = &self.last {
            eprintln!("last answer: {}", summary(finish));
        }
    }
}

fn chat(
    model: &TextModel,
    options: &GenerationOptions,
    render: &RenderOptions,
    messages: Vec<Message>,
) -> Result<Chat> {
    let chat = model.chat_session()?.with_options(options.clone());
    Ok(chat
        .with_render_options(render.clone())
        .with_messages(messages))
}
