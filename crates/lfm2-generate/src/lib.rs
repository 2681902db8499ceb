//! From a conversation to the text a model answers with.

mod error;

pub use error::{Error, Result};
