//! One vector per sentence, from any layer of any encoder: what studies of embeddings look at.
//!
//! A vector is the mean over the tokens of a sentence at one [`Site`]: behind the embeddings, behind
//! a layer, or at the end. Encoders are LFM2 text models, retrieval models with a vector per token, and
//! BERT-style encoders such as the MiniLM family; [`SentenceEncoder`] tells them apart by their files.
//!
//! | I want | use |
//! |---|---|
//! | vectors of sentences | [`SentenceEncoder::encode`] |
//! | those of every layer | [`SentenceEncoder::sites`] |
//! | not to wait for the same vectors twice | [`EmbeddingCache`] |
//! | which dimensions a MaxSim score is from | [`SentenceEncoder::colbert`], [`lfm2_colbert::dimension_parts`] |
//! | states of a BERT without means | [`BertNetwork`] |
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use lfm2_sentence::{EncodeOptions, SentenceEncoder, Site};
//!
//! # fn main() -> lfm2_sentence::Result<()> {
//! let encoder = SentenceEncoder::open(&"sentence-transformers/all-MiniLM-L6-v2".parse()?)?;
//! let texts = ["It rains.", "It rained."];
//! let found = encoder.encode(&texts, &[Site::Final], &EncodeOptions::default(), &mut |_| ControlFlow::Continue(()))?;
//! assert_eq!(found.vectors[0].values.len(), 2 * found.vectors[0].dims);
//! # Ok(())
//! # }
//! ```
//!
//! Sentences of a batch share the matrices of linear layers and nothing else: there is no padding, and a
//! sentence has the same vector alone and among others.

mod bert;
mod cache;
mod encoder;
mod error;
mod identity;
mod means;
mod read;
mod site;

pub use bert::{BertConfig, BertNetwork};
pub use cache::EmbeddingCache;
pub use encoder::{EncodeOptions, Encoded, EncoderKind, SentenceEncoder};
pub use error::{Error, Result};
pub use site::{Frame, Site, SiteVectors};
