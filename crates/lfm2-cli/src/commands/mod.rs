//! One file or folder per command.

pub(crate) mod analyze;
pub(crate) mod batch;
pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod converse;
pub(crate) mod describe;
pub(crate) mod download;
pub(crate) mod embed;
pub(crate) mod eval;
mod eval_retrieval;
mod eval_rows;
mod eval_vl;
mod eval_wer;
pub(crate) mod generate;
pub(crate) mod index;
pub(crate) mod inspect;
pub(crate) mod merge;
mod pictures;
pub(crate) mod quantize;
mod report;
pub(crate) mod rerank;
pub(crate) mod search;
pub(crate) mod speak;
mod spoken;
pub(crate) mod train;
pub(crate) mod transcribe;
