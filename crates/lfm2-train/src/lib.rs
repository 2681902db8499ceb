//! Training LFM2 models: from text files to a checkpoint that any reader of published ones opens.
//!
//! | I want | use |
//! |---|---|
//! | a whole run that can be stopped and resumed | [`Trainer`], [`TrainOptions`] |
//! | to see what it does, or stop it | [`TrainProgress`], [`Cancel`](lfm2_generate::Cancel) |
//! | text and conversations as packed micro-batches | [`data`] |
//! | the loss of one micro-batch and its gradients | [`batch_loss`], [`batch_gradients`] |
//! | trainable weights under a model | [`Parameters`] |
//! | the pieces of my own loop | [`loss`], [`AdamW`], [`Schedule`] |
//! | a tokenizer of the family's form | [`train_tokenizer`], [`tokenizer_files`] |
//! | to know how far a model uses its context | [`recall`] |
//!
//! ```no_run
//! use std::path::Path;
//! use lfm2_generate::Cancel;
//! use lfm2_train::{Resume, TrainOptions, Trainer};
//!
//! let config = Path::new("models/lfm2-tiny-stories/run-1.json");
//! let options = TrainOptions::read(config)?;
//! let base = config.parent().unwrap_or(Path::new("."));
//! let mut trainer = Trainer::open(options, base, Path::new("run"), Resume::Continue, 0)?;
//! trainer.train(&(), &Cancel::new())?;
//! trainer.export(Path::new("run/checkpoint"))?;
//! # Ok::<(), lfm2_train::Error>(())
//! ```
//!
//! A small model cannot keep many cores busy inside one operation, so the trainer gives each thread
//! a micro-batch of its own. Candle splits large operations over a pool of its own at the same time
//! and the two get in each other's way: set `CANDLE_NUM_THREADS=1` in the environment of a program
//! that trains, as the command does.

mod bpe;
pub mod data;
mod error;
mod export;
mod file;
pub mod loss;
mod optim;
mod options;
mod plot;
mod prepare;
mod progress;
mod recall;
mod rng;
mod run;
mod schedule;
mod state;
mod trainer;
mod variables;
mod workers;

pub use bpe::{
    BOS, CHAT_TEMPLATE, EOS, PAD, SMALLEST_VOCABULARY, SPECIAL_TOKENS, tokenizer_files,
    train_tokenizer,
};
pub use error::{Error, Result};
pub use optim::{AdamW, AdamWOptions, Gradients, Moments, clip_factor};
pub use options::{Base, Card, ExportDtype, NonFinitePolicy, TrainOptions};
pub use progress::{StepReport, TrainEvent, TrainProgress, ValidationReport};
pub use recall::{
    Answerer, RecallOptions, RecallOutcome, RecallReport, RecallRow, read_recall, recall,
};
pub use rng::Rng;
pub use run::Resume;
pub use schedule::Schedule;
pub use trainer::{Trainer, batch_gradients, batch_loss};
pub use variables::{Init, Parameter, Parameters};
