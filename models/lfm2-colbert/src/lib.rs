//! LFM2-ColBERT: token embeddings, MaxSim, and the indexes that search them.
//!
//! | I want | use |
//! |---|---|
//! | vectors of a question or of documents | [`ColbertModel::encode_query`], [`ColbertModel::encode_documents`] |
//! | vectors of more documents than memory holds | [`ColbertModel::stream`] |
//! | other lengths, prefixes, punctuation | [`RetrievalSettings`], [`ColbertModel::with_settings`] |
//! | fewer vectors per document | [`pool_documents`] |
//! | fewer numbers per vector | [`dimension_values`], [`write_pruned`] |
//! | one vector per text | [`EmbeddingModel`] |
//! | whichever of both a folder holds | [`RetrievalModel`] |
//! | the ids that a model reads, and where they are in a text | [`TextReader`] |
//! | a score, and which token it is from | [`max_sim`], [`explain`] |
//! | an order for documents found otherwise | [`rerank`] |
//! | files and folders that can be searched | [`Library`] |
//! | documents on disk that can be searched | [`index`] |
//! | documents from files, in pieces | [`Listing`], [`Chunker`] |
//! | to know how good a ranking is | [`Collection`], [`Hits`], [`Metric`], [`Bm25`] |
//! | hidden states, gradients, my own loop | [`ColbertNetwork`] |
//!
//! A text has the same vectors alone and among others: texts of a batch share the matrices of linear
//! layers and nothing else. There is no padding.

mod beir;
mod bm25;
mod chunk;
mod documents;
mod error;
mod identity;
pub mod index;
mod library;
mod lines;
mod metrics;
mod model;
mod modules;
mod network;
mod packing;
mod pooling;
mod prune;
mod reader;
mod rerank;
mod retrieval;
mod score;
mod settings;
mod single;
mod stream;
mod vectors;

pub use beir::{Collection, Passage, Query};
pub use bm25::Bm25;
pub use chunk::{Chunk, ChunkOptions, Chunker};
pub use documents::{Documents, Found, Listing, ReadOptions, Skipped, TextDocument, TextFormat};
pub use error::{Error, Result};
pub use identity::ModelId;
/// A view of a matrix, for scores and indexes.
pub use lfm2_kernels::MatRef;
pub use library::{
    Added, Answer, Library, LibraryCard, LibraryOptions, Meeting, delete as delete_documents,
};
pub use metrics::{Hits, Metric};
pub use model::ColbertModel;
pub use modules::{DenseSpec, Pooling};
pub use network::ColbertNetwork;
pub use pooling::{PROTECTED, pool, pool_documents};
pub use prune::{dimension_values, write_pruned};
pub use reader::{TextReader, TokenInput};
pub use rerank::{Ranked, rerank};
pub use retrieval::RetrievalModel;
pub use score::{TokenMatch, dimension_parts, explain, max_sim};
pub use settings::{Expansion, Letters, OuterSpace, RetrievalSettings};
pub use single::{EmbeddingModel, EmbeddingSettings, cosine};
pub use stream::{DocumentStream, EncodeOptions};
pub use vectors::TokenVectors;
