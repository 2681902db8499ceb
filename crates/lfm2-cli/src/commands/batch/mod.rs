//! `lfm2 batch`: a queue of prompts through [`Batch`], and results in the order of the prompts.

mod lines;
mod results;

use std::collections::{HashMap, VecDeque};

use anyhow::{Error, Result};
use lfm2::generate::{
    Batch, BatchEvent, BatchOptions, ChatPrompt, Finish, RenderOptions, Request, RequestId,
    ToolCallStream,
};
use lfm2::nn::Decoder;
use lfm2::{Cancel, GenerationOptions, Message, TextModel};

use super::generate::user_text;
use crate::args::BatchArgs;
use crate::exit::Stopped;
use crate::ui::interrupt::Interrupt;
use crate::ui::{open, progress};
use lines::{Line, Work};
use results::{Origin, Results};

pub(crate) fn run(args: &BatchArgs) -> Result<()> {
    let lines = lines::read(&args.file)?;
    let interrupt = Interrupt::install()?;
    let model = open::model(&args.model)?;
    let options = args.sampling.options(model.options());
    // Otherwise every line would tell the same.
    options.validate(model.network().vocab_size())?;
    let watch = interrupt.watch();
    let bar = progress::bar(lines.len() as u64, "texts");
    let mut session = Session::new(&model, args, options, &watch)?;
    let mut coming = VecDeque::from(lines);
    loop {
        session.fill(&mut coming);
        bar.suspend(|| session.results.write())?;
        bar.set_position(session.results.written() as u64);
        if session.batch.is_idle() {
            break;
        }
        session.step();
    }
    bar.finish_and_clear();
    if watch.is_cancelled() {
        return Err(Stopped.into());
    }
    session.results.outcome()
}

/// A batch with what is known of its requests.
struct Session<'a> {
    model: &'a TextModel,
    args: &'a BatchArgs,
    options: GenerationOptions,
    cancel: &'a Cancel,
    batch: Batch,
    open: HashMap<RequestId, Answer>,
    results: Results,
}

/// A text on its way.
struct Answer {
    origin: Origin,
    text: String,
    /// Takes the answer to a conversation apart.
    parts: Option<ToolCallStream>,
}

impl<'a> Session<'a> {
    fn new(
        model: &'a TextModel,
        args: &'a BatchArgs,
        options: GenerationOptions,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        let batch = BatchOptions::default()
            .with_max_rows(args.rows.into())
            .with_prefill_chunk(args.prefill_chunk.into());
        Ok(Self {
            model,
            args,
            options,
            cancel,
            batch: Batch::new(model.generator(), batch)?,
            open: HashMap::new(),
            results: Results::default(),
        })
    }

    /// Keeps as many requests waiting as could start in one step. All others stay text until then.
    fn fill(&mut self, coming: &mut VecDeque<Line>) {
        while self.batch.waiting() < self.args.rows.get()
            && !self.cancel.is_cancelled()
            && let Some(line) = coming.pop_front()
        {
            let seed = self.options.seed.map(|seed| {
                let lines_before = (line.number - 1) as u64;
                seed.wrapping_add(lines_before)
            });
            let origin = self.results.expect(line.number, line.id, seed);
            match self.submit(line.work, seed) {
                Ok((id, parts)) => {
                    let text = String::new();
                    let answer = Answer {
                        origin,
                        text,
                        parts,
                    };
                    self.open.insert(id, answer);
                }
                Err(error) => self.results.failed(origin, error),
            }
        }
    }

    fn submit(
        &mut self,
        work: Work,
        seed: Option<u64>,
    ) -> Result<(RequestId, Option<ToolCallStream>)> {
        let mut options = self.options.clone();
        options.seed = seed;
        let messages = match work {
            Work::Prompt(prompt) if !self.args.chat => {
                let request = Request::text(prompt, options).with_cancel(self.cancel);
                return Ok((self.batch.submit(request)?, None));
            }
            Work::Prompt(prompt) => vec![Message::user(prompt)],
            Work::Messages(messages) => messages,
        };
        let render = RenderOptions::default().user_text(user_text(self.args.literal_user_text));
        let (tokenizer, template) = (self.model.tokenizer(), self.model.template()?);
        let prompt = ChatPrompt::new(tokenizer, template, &messages, &[], &render)?;
        let parts = prompt.answer_stream();
        let request = Request::chat(prompt, options).with_cancel(self.cancel);
        Ok((self.batch.submit(request)?, Some(parts)))
    }

    fn step(&mut self) {
        for (id, event) in self.batch.step() {
            match event {
                BatchEvent::Piece(piece) => {
                    if let Some(answer) = self.open.get_mut(&id) {
                        answer.text.push_str(&piece.text);
                    }
                }
                BatchEvent::Finished(finish) => self.finished(id, &finish),
                BatchEvent::Failed(error) => {
                    if let Some(answer) = self.open.remove(&id) {
                        self.results.failed(answer.origin, Error::from(error));
                    }
                }
                _ => {}
            }
        }
    }

    fn finished(&mut self, id: RequestId, finish: &Finish) {
        let Some(answer) = self.open.remove(&id) else {
            return;
        };
        let Answer {
            origin,
            text,
            parts,
        } = answer;
        let Some(mut parts) = parts else {
            return self.results.text(origin, text, finish);
        };
        let mut events = parts.push(&text);
        events.extend(parts.finish());
        self.results.answer(origin, events, finish);
    }
}
