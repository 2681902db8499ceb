//! Training LFM2 models: from text files to a checkpoint that any reader of published ones opens.
//!
//! | I want | use |
//! |---|---|
//! | a whole run that can be stopped and resumed | [`Trainer`], [`TrainOptions`] |
//! | to see what it does, or stop it | [`TrainProgress`], [`Cancel`](lfm2_generate::Cancel) |
//! | text and conversations as packed micro-batches | [`data`] |
//! | a method of my own in the same loop | [`Objective`], [`RunLoop`] |
//! | to learn from a larger model | [`teach`], [`Method::Distill`] |
//! | to prefer some answers to others | [`Method::Preference`] |
//! | to train little of a model | [`LoraOptions`] |
//! | one model out of several | [`merge`] |
//! | easy items first | [`curriculum`] |
//! | the loss of one micro-batch and its gradients | [`batch_loss`], [`batch_gradients`] |
//! | trainable weights under a model | [`Parameters`] |
//! | the pieces of my own loop | [`loss`], [`AdamW`], [`Schedule`] |
//! | a model that finds texts | [`retrieval::RetrievalRun`] |
//! | a model that hears | [`speech::SpeechRun`], [`Mixed`] |
//! | sound of codes | [`sound::SoundRun`] |
//! | a model that sees | [`vision::VisionRun`], [`Mixed`] |
//! | pictures with questions and right answers | [`shapes`] |
//! | a tokenizer of the family's form | [`train_tokenizer`], [`tokenizer_files`] |
//! | to know how well it transcribes | [`word_error_rate`] |
//! | to know what a model can do | [`eval`] |
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

mod any_run;
mod balance;
mod bpe;
pub mod curriculum;
pub mod data;
mod error;
pub mod eval;
mod export;
mod file;
mod hints;
mod isa;
mod language;
mod lora;
pub mod loss;
pub mod merge;
mod mixed;
mod objective;
mod optim;
mod options;
mod pairs;
mod plot;
mod prepare;
mod progress;
mod report;
pub mod retrieval;
mod rng;
mod run;
mod run_loop;
mod schedule;
mod score;
pub mod shapes;
pub mod sound;
pub mod speech;
mod state;
mod teacher;
mod trainer;
mod variables;
pub mod vision;
mod wer;
mod workers;

pub use any_run::AnyRun;
pub use balance::{Balance, overload};
pub use bpe::{
    BOS, CHAT_TEMPLATE, EOS, PAD, SMALLEST_VOCABULARY, SPECIAL_TOKENS, tokenizer_files,
    train_tokenizer,
};
/// What tensor operations come to: an [`Objective`] of one's own speaks of it.
pub use candle_core::Result as TensorResult;
pub use error::{Error, Result};
pub use hints::Hints;
pub use language::{Language, LanguageBatch};
pub use lora::{LoraOptions, LoraSource, write_adapter};
pub use mixed::{Feed, Front, Mixed, MixedBatch};
pub use objective::{BatchSize, LossUnit, Objective, Outcome, ValidationSet};
pub use optim::{AdamW, AdamWOptions, Gradients, Moments, clip_factor};
pub use options::{Activations, Base, Card, ExportDtype, Method, NonFinitePolicy, TrainOptions};
pub use pairs::PairBatch;
pub use progress::{StepReport, TrainEvent, TrainProgress, ValidationReport};
pub use rng::Rng;
pub use run::Resume;
pub use run_loop::{Pace, RunFolder, RunLoop};
pub use schedule::Schedule;
pub use score::score;
pub use teacher::{TeachOptions, TeacherIdentity, TeacherStore};
pub use trainer::{Trainer, batch_gradients, batch_loss, teach};
pub use variables::{Init, Parameter, Parameters};
pub use wer::{Transcribed, WerReport, WordEdits, word_error_rate};
