//! LFM2-VL: pictures in, text out.
//!
//! A picture goes a long way before it is text: it is decoded, planned, stretched, cut into tiles and
//! patches, read by a vision tower, joined and projected, and takes its place in a prompt. Up to the
//! patches everything is the reference's to the bit, because a pixel more or a level less changes
//! answers; from there on, to the accuracy of `f32`.
//!
//! | I want | use |
//! |---|---|
//! | a picture from a file | [`Picture::open`], [`Picture::decode`] |
//! | to know what a picture will cost | [`ImageProcessor::plan`], [`VlModel::cost`], [`VlModel::measure_speed`] |
//! | pictures never to cost more than so much | [`Budget`], [`VlModel::process_images_within`] |
//! | the frames of an animation or a folder | [`Frames`] |
//! | views and patches without a model | [`ImageProcessor`] |
//! | to see what a model sees | [`contact_sheet`], [`Canvas`] |
//! | boxes that a model answered with | [`Boxes`] |
//! | a model from a folder or the Hub | [`VlModel::open`] |
//! | a model from two GGUF files | [`Mmproj`], [`VlModel::from_gguf`] |
//! | a prompt with pictures, and to go on from it | [`Album`], which is a [`Decoder`](lfm2_nn::Decoder) |
//! | the pieces one by one | [`VisionTower`], [`Projector`], [`PositionTable`], [`resize()`] |
//!
//! ```no_run
//! use lfm2_hub::{Bos, OpenOptions, SpecialTokens};
//! use lfm2_nn::{CacheSpec, Decoder, Input, Step, Tensor, Want};
//! use lfm2_vl::{DecodeOptions, Picture, VlModel, VlOptions};
//!
//! # fn main() -> lfm2_hub::Result<()> {
//! let source = "LiquidAI/LFM2-VL-450M".parse()?;
//! let model = VlModel::open(&source, &OpenOptions::default(), &VlOptions::default())?;
//! let picture = Picture::open("cat.jpg", &DecodeOptions::default())?;
//! let views = model.process_images(&[picture])?;
//!
//! // What a chat template makes of a question about one picture.
//! let text = "<|startoftext|><|im_start|>user\n<image>What is this?<|im_end|>\n<|im_start|>assistant\n";
//! let ids = model.tokenizer().encode(text, SpecialTokens::Parse, Bos::Omit)?;
//! let album = model.album();
//! let prompt = album.prompt(&ids, &[&views[0]])?;
//!
//! let mut cache = album.new_cache(CacheSpec::rows(1));
//! let input = Tensor::new(prompt.as_slice(), album.device())?;
//! let logits = album.forward(Input::Ids(&input), &Step::single(prompt.len()), &mut cache, Want::LastLogits)?;
//! # Ok(())
//! # }
//! ```
//!
//! What happens to a picture, by file: `decode` (files), `plan` and `budget` (which views), `resize` and
//! `view` (pixels), `tokens` (prompts), `positions`, `tower` and `projector` (the model), `album` (its
//! place among text), `boxes` (what comes back).

mod album;
mod boxes;
mod budget;
mod canvas;
mod config;
mod cost;
#[cfg(feature = "images")]
mod decode;
mod font;
mod mmproj;
mod model;
mod picture;
mod plan;
mod positions;
mod processor;
mod projector;
mod resize;
mod settings;
pub mod shapes;
mod sheet;
mod speed;
mod tokens;
mod tower;
mod view;
mod view_cache;
mod view_folder;

pub use album::Album;
pub use boxes::{Boxes, FoundBox, PixelBox};
pub use budget::Budget;
pub use canvas::{Canvas, Colour};
pub use config::{ProjectorConfig, VisionConfig, VlConfig};
pub use cost::{Cost, Speed};
#[cfg(feature = "images")]
pub use decode::{Alpha, DecodeOptions, Frame, FrameOptions, Frames, ImageLimits};
pub use mmproj::Mmproj;
pub use model::{ReadProgress, VlModel, VlOptions, Watch};
pub use picture::{CHANNELS, Picture};
pub use plan::{
    ImagePlan, PlannedView, Size, TileGrid, ViewKind, best_grid, is_too_large, single_view,
};
pub use positions::PositionTable;
pub use processor::{ImageProcessor, ImageViews};
pub use projector::Projector;
pub use resize::{Filter, resize};
pub use settings::ImageSettings;
pub use sheet::contact_sheet;
pub use tokens::{ImageTokens, RunPart};
pub use tower::VisionTower;
pub use view::{PatchGrid, View, ViewKey};
pub use view_folder::ViewFolder;
