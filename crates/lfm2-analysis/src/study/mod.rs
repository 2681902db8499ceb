//! The whole study of some properties: tests, elimination, scores, evaluation.

mod classifier;
mod evaluate;
mod layer;
mod options;
mod property;

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use classifier::{ClassScore, ClassifierStudy};
pub use evaluate::{CrossAccuracy, Evaluation};
pub use layer::{LayerReading, LayerStudy};
pub use options::{Select, StudyOptions};
pub use property::{PropertyStudy, Selection};

use crate::embeddings::PairedEmbeddings;
use crate::error::{Error, Result};
use crate::sides::{Sides, check_cancel};
use crate::split::Split;

/// The name of the set whose sides carry no label.
pub const CONTROL: &str = "control";

/// What a study knows of one property.
#[derive(Debug, Clone)]
pub struct Property<'a> {
    embeddings: PairedEmbeddings<'a>,
    groups: Option<&'a [usize]>,
    split: Option<Split>,
}

impl<'a> Property<'a> {
    /// A property by the embeddings of its pairs.
    pub fn new(embeddings: PairedEmbeddings<'a>) -> Self {
        Self {
            embeddings,
            groups: None,
            split: None,
        }
    }

    /// A number for each pair: pairs of one number stay on one side of a split by pair. See
    /// [`PairSet::groups`](crate::PairSet::groups).
    #[must_use]
    pub fn groups(mut self, groups: &'a [usize]) -> Self {
        self.groups = Some(groups);
        self
    }

    /// Splits this property's rows as given instead of by chance.
    #[must_use]
    pub fn split(mut self, split: Split) -> Self {
        self.split = Some(split);
        self
    }

    fn name(&self) -> &'a str {
        self.embeddings.name()
    }
}

/// Something that happened in a study. Properties are worked on at the same time.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum StudyEvent<'a> {
    /// A property's scores and accuracies are known.
    PropertyDone {
        /// Its name.
        name: &'a str,
        /// How many are done.
        done: usize,
        /// Of how many.
        of: usize,
    },
    /// All properties are done; dimensions are tried on each other's properties.
    Crossing,
    /// The classifier of properties is being fitted.
    Classifying,
}

/// Receives the events of a study, on any of its threads.
pub trait StudyProgress: Sync {
    /// Called for every event.
    fn event(&self, event: StudyEvent<'_>);
}

/// Listens to nothing.
impl StudyProgress for () {
    fn event(&self, _event: StudyEvent<'_>) {}
}

/// The results for all properties.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Study {
    /// The rules it followed.
    pub options: StudyOptions,
    /// Dimensions of the embeddings.
    pub dims: usize,
    /// One entry per property, in the order given.
    pub properties: Vec<PropertyStudy>,
    /// Which property is a difference of embeddings? None with fewer than two properties.
    pub classifier: Option<ClassifierStudy>,
}

impl Study {
    /// Studies `properties` by `options`.
    ///
    /// # Errors
    /// When there are no properties, two have one name, their dimensions differ, an option makes no
    /// sense, a property has too few pairs, or the caller set `cancel`.
    pub fn run(
        properties: &[Property<'_>],
        options: &StudyOptions,
        progress: &dyn StudyProgress,
        cancel: &AtomicBool,
    ) -> Result<Self> {
        options.check()?;
        let dims = common_dims(properties)?;
        let done = std::sync::atomic::AtomicUsize::new(0);
        let studied: Vec<(PropertyStudy, Sides)> = properties
            .par_iter()
            .map(|property| {
                let studied = property::study(property, options, cancel)?;
                progress.event(StudyEvent::PropertyDone {
                    name: property.name(),
                    done: done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1,
                    of: properties.len(),
                });
                Ok(studied)
            })
            .collect::<Result<_>>()?;
        let (mut studied, sides): (Vec<_>, Vec<_>) = studied.into_iter().unzip();
        progress.event(StudyEvent::Crossing);
        let crossed = evaluate::cross(&studied, &sides, options, cancel)?;
        for (study, cross) in studied.iter_mut().zip(crossed) {
            study.evaluation.cross = cross;
        }
        drop(sides);
        check_cancel(cancel)?;
        progress.event(StudyEvent::Classifying);
        Ok(Self {
            options: options.clone(),
            dims,
            properties: studied,
            classifier: classifier::study(properties, options)?,
        })
    }
}

/// The number of dimensions that all properties share.
fn common_dims(properties: &[Property<'_>]) -> Result<usize> {
    let Some(first) = properties.first() else {
        return Err(Error::InvalidOption {
            key: "properties",
            detail: "none, expected at least one".to_owned(),
        });
    };
    let dims = first.embeddings.dims();
    for (i, property) in properties.iter().enumerate() {
        let found = property.embeddings.dims();
        if found != dims {
            return Err(Error::Shape {
                name: property.name().to_owned(),
                detail: format!("{found} dimensions, \"{}\" has {dims}", first.name()),
            });
        }
        if properties[..i]
            .iter()
            .any(|other| other.name() == property.name())
        {
            return Err(Error::InvalidOption {
                key: "properties",
                detail: format!("\"{}\" is there twice", property.name()),
            });
        }
    }
    Ok(dims)
}
