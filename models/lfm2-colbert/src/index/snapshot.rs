//! One state of an index, open for reading.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::manifest::Manifest;
#[cfg(feature = "plaid")]
use super::plaid::Base;
use super::segment::Segment;
use super::{Check, Filter, IndexInfo, Result};

/// Where a document is. The order is that of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) segment: usize,
    pub(super) document: usize,
}

/// For every document of every segment whether it is meant.
#[derive(Debug)]
pub(super) struct Selection(Vec<Vec<bool>>);

impl Selection {
    pub(super) fn has(&self, place: Place) -> bool {
        let segment = self.0.get(place.segment);
        segment.and_then(|segment| segment.get(place.document)) == Some(&true)
    }

    /// All that are meant, in order.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        (0..self.0.len()).flat_map(|segment| self.places_in(segment))
    }

    /// Those of one segment.
    pub(super) fn places_in(&self, segment: usize) -> impl Iterator<Item = Place> + '_ {
        let meant = self.0.get(segment).into_iter().flatten().enumerate();
        meant.filter_map(move |(document, &meant)| meant.then_some(Place { segment, document }))
    }
}

/// The files of one manifest.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) manifest: Manifest,
    pub(super) segments: Vec<Arc<Segment>>,
    /// What is not deleted.
    alive: Arc<Selection>,
    ids: OnceLock<HashMap<String, Place>>,
    /// The last filter and what passed it: programs often search with the same one again.
    filtered: Mutex<Option<(Filter, Arc<Selection>)>>,
    #[cfg(feature = "plaid")]
    pub(super) base: Option<Arc<Base>>,
}

/// How often to begin again when files go away while they are opened.
const ATTEMPTS: usize = 20;

impl Snapshot {
    /// Opens the state that `folder` is in, with the files that `previous` has open already.
    pub(super) fn load(folder: &Path, check: Check, previous: Option<&Self>) -> Result<Self> {
        let mut manifest = Manifest::read(folder)?;
        let mut attempt = 1;
        loop {
            let generation = manifest.generation;
            let error = match Self::open(folder, manifest, check, previous) {
                Ok(snapshot) => return Ok(snapshot),
                Err(error) => error,
            };
            // A writer may have replaced the manifest and removed the files of the old one meanwhile.
            manifest = Manifest::read(folder)?;
            if manifest.generation == generation || attempt == ATTEMPTS {
                return Err(error);
            }
            attempt += 1;
        }
    }

    fn open(
        folder: &Path,
        manifest: Manifest,
        check: Check,
        previous: Option<&Self>,
    ) -> Result<Self> {
        let mut segments = Vec::with_capacity(manifest.segments.len());
        for entry in &manifest.segments {
            let known = previous.and_then(|previous| {
                let mut entries = previous.manifest.segments.iter();
                let at =
                    entries.position(|e| e.name == entry.name && e.vectors == entry.vectors)?;
                previous.segments.get(at).cloned()
            });
            segments.push(match known {
                Some(segment) => segment,
                None => Arc::new(Segment::open(folder, entry, manifest.dim, check)?),
            });
        }
        #[cfg(feature = "plaid")]
        let base = match &manifest.plaid {
            None => None,
            Some(entry) => {
                let known = previous.and_then(|previous| previous.base.clone());
                let known = known.filter(|base| base.entry() == entry);
                Some(match known {
                    // Segments may have moved.
                    Some(base) if base.fits(&segments) => base,
                    _ => Arc::new(Base::open(folder, entry, &segments, manifest.dim, check)?),
                })
            }
        };
        #[cfg(not(feature = "plaid"))]
        if manifest.plaid.is_some() {
            tracing::warn!("this build has no plaid: every document is looked at");
        }
        let alive = manifest.segments.iter().map(|entry| {
            let mut alive = vec![true; entry.documents];
            for &deleted in &entry.deleted {
                if let Some(alive) = alive.get_mut(deleted) {
                    *alive = false;
                }
            }
            alive
        });
        Ok(Self {
            alive: Arc::new(Selection(alive.collect())),
            segments,
            ids: OnceLock::new(),
            filtered: Mutex::new(None),
            #[cfg(feature = "plaid")]
            base,
            manifest,
        })
    }

    /// Documents that are there.
    pub(super) fn live(&self) -> usize {
        let entries = self.manifest.segments.iter();
        entries
            .map(|entry| entry.documents - entry.deleted.len())
            .sum()
    }

    pub(super) fn alive(&self) -> &Selection {
        &self.alive
    }

    /// The documents that are there and pass `filter`.
    pub(super) fn select(&self, filter: Option<&Filter>) -> Result<Arc<Selection>> {
        let Some(filter) = filter else {
            return Ok(self.alive.clone());
        };
        let mut kept = self.filtered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, selection)) = &*kept
            && known == filter
        {
            return Ok(selection.clone());
        }
        let mut selection = Vec::with_capacity(self.segments.len());
        for (segment, alive) in self.segments.iter().zip(&self.alive.0) {
            let passes = |(document, &alive): (usize, &bool)| {
                Ok(alive && filter.matches(&segment.document(document)?))
            };
            selection.push(
                alive
                    .iter()
                    .enumerate()
                    .map(passes)
                    .collect::<Result<_>>()?,
            );
        }
        let selection = Arc::new(Selection(selection));
        *kept = Some((filter.clone(), selection.clone()));
        Ok(selection)
    }

    /// Where every id is; read from the files at the first use.
    pub(super) fn ids(&self) -> Result<&HashMap<String, Place>> {
        if let Some(ids) = self.ids.get() {
            return Ok(ids);
        }
        let mut ids = HashMap::with_capacity(self.live());
        for place in self.alive.places() {
            ids.insert(self.id(place)?, place);
        }
        Ok(self.ids.get_or_init(|| ids))
    }

    /// What [`ids`](Self::ids) has read, if it has.
    pub(super) fn take_ids(&mut self) -> Option<HashMap<String, Place>> {
        self.ids.take()
    }

    /// Spares [`ids`](Self::ids) the reading.
    pub(super) fn set_ids(&mut self, ids: Option<HashMap<String, Place>>) {
        self.ids = ids.map_or_else(OnceLock::new, OnceLock::from);
    }

    pub(super) fn id(&self, place: Place) -> Result<String> {
        self.segments[place.segment].id(place.document)
    }

    pub(super) fn info(&self) -> IndexInfo {
        let manifest = &self.manifest;
        let entries = || manifest.segments.iter();
        let dead_rows = self.segments.iter().zip(entries()).map(|(segment, entry)| {
            let rows = entry.deleted.iter().map(|&d| segment.rows_of(d).len());
            rows.sum::<usize>()
        });
        let plaid = manifest.plaid.as_ref();
        IndexInfo {
            model: manifest.model.clone(),
            dim: manifest.dim,
            engine: manifest.engine,
            generation: manifest.generation,
            documents: self.live(),
            vectors: entries().map(|e| e.rows).sum::<usize>() - dead_rows.sum::<usize>(),
            deleted: entries().map(|entry| entry.deleted.len()).sum(),
            in_plaid: plaid.map_or(0, |plaid| plaid.documents),
            segments: manifest.segments.len(),
            vector_bytes: entries().map(|entry| entry.vectors.bytes).sum(),
            record_bytes: entries().map(|entry| entry.records.bytes).sum(),
            plaid_bytes: plaid.map_or(0, |plaid| plaid.files.iter().map(|f| f.file.bytes).sum()),
        }
    }
}
