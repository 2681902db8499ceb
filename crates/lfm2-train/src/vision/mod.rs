//! Training vision-language models: a tower, a projector and a text model together.
//!
//! A [`VisionRun`] learns to answer questions about pictures; its objective is [`Mixed`](crate::Mixed).
//! What it learns from are files, or it is drawn as the run goes: pictures of
//! [shapes](crate::shapes), with questions whose answers follow from what was drawn.

mod export;
mod feed;
mod options;
mod rows;
mod run;
mod seen;
mod start;

pub use feed::PictureFeed;
pub(crate) use feed::asking;
pub use options::{
    ConversationOptions, PartRates, PictureData, RowData, ShapeData, TopicShares, VisionBase,
    VisionOptions, VisionTag,
};
pub use run::VisionRun;
