//! Training LFM2 models.

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
