//! [`LocalIndex`]: an index in a folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use half::f16;
use lfm2_kernels::{DocumentRows, Isa, MatRef, max_sim, top_k};

use super::manifest::{self, Manifest};
use super::snapshot::{Place, Selection, Snapshot};
use super::writer::{LocalWriter, WriteLock};
use super::{
    Check, CreateOptions, Document, Engine, Hit, Index, IndexError, IndexInfo, IndexWriter,
    Maintenance, OpenOptions, Result, SearchOptions, StoredVectors, WriteOptions,
};

/// An index in a folder: see the [module](super) for what is in it.
#[derive(Debug)]
pub struct LocalIndex {
    pub(super) folder: PathBuf,
    pub(super) check: Check,
    pub(super) snapshot: Snapshot,
    isa: Isa,
}

impl LocalIndex {
    /// Makes an empty index in `folder`, which may be new or empty.
    ///
    /// # Errors
    /// When there is something in the folder already, it cannot be written, or the options make no
    /// sense.
    pub fn create(folder: &Path, options: &CreateOptions) -> Result<Self> {
        if options.dim == 0 {
            let message = "an index of vectors without dimensions".to_owned();
            return Err(IndexError::InvalidInput(message));
        }
        check_engine(options.engine, options.dim)?;
        std::fs::create_dir_all(folder).map_err(IndexError::io(folder))?;
        let _lock = WriteLock::acquire(folder)?;
        for entry in std::fs::read_dir(folder).map_err(IndexError::io(folder))? {
            let name = entry.map_err(IndexError::io(folder))?.file_name();
            let name = name.to_string_lossy();
            if name == super::writer::LOCK_FILE || super::writer::is_temporary(&name) {
                continue;
            }
            let what = if name == manifest::FILE {
                "there is an index already"
            } else {
                "the folder is not empty"
            };
            let folder = folder.display();
            return Err(IndexError::InvalidInput(format!("{folder}: {what}")));
        }
        Manifest::new(options.model.clone(), options.dim, options.engine).write(folder)?;
        Self::open(folder, &OpenOptions::default())
    }

    /// Opens the index in `folder`.
    ///
    /// # Errors
    /// When there is none, it is damaged or of another version, or belongs to another model.
    pub fn open(folder: &Path, options: &OpenOptions) -> Result<Self> {
        let isa = Isa::from_env()?;
        // Before the other files, which may be large.
        let found = Manifest::read(folder)?.model;
        if let Some(expected) = options.model.as_ref().filter(|model| **model != found) {
            return Err(IndexError::OtherModel {
                path: folder.to_owned(),
                expected: expected.clone(),
                found,
            });
        }
        Ok(Self {
            folder: folder.to_owned(),
            check: options.check,
            snapshot: Snapshot::load(folder, options.check, None)?,
            isa,
        })
    }

    /// The folder it is in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens the newest state.
    pub(super) fn reload(&mut self) -> Result<()> {
        self.snapshot = Snapshot::load(&self.folder, self.check, Some(&self.snapshot))?;
        Ok(())
    }

    fn check_query(&self, query: MatRef<'_, f32>) -> Result<()> {
        let expected = self.snapshot.manifest.dim;
        if query.cols() != expected {
            return Err(IndexError::Dimensions {
                what: "the query".to_owned(),
                expected,
                found: query.cols(),
            });
        }
        match (0..query.rows()).find(|&row| !query.row(row).iter().all(|v| v.is_finite())) {
            Some(row) => Err(IndexError::NotFinite {
                what: "the query".to_owned(),
                row,
            }),
            None => Ok(()),
        }
    }

    /// MaxSim with the stored vectors of documents, which are in the order of the index.
    fn scores(&self, query: MatRef<'_, f32>, places: &[Place]) -> Result<Vec<f32>> {
        let mut scores = vec![0.0; places.len()];
        let mut done = 0;
        for places in places.chunk_by(|a, b| a.segment == b.segment) {
            let segment = &self.snapshot.segments[places[0].segment];
            let ranges: Vec<_> = places.iter().map(|p| segment.rows_of(p.document)).collect();
            let rows: MatRef<'_, f16> = segment.rows()?;
            let scores = &mut scores[done..done + places.len()];
            max_sim(self.isa, query, DocumentRows::F16(rows), &ranges, scores)?;
            done += places.len();
        }
        Ok(scores)
    }

    /// The best of all documents of a selection, with their scores.
    fn exact(
        &self,
        query: MatRef<'_, f32>,
        k: usize,
        places: &[Place],
    ) -> Result<Vec<(Place, f32)>> {
        let scores = self.scores(query, places)?;
        let best = top_k(self.isa, &scores, k).into_iter();
        Ok(best.map(|(at, score)| (places[at], score)).collect())
    }

