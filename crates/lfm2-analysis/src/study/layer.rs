//! How well properties can be read from one layer of an encoder: the part of a study that is quick.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Property, StudyOptions, common_dims, property};
use crate::error::Result;
use crate::sides::check_cancel;

/// What can be read from one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LayerStudy {
    /// What the layer is called, such as "3" or "final".
    pub layer: String,
    /// Dimensions of its embeddings.
    pub dims: usize,
    /// One entry per property, in the order given.
    pub properties: Vec<LayerReading>,
}

/// How well one property can be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LayerReading {
    /// The property.
    pub name: String,
    /// Accuracy with all dimensions.
    pub baseline: f64,
    /// Dimensions whose adjusted p-value is significant.
    pub significant: usize,
}

impl LayerStudy {
    /// Reads `properties`, by their embeddings at one layer, as [`Study::run`](super::Study::run) would.
    ///
    /// # Errors
    /// As [`Study::run`](super::Study::run).
    pub fn run(
        layer: impl Into<String>,
        properties: &[Property<'_>],
        options: &StudyOptions,
        cancel: &AtomicBool,
    ) -> Result<Self> {
        options.check()?;
        let dims = common_dims(properties)?;
        let read = |property: &Property<'_>| {
            check_cancel(cancel)?;
            let begun = property::begin(property, options)?;
            let all: Vec<usize> = (0..dims).collect();
            Ok(LayerReading {
                name: property.name().to_owned(),
                baseline: begun.sides.accuracy_of(&all)?,
                significant: begun.selection.significant(options.significance),
            })
        };
        Ok(Self {
            layer: layer.into(),
            dims,
            properties: properties.par_iter().map(read).collect::<Result<_>>()?,
        })
    }
}
