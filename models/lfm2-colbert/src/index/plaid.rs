//! The compressed form that large indexes are searched with, by the `next-plaid` crate.
//!
//! What that crate writes is made once, from segments, in a folder of its own, and never changed: its
//! own ways of adding and deleting write into files that are in use. Documents that come later are
//! looked at one by one until the form is made anew, and deleted ones are passed over.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lfm2_kernels::MatRef;
use ndarray::{Array1, Array2};
use next_plaid::kmeans::{compute_centroids, default_config};
use next_plaid::search::SearchParameters;
use next_plaid::{
    EncodedIndexChunk, IndexConfig, MmapIndex, ResidualCodec, encode_index_chunk,
    prepare_codec_artifacts, write_index_from_encoded_chunks,
};

use super::manifest::{FileEntry, NamedFile, PlaidEntry};
use super::mapped::Mapped;
use super::segment::Segment;
use super::snapshot::{Place, Selection};
use super::{Bits, Check, IndexError, Result, Scores, SearchOptions};

/// With fewer documents or vectors than these there is nothing to cluster.
pub(super) const MIN_DOCUMENTS: usize = 128;
const MIN_ROWS: usize = 1024;

/// Bytes of vectors that clusters are made from.
const SAMPLE_BYTES: usize = 128 << 20;

/// Rows compressed at a time.
const CHUNK_ROWS: usize = 1 << 15;

/// Compressed rows in a file.
const FILE_ROWS: usize = 1 << 21;

/// Fewest candidates whose stored vectors are looked at.
const MIN_RESCORED: usize = 64;

/// Files that say when others were written, and so differ in every copy of an index.
const UNCHECKED_ENDINGS: [&str; 2] = [".manifest.json", ".lock"];

/// The compressed form of some segments.
pub(super) struct Base {
    entry: PlaidEntry,
    folder: PathBuf,
    index: MmapIndex,
    /// Where each of its documents is.
    places: Vec<Place>,
    /// Which segments of the index are in here, by their places.
    segments: Vec<usize>,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base")
            .field("folder", &self.folder)
            .field("documents", &self.places.len())
            .finish_non_exhaustive()
    }
}

impl Base {
    pub(super) fn open(
        folder: &Path,
        entry: &PlaidEntry,
        segments: &[Arc<Segment>],
        dim: usize,
        check: Check,
    ) -> Result<Self> {
        let folder = folder.join(&entry.directory);
        for file in &entry.files {
            Mapped::open(folder.join(&file.name), &file.file, check)?;
        }
        let damaged = |detail: String| IndexError::damaged(&folder, detail);
        let Some(at) = positions(&entry.segments, segments) else {
            return Err(damaged(
                "a segment it was made from is not there".to_owned(),
            ));
        };
        let places = places(&at, segments);
        let index = load(&folder)?;
        let facts = [
            ("documents", places.len(), index.num_documents()),
            ("documents in the manifest", places.len(), entry.documents),
            ("dimensions", dim, index.embedding_dim()),
            ("bits", entry.bits.get(), index.metadata.nbits),
        ];
        if let Some((what, expected, found)) = facts.iter().find(|(_, a, b)| a != b) {
            return Err(damaged(format!(
                "{what}: expected {expected}, found {found}"
            )));
        }
        let rows: usize = places
            .iter()
            .map(|p| segments[p.segment].rows_of(p.document).len())
            .sum();
        if index.mmap_codes.len() < rows || index.mmap_residuals.nrows() < rows {
            return Err(damaged(format!("fewer than {rows} compressed vectors")));
        }
        Ok(Self {
            entry: entry.clone(),
            folder,
            index,
            places,
            segments: at,
        })
    }

    pub(super) fn entry(&self) -> &PlaidEntry {
        &self.entry
    }

    /// Whether the segments are still where they were.
    pub(super) fn fits(&self, segments: &[Arc<Segment>]) -> bool {
        positions(&self.entry.segments, segments).is_some_and(|at| at == self.segments)
    }

