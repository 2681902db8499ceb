//! The model that reads pictures and is compiled into the program.

use crate::Result;
use crate::hub::{Checkpoint, Error};

/// The checkpoint behind [`VlModel::embedded`](crate::VlModel::embedded), with its files.
///
/// # Errors
/// [`Error::NotFound`]: this version has none.
pub fn embedded_picture_checkpoint() -> Result<Checkpoint> {
    Err(Error::NotFound {
        what: "a built-in model that reads pictures".to_owned(),
        hint: "give one with --model, such as LiquidAI/LFM2-VL-450M or a folder".to_owned(),
    }
    .into())
}