    #[cfg(feature = "plaid")]
    fn best(
        &self,
        query: MatRef<'_, f32>,
        options: &SearchOptions,
        selection: &Selection,
    ) -> Result<Vec<(Place, f32)>> {
        let Some(base) = &self.snapshot.base else {
            let places: Vec<_> = selection.places().collect();
            return self.exact(query, options.k, &places);
        };
        let found = base.search(query, options, selection)?;
        let others = (0..self.snapshot.segments.len()).filter(|&segment| !base.covers(segment));
        let mut rest: Vec<_> = others
            .flat_map(|segment| selection.places_in(segment))
            .collect();
        if found.len() < options.k {
            // There are not enough candidates: look at everything.
            let places: Vec<_> = selection.places().collect();
            return self.exact(query, options.k, &places);
        }
        if options.plaid.scores == super::Scores::Stored {
            rest.extend(found.into_iter().map(|(place, _)| place));
            rest.sort_unstable();
            return self.exact(query, options.k, &rest);
        }
        let mut best = self.exact(query, options.k, &rest)?;
        best.extend(found);
        best.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        best.truncate(options.k);
        Ok(best)
    }

    #[cfg(not(feature = "plaid"))]
    fn best(
        &self,
        query: MatRef<'_, f32>,
        options: &SearchOptions,
        selection: &Selection,
    ) -> Result<Vec<(Place, f32)>> {
        let places: Vec<_> = selection.places().collect();
        self.exact(query, options.k, &places)
    }

    fn place(&self, id: &str) -> Result<Option<Place>> {
        Ok(self.snapshot.ids()?.get(id).copied())
    }
}

impl Index for LocalIndex {
    fn info(&self) -> IndexInfo {
        self.snapshot.info()
    }

    fn search(&self, query: MatRef<'_, f32>, options: &SearchOptions) -> Result<Vec<Hit>> {
        self.check_query(query)?;
        if options.k == 0 {
            return Ok(Vec::new());
        }
        let start = Instant::now();
        let selection = self.snapshot.select(options.filter.as_ref())?;
        let best = self.best(query, options, &selection)?;
        let hits = best.into_iter().map(|(place, score)| {
            let segment = &self.snapshot.segments[place.segment];
            Ok(Hit {
                score,
                document: segment.document(place.document)?,
            })
        });
        let hits = hits.collect();
        tracing::debug!(elapsed = ?start.elapsed(), "searched the index");
        hits
    }

    fn document(&self, id: &str) -> Result<Option<Document>> {
        let place = self.place(id)?;
        place
            .map(|place| self.snapshot.segments[place.segment].document(place.document))
            .transpose()
    }

    fn vectors(&self, id: &str) -> Result<Option<StoredVectors>> {
        let place = self.place(id)?;
        Ok(place.map(|place| self.snapshot.segments[place.segment].vectors_of(place.document)))
    }

    fn ids(&self) -> Result<Vec<String>> {
        let places = self.snapshot.alive().places();
        places.map(|place| self.snapshot.id(place)).collect()
    }

    fn writer(&mut self, options: &WriteOptions) -> Result<Box<dyn IndexWriter + '_>> {
        Ok(Box::new(LocalWriter::begin(self, *options)?))
    }

    fn maintain(&mut self, when: Maintenance) -> Result<bool> {
        super::maintain::maintain(self, when)
    }

    fn set_engine(&mut self, engine: Engine) -> Result<()> {
        check_engine(engine, self.snapshot.manifest.dim)?;
        let _lock = self.lock()?;
        let mut next = self.snapshot.manifest.clone();
        next.generation += 1;
        next.engine = engine;
        if engine == Engine::Exact {
            next.plaid = None;
        }
        self.publish(&next)?;
        self.settle()
    }

    fn refresh(&mut self) -> Result<bool> {
        let newest = Manifest::read(&self.folder)?;
        let newer = newest != self.snapshot.manifest;
        if newer {
            if newest.model != self.snapshot.manifest.model {
                return Err(IndexError::OtherModel {
                    path: self.folder.clone(),
                    expected: self.snapshot.manifest.model.clone(),
                    found: newest.model,
                });
            }
            self.reload()?;
        }
        Ok(newer)
    }
}

/// Whether this build can search vectors of `dim` values with an engine.
fn check_engine(engine: Engine, dim: usize) -> Result<()> {
    let Engine::Plaid(bits) = engine else {
        return Ok(());
    };
    if !cfg!(feature = "plaid") {
        return Err(IndexError::Unsupported {
            what: "an index with plaid".to_owned(),
            hint: "this build has the exact engine only".to_owned(),
        });
    }
    if plaid_fits(dim, bits.get()) {
        Ok(())
    } else {
        Err(IndexError::Unsupported {
            what: format!("plaid with {dim} dimensions of {} bits", bits.get()),
            hint: "they must fill whole bytes; use the exact engine".to_owned(),
        })
    }
}

/// Whether compressed vectors fill whole bytes.
pub(super) fn plaid_fits(dim: usize, bits: usize) -> bool {
    dim.checked_mul(bits)
        .is_some_and(|size| size.is_multiple_of(8))
}