    /// Whether a segment of the index is in here. Documents without vectors are in no cluster all the
    /// same.
    pub(super) fn covers(&self, segment: usize) -> bool {
        self.segments.binary_search(&segment).is_ok()
    }

    /// Candidates of a selection with the scores of their compressed vectors, best first: as many as
    /// the options ask for, or some more when the stored vectors are going to decide.
    pub(super) fn search(
        &self,
        query: MatRef<'_, f32>,
        options: &SearchOptions,
        selection: &Selection,
    ) -> Result<Vec<(Place, f32)>> {
        let k = match options.plaid.scores {
            Scores::Stored => options.k.saturating_mul(2).max(MIN_RESCORED),
            Scores::Compressed => options.k,
        };
        let others = self
            .places
            .iter()
            .filter(|&&place| !selection.has(place))
            .count();
        let meant = self.places.len() - others;
        if query.rows() == 0 || (meant <= k && options.plaid.scores == Scores::Stored) {
            let meant = self.places.iter().filter(|&&place| selection.has(place));
            return Ok(meant.map(|&place| (place, 0.0)).collect());
        }
        if options.filter.is_none() || others <= k {
            let mut found = self.ask(query, options, k + others, None)?;
            found.retain(|(place, _)| selection.has(*place));
            found.truncate(k);
            return Ok(found);
        }
        let numbered = self.places.iter().enumerate();
        let meant = numbered.filter(|(_, place)| selection.has(**place));
        let meant: Vec<i64> = meant.map(|(number, _)| number as i64).collect();
        self.ask(query, options, k, Some(&meant))
    }

    fn place(&self, number: i64) -> Option<Place> {
        let number = usize::try_from(number).ok()?;
        self.places.get(number).copied()
    }

    fn ask(
        &self,
        query: MatRef<'_, f32>,
        options: &SearchOptions,
        k: usize,
        subset: Option<&[i64]>,
    ) -> Result<Vec<(Place, f32)>> {
        let rows = (0..query.rows()).flat_map(|row| query.row(row).iter().copied());
        let shape = (query.rows(), query.cols());
        let query = matrix(shape, rows.collect())?;
        let parameters = SearchParameters {
            top_k: k,
            n_ivf_probe: options.plaid.probes.max(1),
            n_full_scores: options.plaid.candidates.max(k.saturating_mul(4)),
            centroid_score_threshold: options.plaid.threshold,
            ..SearchParameters::default()
        };
        let found = self.index.search(&query, &parameters, subset);
        let found = found.map_err(|error| failed(&self.folder, error))?;
        let found = found.passage_ids.iter().zip(found.scores);
        Ok(found
            .filter_map(|(&number, score)| Some((self.place(number)?, score)))
            .collect())
    }
}

/// Whether the segments have enough to cluster.
pub(super) fn is_possible(segments: &[Arc<Segment>]) -> bool {
    let lengths = segments.iter().flat_map(|segment| {
        (0..segment.documents()).map(move |document| segment.rows_of(document).len())
    });
    let (documents, rows) = lengths.fold((0, 0), |(documents, rows), length| {
        (documents + usize::from(length > 0), rows + length)
    });
    documents >= MIN_DOCUMENTS && rows >= MIN_ROWS
}

