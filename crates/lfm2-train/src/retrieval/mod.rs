//! Training late-interaction retrieval models.
//!
//! Plain text is cut into passages, and every passage gets queries that somebody might ask who looks
//! for it: a sentence that is taken out of it, words in a row, telling words, questions. A batch is
//! drawn from passages that share words, and the model learns to rank each query's own passage above
//! all others of the batch ([`loss::retrieval`](crate::loss::retrieval)); besides, it can learn from
//! BM25 how much each word tells.

mod disguise;
mod export;
mod objective;
mod options;
mod passages;
mod queries;
mod run;
mod texts;
mod tokenizer;

pub use objective::{RetrievalBatch, RetrievalObjective};
pub use options::{FreshEncoder, LexicalTeacher, PassageSource, RetrievalOptions, RetrievalTag};
pub use queries::QueryShares;
pub use run::RetrievalRun;
