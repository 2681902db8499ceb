//! The LFM2 family of models on Candle: one door.
//!
//! ```no_run
//! # use std::io::Write;
//! # fn main() -> anyhow::Result<()> {
//! let model = lfm2::TextModel::open("LiquidAI/LFM2-350M")?;
//! for piece in model.chat("Name three uses of short convolutions.")? {
//!     print!("{}", piece?);
//!     std::io::stdout().flush()?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | I want | use | example |
//! |---|---|---|
//! | an answer to one question | [`TextModel::chat`] | `chat` |
//! | a conversation | [`TextModel::chat_session`] | `chat` |
//! | to ask about pictures | [`VlModel::ask`] | `describe` |
//! | a conversation about pictures | [`VlModel::chat_session`], [`vl::Budget`] | `screenshot`, `compare` |
//! | a text to be continued | [`TextModel::generate`] | `text` |
//! | many texts at once | [`generate::Batch`] | `batch` |
//! | the model to call my functions | [`generate::Tool`], [`generate::Chat::with_tools`] | `tools` |
//! | a model that is always there | `TextModel::embedded`, `VlModel::embedded`, `retrieval::embedded`, `speech::embedded`, feature `embedded` | `text`, `transcribe` |
//! | files and folders that can be searched | [`retrieval::Library`] | `semantic_search` |
//! | texts sorted by how well they answer | [`retrieval::RetrievalModel::rerank`] | `rerank` |
//! | speech as text, text as speech, a spoken answer | [`speech::open`], [`speech::AudioModel`] | `transcribe`, `speak`, `converse` |
//! | vectors of sentences from any layer, for studies | [`sentence::SentenceEncoder`] | `dimensions` |
//! | files from the Hub, with progress | [`hub::fetch_checkpoint`], feature `download` | `download` |
//! | logits, hidden states, my own loop | [`text::TextModel`], [`nn::Decoder`] | `logits` |
//! | a smaller file of a model | [`hub::gguf::quantize`] | the command `lfm2 quantize` |
//! | random weights of a published shape | [`text::shapes`] | the command `lfm2 bench` |
//!
//! The examples are in the folder `examples` of the repository: short programs to copy.
//!
//! Everything below this door is a crate of its own and can be used alone: [`hub`] knows files,
//! [`nn`] layers, [`text`] the text models, [`vl`] pictures, [`generate`] sampling, templates and
//! conversations, [`retrieval`] vectors of texts and their search, [`sentence`] vectors of sentences from
//! inside of models, [`speech`] sound.

#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod gallery;
mod options;
mod pictures;
pub mod retrieval;
pub mod sentence;
pub mod speech;
mod text_model;

pub use error::{Error, Result};
pub use gallery::Gallery;
pub use lfm2_generate as generate;
pub use lfm2_generate::{
    Cancel, Chat, ChatEvent, ChatStream, Generation, GenerationOptions, Message,
};
pub use lfm2_hub as hub;
pub use lfm2_hub::{ErrorKind, ModelSource};
pub use lfm2_nn as nn;
pub use lfm2_nn::{DType, Device, Tensor};
pub use lfm2_text as text;
pub use lfm2_vl as vl;
pub use options::OpenOptions;
pub use pictures::{VlChat, VlModel};
pub use text_model::TextModel;

/// The examples of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;

/// The examples of the quickstart, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/quickstart.md")]
pub struct Quickstart;

/// The examples of the page on retrieval, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/retrieval.md")]
pub struct Retrieval;

/// The examples of the page on pictures, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/pictures.md")]
pub struct Pictures;

/// The examples of the page on speech, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/speech.md")]
pub struct Speech;
