//! The conversation itself: asks, remembers, saves.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lfm2::generate::{Content, Finish, FinishReason, Part, RenderOptions, Role};
use lfm2::hub::{Error, Overwrite, write_atomic};
use lfm2::{Cancel, Chat, ChatEvent, GenerationOptions, Message};

use super::talker::Talker;
use crate::args::ChatArgs;
use crate::commands::generate::{show_reasoning, user_text};
use crate::commands::pictures::watch_reading;
use crate::commands::report::summary;
use crate::exit::invalid;
use crate::ui::{input, screen};

pub(super) struct Session {
    model: Talker,
    options: GenerationOptions,
    render: RenderOptions,
    verbose: bool,
    chat: Chat,
    /// What is shown with the next question.
    shown: Vec<Part>,
    last: Option<Finish>,
}

impl Session {
    pub(super) fn new(model: Talker, args: &ChatArgs) -> Result<Self> {
        let options = args.sampling.options(model.options());
        let options = args.speculation.apply(options);
        let render = RenderOptions::default().user_text(user_text(args.literal_user_text));
        let messages = args
            .system
            .iter()
            .map(|text| Message::system(text.as_str()))
            .collect();
        let chat = model.chat(&options, &render, messages)?;
        Ok(Self {
            model,
            options,
            render,
            verbose: args.verbose,
            chat,
            shown: Vec::new(),
            last: None,
        })
    }

    /// Answers a question on stdout.
    pub(super) fn ask(&mut self, text: &str, cancel: &Cancel) -> Result<()> {
        if let Some(gallery) = self.model.gallery() {
            watch_reading(gallery, cancel);
        }
        let content = match self.shown.is_empty() {
            true => Content::from(text),
            false => Content::Parts([&self.shown[..], &[Part::text(text)]].concat()),
        };
        let before = self.chat.messages().len();
        for event in self.chat.send(content)?.with_cancel(cancel) {
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
        // A question that failed or was stopped at once can be asked again.
        if self.chat.messages().len() > before {
            self.shown.clear();
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
        self.shown.clear();
        eprintln!("forgotten");
    }

    /// Shows what is at `path` with the next question.
    pub(super) fn show(&mut self, path: PathBuf) -> Result<()> {
        let (parts, facts) = self.model.show(path)?;
        self.shown.extend(parts);
        eprintln!("{facts}; shown with the next question");
        Ok(())
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
        self.chat = self.model.chat(&self.options, &self.render, messages)?;
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
        self.model.recall(&messages).with_context(|| name.clone())?;
        let chat = self.model.chat(&self.options, &self.render, messages);
        self.chat = chat.context(name)?;
        self.shown.clear();
        eprintln!("{count} messages loaded");
        Ok(())
    }

    pub(super) fn stats(&self) {
        let (messages, tokens) = (self.chat.messages().len(), self.chat.cached_tokens());
        eprintln!(
            "{messages} messages, {tokens} of {} tokens",
            self.model.context()
        );
        if let Some(finish) = &self.last {
            eprintln!("last answer: {}", summary(finish));
        }
    }
}