/// Makes the compressed form of all segments in `folder/directory`.
///
/// Memory: the sample twice, a chunk of vectors, and all compressed vectors with their clusters and
/// the lists of documents by cluster.
pub(super) fn build(
    folder: &Path,
    directory: String,
    bits: Bits,
    segments: &[Arc<Segment>],
    dim: usize,
) -> Result<PlaidEntry> {
    let target = folder.join(&directory);
    std::fs::create_dir_all(&target).map_err(IndexError::io(&target))?;
    let all: Vec<usize> = (0..segments.len()).collect();
    let places = places(&all, segments);
    let source = Source {
        segments,
        places: &places,
        dim,
    };
    let config = IndexConfig {
        nbits: bits.get(),
        force_cpu: true,
        // Raw vectors are the segments' business.
        start_from_scratch: 0,
        ..IndexConfig::default()
    };
    let wrong = |error| failed(&target, error);
    let (sample, held_out) = source.sample()?;
    let clusters = source.clusters(sample.nrows());
    let centroids = compute_centroids(
        &sample.view(),
        clusters,
        Some(default_config(clusters)),
        true,
    );
    drop(sample);
    let artifacts =
        prepare_codec_artifacts(&held_out, centroids.map_err(wrong)?, &config).map_err(wrong)?;
    drop(held_out);
    let chunks = source
        .compress(&artifacts.codec)
        .map_err(|error| match error {
            Compress::Index(error) => error,
            Compress::Plaid(error) => wrong(error),
        })?;
    let path = utf8(&target)?;
    write_index_from_encoded_chunks(&chunks, &artifacts, path, &config).map_err(wrong)?;
    drop(chunks);
    // Opening it for the first time joins the chunks into the files that are searched.
    drop(load(&target)?);
    Ok(PlaidEntry {
        directory,
        bits,
        segments: segments.iter().map(|s| s.name().to_owned()).collect(),
        documents: places.len(),
        files: files(&target)?,
    })
}

/// The documents that are to be compressed.
struct Source<'a> {
    segments: &'a [Arc<Segment>],
    places: &'a [Place],
    dim: usize,
}

enum Compress {
    Index(IndexError),
    Plaid(next_plaid::Error),
}

impl Source<'_> {
    fn rows(&self, place: Place) -> usize {
        self.segments[place.segment].rows_of(place.document).len()
    }

    fn total_rows(&self) -> usize {
        self.places.iter().map(|&place| self.rows(place)).sum()
    }

    /// As many clusters as the paper's authors use, a power of two near 16 times the root of the number
    /// of vectors, but not so many that the sample has fewer than eight vectors for each.
    fn clusters(&self, sample: usize) -> usize {
        let wanted = 16.0 * (self.total_rows() as f64).sqrt();
        let most = (sample / 8).max(1).ilog2();
        1 << (wanted.log2().floor() as u32).min(most)
    }

    fn vectors(&self, place: Place) -> Result<Array2<f32>> {
        let vectors = self.segments[place.segment].vectors_of(place.document);
        matrix((vectors.rows(), self.dim), vectors.values)
    }

    /// Vectors to cluster, and documents of others to see how far vectors are from their cluster.
    ///
    /// Both are spread over the whole index. Every twentieth document is held out, but no fewer than
    /// 32 and no more than are of use.
    fn sample(&self) -> Result<(Array2<f32>, Vec<Array2<f32>>)> {
        const HELD_OUT_ROWS: usize = 1 << 17;
        let count = self.places.len();
        let every = (count / (count / 20).max(32)).max(2);
        let bytes = self.total_rows() * self.dim * size_of::<f32>();
        let thinning = bytes.div_ceil(SAMPLE_BYTES).max(1);
        let (mut held_out, mut held_out_rows) = (Vec::new(), 0);
        let (mut sample, mut kept) = (Vec::new(), 0);
        for (number, &place) in self.places.iter().enumerate() {
            if number % every == every / 2 {
                if held_out_rows < HELD_OUT_ROWS {
                    held_out_rows += self.rows(place);
                    held_out.push(self.vectors(place)?);
                }
                continue;
            }
            if kept % thinning == 0 {
                let vectors = self.segments[place.segment].vectors_of(place.document);
                sample.extend_from_slice(vectors.as_slice());
            }
            kept += 1;
        }
        let rows = sample.len() / self.dim;
        Ok((matrix((rows, self.dim), sample)?, held_out))
    }

    fn compress(
        &self,
        codec: &ResidualCodec,
    ) -> std::result::Result<Vec<EncodedIndexChunk>, Compress> {
        let mut files = Vec::new();
        let mut file = Collected::default();
        let mut chunk = Vec::new();
        let mut rows = 0;
        for (number, &place) in self.places.iter().enumerate() {
            chunk.push(self.vectors(place).map_err(Compress::Index)?);
            rows += self.rows(place);
            let last = number + 1 == self.places.len();
            if rows >= CHUNK_ROWS || last {
                let encoded = encode_index_chunk(&chunk, codec, true, false);
                file.append(encoded.map_err(Compress::Plaid)?);
                chunk.clear();
                rows = 0;
            }
            if file.codes.len() >= FILE_ROWS || last {
                let done = std::mem::take(&mut file).finish();
                files.push(done.map_err(Compress::Index)?);
            }
        }
        Ok(files)
    }
}

