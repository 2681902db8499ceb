//! `lfm2 generate`.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use lfm2::generate::{Finish, FinishReason, RenderOptions, StopCause, ToolCall, UserText};
use lfm2::{Cancel, ChatEvent, GenerationOptions, Message, TextModel};
use serde::Serialize;

use super::report::{Usage, summary};
use crate::args::GenerateArgs;
use crate::exit::{Stopped, invalid};
use crate::ui::interrupt::Interrupt;
use crate::ui::{input, json_line, open, screen};

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    if !args.rest.is_empty() {
        return Err(invalid(
            "expected one prompt, found several words; put the prompt in quotes",
        ));
    }
    let prompt = match args.prompt.as_str() {
        "-" => input::read_text(io::stdin().lock(), "stdin")?,
        text => text.to_owned(),
    };
    let interrupt = Interrupt::install()?;
    let model = open::model_with_draft(&args.model, &args.speculation)?;
    let options = args.sampling.options(model.options());
    let options = args.speculation.apply(options);
    let watch = interrupt.watch();
    let mut out = Out {
        text: String::new(),
        streams: !args.json,
    };
    if args.echo {
        out.push(&prompt)?;
    }
    let said = if args.chat {
        ask(&model, prompt, args, &options, &watch, &mut out)?
    } else {
        continue_text(&model, &prompt, &options, &watch, &mut out)?
    };
    let Some(finish) = &said.finish else {
        return Err(Stopped.into());
    };
    if args.json {
        json_line(&Report {
            model: model.origin(),
            text: &out.text,
            reasoning: &said.reasoning,
            tool_calls: &said.tool_calls,
            seed: options.seed,
            usage: Usage::new(finish),
        })?;
    } else {
        screen::print("\n")?;
        hint_at_silence(&said, finish, args);
    }
    if args.verbose {
        let seed = options
            .seed
            .map_or(String::new(), |seed| format!("; seed {seed}"));
        eprintln!("{}{seed}", summary(finish));
    }
    match finish.reason {
        FinishReason::Cancelled => Err(Stopped.into()),
        FinishReason::Stop(_) | FinishReason::Length => Ok(()),
    }
}

/// The object that `--json` writes.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a str,
    text: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reasoning: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tool_calls: &'a [ToolCall],
    seed: Option<u64>,
    #[serde(flatten)]
    usage: Usage,
}

/// Says why there is nothing to read where the model had nothing to say.
fn hint_at_silence(said: &Said, finish: &Finish, args: &GenerateArgs) {
    let is_end = matches!(finish.reason, FinishReason::Stop(StopCause::Id(_)));
    let is_silent = finish.generated_tokens <= 1 && said.tool_calls.is_empty();
    if is_end && is_silent {
        let options = match args.chat {
            true => "--ignore-end",
            false => "--chat or --ignore-end",
        };
        eprintln!("the model ended at once; try {options}");
    }
}

/// What a model said besides the text.
#[derive(Debug, Default)]
struct Said {
    reasoning: String,
    tool_calls: Vec<ToolCall>,
    finish: Option<Finish>,
}

/// Collects the text, and streams it to stdout.
struct Out {
    text: String,
    streams: bool,
}

impl Out {
    fn push(&mut self, piece: &impl Display) -> Result<()> {
        let piece = piece.to_string();
        if self.streams && !piece.is_empty() {
            screen::print(&piece)?;
        }
        self.text.push_str(&piece);
        Ok(())
    }
}

fn continue_text(
    model: &TextModel,
    prompt: &str,
    options: &GenerationOptions,
    cancel: &Cancel,
    out: &mut Out,
) -> Result<Said> {
    let mut generation = model.generate(prompt, options)?.with_cancel(cancel);
    for piece in generation.by_ref() {
        out.push(&piece?)?;
    }
    Ok(Said {
        finish: generation.finish().cloned(),
        ..Said::default()
    })
}

fn ask(
    model: &TextModel,
    prompt: String,
    args: &GenerateArgs,
    options: &GenerationOptions,
    cancel: &Cancel,
    out: &mut Out,
) -> Result<Said> {
    let system = args
        .system
        .as_ref()
        .map(|text| Message::system(text.as_str()));
    let messages: Vec<Message> = system.into_iter().chain([Message::user(prompt)]).collect();
    let render = RenderOptions::default().user_text(user_text(args.literal_user_text));
    let mut said = Said::default();
    for event in model
        .answer(&messages, &render, options)?
        .with_cancel(cancel)
    {
        match event? {
            ChatEvent::Text(text) => out.push(&text)?,
            ChatEvent::Reasoning(text) => {
                show_reasoning(&text);
                said.reasoning.push_str(&text);
            }
            ChatEvent::ToolCall(call) => said.tool_calls.push(call),
            ChatEvent::Done(finish) => said.finish = Some(finish),
            _ => {}
        }
    }
    Ok(said)
}

/// What special tokens in a user's words mean.
pub(crate) fn user_text(literal: bool) -> UserText {
    if literal {
        UserText::Literal
    } else {
        UserText::Parsed
    }
}

/// Shows reasoning to a person, beside the answer, never in it.
pub(crate) fn show_reasoning(text: &str) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        // Reasoning that cannot be shown is no reason to stop.
        let _ = write!(err, "\x1b[2m{}\x1b[0m", screen::visible(text));
    }
}
