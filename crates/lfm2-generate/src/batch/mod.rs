//! Several texts written together: [`Batch`].
//!
//! Each step is one forward pass over all running requests, one segment each, so that the weights
//! are read once for all of them. Requests join and leave between any two steps. Nothing here knows
//! of threads: whoever serves requests calls [`Batch::step`] in a loop.

mod request;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use candle_core::Tensor;
use lfm2_nn::{Cache, CacheSpec, Input, Segment, Step, Want};

use crate::logits::read_logits;
use crate::{Error, FinishReason, Generator, Output, Piece, Result, prefix};

use request::Task;
pub use request::{BatchEvent, BatchOptions, Request, RequestId};

/// A row of the cache is given to a prompt that begins like its tokens if that saves at least this
/// many tokens; below that, copying and cutting the row is not worth it.
const WORTHWHILE: usize = 16;

/// Texts that are written together, each as if it were alone.
///
/// Requests wait in the order they came until one of the rows is free. Their prompts are read in
/// chunks beside the texts that are being written, which get a token in every step. Each request has
/// its own options, random stream and stop rules, and an error ends only the request it belongs to.
///
/// A row stays in the cache behind the end of its request until the place is needed. A prompt that
/// begins like any row, running or over, continues from a copy of it: an instruction that all
/// prompts begin with is read once, and so is a conversation that comes back with one more question.
///
/// [`GenerationOptions::speculation`](crate::GenerationOptions::speculation) is not used: it changes
/// nothing but the speed, and a batch has other tokens to fill its passes with.
///
/// Nothing but the last bits of logits can depend on what else is in the batch: matrix products of
/// another size may add in another order.
///
/// ```
/// # fn show(generator: &lfm2_generate::Generator) -> lfm2_generate::Result<()> {
/// use lfm2_generate::{Batch, BatchEvent, BatchOptions, GenerationOptions, Request};
///
/// let mut batch = Batch::new(generator, BatchOptions::default().with_max_rows(4))?;
/// for prompt in ["Once upon a time", "The dragon", "A boy named Tim"] {
///     batch.submit(Request::text(prompt, GenerationOptions::default()))?;
/// }
/// while !batch.is_idle() {
///     for (id, event) in batch.step() {
///         match event {
///             BatchEvent::Piece(piece) => println!("{id}: {piece}"),
///             BatchEvent::Finished(finish) => println!("{id}: {:?}", finish.reason),
///             BatchEvent::Failed(error) => println!("{id}: {error}"),
///             _ => {}
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Batch {
    generator: Generator,
    options: BatchOptions,
    cache: Cache,
    /// What the rows of the cache are used for, in their order.
    rows: Vec<Row>,
    queue: VecDeque<Task>,
    submitted: u64,
    steps: u64,
    logits: Vec<f32>,
}

#[derive(Debug)]
enum Row {
    Running(Box<Task>),
    /// Its request was over in step `since`; its tokens can still be the beginning of others.
    Kept {
        since: u64,
    },
}

/// The tokens that one row gets in a pass.
#[derive(Debug, Clone, Copy)]
struct Feed {
    row: usize,
    len: usize,
    /// Whether nothing is left to read behind them, so that a token is drawn.
    draws: bool,
}

type Events = Vec<(RequestId, BatchEvent)>;

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("options", &self.options)
            .field("rows", &self.rows)
            .field("waiting", &self.queue.len())
            .finish_non_exhaustive()
    }
}

impl Batch {
    /// A batch without requests.
    ///
    /// # Errors
    /// As [`BatchOptions::validate`].
    pub fn new(generator: &Generator, options: BatchOptions) -> Result<Self> {
        options.validate()?;
        let mut spec = CacheSpec::rows(0);
        spec.kv_dtype = options.kv_dtype;
        Ok(Self {
            cache: generator.decoder().new_cache(spec),
            generator: generator.clone(),
            options,
            rows: Vec::new(),
            queue: VecDeque::new(),
            submitted: 0,
            steps: 0,
            logits: Vec::new(),
        })
    }