/// Encoded chunks, one after another.
#[derive(Default)]
struct Collected {
    codes: Vec<i64>,
    residuals: Vec<u8>,
    lengths: Vec<i64>,
}

impl Collected {
    fn append(&mut self, chunk: EncodedIndexChunk) {
        self.codes.extend(chunk.codes);
        self.residuals.extend(chunk.residuals);
        self.lengths.extend(chunk.doclens);
    }

    fn finish(self) -> Result<EncodedIndexChunk> {
        let rows = self.codes.len();
        let shape = (rows, self.residuals.len() / rows.max(1));
        Ok(EncodedIndexChunk {
            codes: Array1::from_vec(self.codes),
            residuals: matrix(shape, self.residuals)?,
            doclens: self.lengths,
        })
    }
}

/// Where segments of these names are.
fn positions(names: &[String], segments: &[Arc<Segment>]) -> Option<Vec<usize>> {
    let numbered = segments.iter().enumerate();
    let by_name: HashMap<&str, usize> = numbered.map(|(at, s)| (s.name(), at)).collect();
    names
        .iter()
        .map(|name| by_name.get(name.as_str()).copied())
        .collect()
}

/// The documents of these segments that have vectors, which is the order of the compressed form.
fn places(at: &[usize], segments: &[Arc<Segment>]) -> Vec<Place> {
    let all = at.iter().flat_map(|&segment| {
        let documents = 0..segments[segment].documents();
        documents.map(move |document| Place { segment, document })
    });
    all.filter(|place| !segments[place.segment].rows_of(place.document).is_empty())
        .collect()
}

fn matrix<T>(shape: (usize, usize), values: Vec<T>) -> Result<Array2<T>> {
    Array2::from_shape_vec(shape, values)
        .map_err(|error| IndexError::InvalidInput(format!("matrix of {shape:?}: {error}")))
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| IndexError::Unsupported {
        what: format!("plaid in the folder {}", path.display()),
        hint: "its name has to be utf-8; use the exact engine".to_owned(),
    })
}

fn failed(folder: &Path, error: next_plaid::Error) -> IndexError {
    IndexError::Plaid {
        path: folder.to_owned(),
        source: Box::new(error),
    }
}

fn load(folder: &Path) -> Result<MmapIndex> {
    MmapIndex::load(utf8(folder)?).map_err(|error| failed(folder, error))
}

/// Waits until all files are on the disk, and notes what is in them.
fn files(folder: &Path) -> Result<Vec<NamedFile>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(IndexError::io(folder))? {
        let path = entry.map_err(IndexError::io(folder))?.path();
        let opened = File::open(&path).and_then(|file| {
            file.sync_all()?;
            file.metadata()
        });
        let bytes = opened.map_err(IndexError::io(&path))?.len();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if UNCHECKED_ENDINGS
            .iter()
            .any(|ending| name.ends_with(ending))
        {
            continue;
        }
        let whole = FileEntry { bytes, crc32: 0 };
        let mapped = Mapped::open(path.clone(), &whole, Check::Lengths)?;
        files.push(NamedFile {
            name: name.to_owned(),
            file: FileEntry {
                bytes,
                crc32: crc32fast::hash(mapped.bytes()),
            },
        });
    }
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
        tracing::debug!(folder = %folder.display(), %error, "could not sync the folder");
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}