    /// Takes a request on; it starts in one of the next steps.
    ///
    /// # Errors
    /// As [`Generator::generate_ids`] and [`Generator::generate`];
    /// [`Error::Busy`] when too many requests wait already.
    pub fn submit(&mut self, request: Request) -> Result<RequestId> {
        let room = self
            .options
            .max_rows
            .saturating_add(self.options.max_waiting);
        if self.running() + self.waiting() >= room {
            let waiting = self.waiting();
            return Err(Error::Busy { waiting });
        }
        let id = RequestId(self.submitted);
        self.queue
            .push_back(request.into_task(id, &self.generator)?);
        self.submitted += 1;
        Ok(id)
    }

    /// Stops one request with the next step. Returns whether it was running or waiting.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let running = self.rows.iter_mut().filter_map(|row| match row {
            Row::Running(task) => Some(task.as_mut()),
            Row::Kept { .. } => None,
        });
        let task = running.chain(&mut self.queue).find(|task| task.id == id);
        task.map(|task| task.is_dropped = true).is_some()
    }

    /// Requests that have a row.
    pub fn running(&self) -> usize {
        let is_running = |row: &&Row| matches!(row, Row::Running(_));
        self.rows.iter().filter(is_running).count()
    }

    /// Requests that wait for a row.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether no request runs or waits.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running() == 0
    }

    /// Gives back the memory of rows whose requests are over.
    pub fn forget(&mut self) {
        // From the end, so that the row that takes a number was looked at already.
        for row in (0..self.rows.len()).rev() {
            if matches!(self.rows[row], Row::Kept { .. }) && self.cache.swap_remove_row(row).is_ok()
            {
                self.rows.swap_remove(row);
            }
        }
    }

    /// One forward pass, and what came of it. Texts that are being written get one token each, and
    /// at most [`BatchOptions::prefill_chunk`] tokens of prompts are read, so a step can be without
    /// events. Does nothing when there are no requests.
    pub fn step(&mut self) -> Vec<(RequestId, BatchEvent)> {
        let mut events = Events::new();
        self.steps += 1;
        self.end_cancelled(&mut events);
        let feeds = self.plan(&mut events);
        if feeds.is_empty() {
            return events;
        }
        match self.forward(&feeds) {
            Ok(()) => self.draw(&feeds, &mut events),
            Err(error) => self.survive(&feeds, error, &mut events),
        }
        events
    }

    /// Runs until all requests are over and returns what became of each, in the order they were
    /// submitted. Events of earlier steps are not part of it.
    pub fn complete(&mut self) -> Vec<(RequestId, Result<Output>)> {
        let mut open: BTreeMap<RequestId, Vec<Piece>> = BTreeMap::new();
        let mut over = BTreeMap::new();
        while !self.is_idle() {
            for (id, event) in self.step() {
                match event {
                    BatchEvent::Piece(piece) => open.entry(id).or_default().push(piece),
                    BatchEvent::Failed(error) => drop(over.insert(id, Err(error))),
                    BatchEvent::Finished(finish) => {
                        let pieces = open.remove(&id).unwrap_or_default();
                        over.insert(id, Ok(Output::new(pieces, finish)));
                    }
                }
            }
        }
        over.into_iter().collect()
    }

    fn end_cancelled(&mut self, events: &mut Events) {
        let mut end = |task: &mut Task| {
            let is_cancelled = task.is_cancelled();
            if is_cancelled {
                let text = task.sequence.rest();
                if !text.is_empty() {
                    events.push((task.id, BatchEvent::Piece(Piece { text, token: None })));
                }
                let finish = task.sequence.finish(FinishReason::Cancelled);
                events.push((task.id, BatchEvent::Finished(finish)));
            }
            is_cancelled
        };
        for row in &mut self.rows {
            if let Row::Running(task) = row
                && end(task)
            {
                *row = Row::Kept { since: self.steps };
            }
        }
        self.queue.retain_mut(|task| !end(task));
    }

    /// What the next pass feeds. Requests start here, when there is a row and something left of the
    /// chunk: so prompts are read one after another, and can continue from what others have read.
    fn plan(&mut self, events: &mut Events) -> Vec<Feed> {
        let mut left = self.options.prefill_chunk.max(1);
        let suspect = |row: &Row| matches!(row, Row::Running(task) if task.is_suspect);
        if let Some(row) = self.rows.iter().position(suspect) {
            return self.feed(row, left).into_iter().collect();
        }
        let mut feeds = Vec::with_capacity(self.rows.len());
        for row in 0..self.rows.len() {
            let Some(feed) = self.feed(row, left) else {
                continue;
            };
            // The next token of a text is no part of the chunk.
            if feed.len > 1 || !feed.draws {
                left -= feed.len;
            }
            feeds.push(feed);
        }
        while left > 0
            && let Some(row) = self.start(events)
        {
            if let Some(feed) = self.feed(row, left) {
                left -= feed.len;
                feeds.push(feed);
            }
        }
        feeds
    }

    /// The next tokens of row `row`: the only one that is pending, or as many as `chunk` allows.
    fn feed(&self, row: usize, chunk: usize) -> Option<Feed> {
        let Some(Row::Running(task)) = self.rows.get(row) else {
            return None;
        };
        let pending = task.sequence.len().saturating_sub(self.cache.len(row));
        let len = match pending {
            1 => 1,
            _ => pending.min(chunk),
        };
        let draws = len == pending;
        (len > 0).then_some(Feed { row, len, draws })
    }

    /// Gives the next request that waits a row, if there is one.
    fn start(&mut self, events: &mut Events) -> Option<usize> {
        while self.running() < self.options.max_rows {
            let mut task = self.queue.pop_front()?;
            if task.sequence.is_full() {
                let finish = task.sequence.finish(FinishReason::Length);
                events.push((task.id, BatchEvent::Finished(finish)));
                continue;
            }
            match self.place(task.sequence.prompt()) {
                Ok((row, known)) => {
                    task.sequence.set_reused(known);
                    task.sequence.start_clock();
                    self.rows[row] = Row::Running(Box::new(task));
                    return Some(row);
                }
                Err(error) => events.push((task.id, BatchEvent::Failed(error))),
            }
        }
        None
    }

    /// A row for `prompt`, with as much of its beginning as is worth having, and how much that is.
    fn place(&mut self, prompt: &[u32]) -> Result<(usize, usize)> {
        let is_full = self.rows.len() >= self.options.max_rows;
        let (row, known) = match self.best_start(prompt) {
            None => (self.empty_row(), 0),
            Some((row, known)) => match self.rows[row] {
                // Little is lost, or something has to be.
                Row::Kept { .. } if is_full || self.cache.len(row) < known + WORTHWHILE => {
                    (row, known)
                }
                _ => (self.copy_of(row)?, known),
            },
        };
        let kept = prefix::keep(self.generator.decoder(), &mut self.cache, row, known);
        if kept.is_err() {
            self.cache.clear_row(row);
        }
        kept.map(|()| (row, known))
    }

    /// The row that saves most when `prompt` continues from it, and how many tokens they share.
    fn best_start(&self, prompt: &[u32]) -> Option<(usize, usize)> {
        let replay = self.cache.layout().replay_len();
        let saved = |row: usize| {
            let known = prefix::known_len(&self.cache, row, prompt);
            // Cutting a row feeds some of its tokens again.
            let cut = known < self.cache.len(row);
            let saved = known.saturating_sub(if cut { replay } else { 0 });
            let is_kept = matches!(self.rows[row], Row::Kept { .. });
            (saved >= WORTHWHILE).then_some((saved, is_kept, row, known))
        };
        let (.., row, known) = (0..self.rows.len()).filter_map(saved).max()?;
        Some((row, known))
    }

    /// An empty row that no request has: a new one, or the one that was left longest ago.
    fn empty_row(&mut self) -> usize {
        let kept = self.rows.iter().enumerate().filter_map(|(row, used)| {
            let Row::Kept { since } = used else {
                return None;
            };
            Some((*since, row))
        });
        match kept.min() {
            Some((_, row)) if self.rows.len() >= self.options.max_rows => {
                self.cache.clear_row(row);
                row
            }
            _ => {
                self.rows.push(Row::Kept { since: self.steps });
                self.cache.push_row()
            }
        }
    }

    /// A row that no request has, with the tokens of row `source`; there must be one besides it.
    fn copy_of(&mut self, source: usize) -> Result<usize> {
        let row = self.empty_row();
        self.cache.fork_row(source)?;
        // The copy is the last row, and takes the number of the one that is removed.
        self.cache.swap_remove_row(row)?;
        Ok(row)
    }

    /// Feeds the rows, and brings the logits, `(feeds, vocab)`, into `self.logits`.
    fn forward(&mut self, feeds: &[Feed]) -> Result<()> {
        let mut ids = Vec::with_capacity(feeds.iter().map(|feed| feed.len).sum());
        let mut segments = Vec::with_capacity(feeds.len());
        for &Feed { row, len, .. } in feeds {
            if let Row::Running(task) = &self.rows[row] {
                ids.extend(task.sequence.tokens(self.cache.len(row), len));
                segments.push(Segment { row, len });
            }
        }
        let want = match feeds.iter().any(|feed| feed.draws) {
            true => Want::LastLogits,
            // In the middle of prompts, the large multiplication with the vocabulary is for nothing.
            false => Want::Hidden,
        };
        let decoder = self.generator.decoder();
        let input = Tensor::new(ids.as_slice(), decoder.device())?;
        let step = Step::segments_of(segments);
        let output = decoder.forward(Input::Ids(&input), &step, &mut self.cache, want)?;
        if want == Want::LastLogits {
            output.dims2().and_then(|found| {
                let expected = (feeds.len(), decoder.vocab_size());
                if found != expected {
                    candle_core::bail!("expected logits of shape {expected:?}, found {found:?}");
                }
                Ok(())
            })?;
            read_logits(&output, &mut self.logits)?;
        }
        Ok(())
    }

    fn draw(&mut self, feeds: &[Feed], events: &mut Events) {
        let vocab = self.generator.decoder().vocab_size();
        for (feed, logits) in feeds.iter().zip(self.logits.chunks_exact_mut(vocab)) {
            let (Row::Running(task), true) = (&mut self.rows[feed.row], feed.draws) else {
                continue;
            };
            task.is_suspect = false;
            let id = task.id;
            let is_over = match task.sequence.draw(logits) {
                Ok(drawn) => {
                    events.push((id, BatchEvent::Piece(drawn.piece)));
                    let finish = drawn.ended_by.map(|reason| task.sequence.finish(reason));
                    let is_over = finish.is_some();
                    events.extend(finish.map(|finish| (id, BatchEvent::Finished(finish))));
                    is_over
                }
                Err(error) => {
                    events.push((id, BatchEvent::Failed(error)));
                    // What led to such logits is not to be continued from.
                    self.cache.clear_row(feed.row);
                    true
                }
            };
            if is_over {
                self.rows[feed.row] = Row::Kept { since: self.steps };
            }
        }
    }

    /// After a pass that failed: its rows are half fed and have to be read again. Whose fault it was
    /// is found by doing that one by one.
    fn survive(&mut self, feeds: &[Feed], error: Error, events: &mut Events) {
        for feed in feeds {
            self.cache.clear_row(feed.row);
        }
        if let [feed] = feeds {
            let ended = Row::Kept { since: self.steps };
            if let Row::Running(task) = std::mem::replace(&mut self.rows[feed.row], ended) {
                events.push((task.id, BatchEvent::Failed(error)));
            }
            return;
        }
        tracing::warn!(%error, texts = feeds.len(), "a pass failed; its texts are read again one by one");
        for feed in feeds {
            if let Row::Running(task) = &mut self.rows[feed.row] {
                task.is_suspect = true;
                task.sequence.set_reused(0);
            }
        }
    }
}
