//! Segments: some documents in two files that never change.
//!
//! The vectors are a safetensors file with three tensors: `vectors` (F16, rows x dim), and where each
//! document begins among the rows (`row_starts`) and in the bytes of the records (`record_starts`),
//! both I64 with one number more than there are documents. The records are lines of json.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;
use lfm2_kernels::MatRef;
use serde::Deserialize;
use serde_json::json;

use super::manifest::{FileEntry, RECORDS_ENDING, SegmentEntry, TEMPORARY_ENDING, VECTORS_ENDING};
use super::mapped::{Mapped, as_f16};
use super::{Check, Document, IndexError, Result, StoredVectors};

/// Where the numbers begin: the header's length and the header, filled up with blanks.
const DATA_START: usize = 512;

/// Bytes collected before they are written.
const BUFFER: usize = 1 << 18;

/// A segment that can be read.
#[derive(Debug)]
pub(super) struct Segment {
    #[cfg(feature = "plaid")]
    name: String,
    dim: usize,
    /// One for each document, and the end.
    row_starts: Vec<usize>,
    /// In the bytes of the records.
    record_starts: Vec<usize>,
    vectors: Mapped,
    /// In the bytes of the vectors.
    numbers: Range<usize>,
    records: Mapped,
}

impl Segment {
    pub(super) fn open(
        folder: &Path,
        entry: &SegmentEntry,
        dim: usize,
        check: Check,
    ) -> Result<Self> {
        let file = |ending: &str| folder.join(format!("{}{ending}", entry.name));
        let vectors = Mapped::open(file(VECTORS_ENDING), &entry.vectors, check)?;
        let records = Mapped::open(file(RECORDS_ENDING), &entry.records, check)?;
        let damaged = |detail: String| IndexError::damaged(vectors.path(), detail);
        let header = Header::read(&vectors)?;
        header.vectors.check("F16", &[entry.rows, dim], &vectors)?;
        let numbers = header.vectors.range(&vectors)?;
        let row_starts = header.row_starts.starts(entry.documents, &vectors)?;
        if row_starts.last() != Some(&entry.rows) {
            return Err(damaged(
                "\"row_starts\" does not end with the rows".to_owned(),
            ));
        }
        let record_starts = header.record_starts.starts(entry.documents, &vectors)?;
        if record_starts.last() != Some(&records.bytes().len()) {
            return Err(damaged(
                "\"record_starts\" does not end with the records".to_owned(),
            ));
        }
        let values = vectors.bytes().get(numbers.clone()).and_then(as_f16);
        if values.map(<[f16]>::len) != entry.rows.checked_mul(dim) {
            return Err(damaged("\"vectors\" cannot be used in place".to_owned()));
        }
        Ok(Self {
            #[cfg(feature = "plaid")]
            name: entry.name.clone(),
            dim,
            row_starts,
            record_starts,
            vectors,
            numbers,
            records,
        })
    }

    #[cfg(feature = "plaid")]
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn documents(&self) -> usize {
        self.row_starts.len() - 1
    }

    /// Which rows are a document's.
    pub(super) fn rows_of(&self, document: usize) -> Range<usize> {
        self.row_starts[document]..self.row_starts[document + 1]
    }

    /// All rows `(rows, dim)`.
    pub(super) fn rows(&self) -> Result<MatRef<'_, f16>> {
        let values = as_f16(&self.vectors.bytes()[self.numbers.clone()]).unwrap_or_default();
        let rows = self.row_starts.last().copied().unwrap_or(0);
        Ok(MatRef::new(values, rows, self.dim)?)
    }

    /// The rows of a document, widened.
    pub(super) fn vectors_of(&self, document: usize) -> StoredVectors {
        let values = as_f16(&self.vectors.bytes()[self.numbers.clone()]).unwrap_or_default();
        let rows = self.rows_of(document);
        let values = values[rows.start * self.dim..rows.end * self.dim].to_f32_vec();
        StoredVectors {
            values,
            dim: self.dim,
        }
    }

    pub(super) fn document(&self, document: usize) -> Result<Document> {
        self.record(document)
    }

    /// The id alone, which is quicker than the whole document.
    pub(super) fn id(&self, document: usize) -> Result<String> {
        #[derive(Deserialize)]
        struct Id {
            id: String,
        }
        Ok(self.record::<Id>(document)?.id)
    }

    fn record<'a, T: Deserialize<'a>>(&'a self, document: usize) -> Result<T> {
        let range = self.record_starts[document]..self.record_starts[document + 1];
        serde_json::from_slice(&self.records.bytes()[range]).map_err(|error| {
            IndexError::damaged(
                self.records.path(),
                format!("line {}: {error}", document + 1),
            )
        })
    }
}

/// The header of a file of vectors.
#[derive(Debug, Deserialize)]
struct Header {
    vectors: Tensor,
    row_starts: Tensor,
    record_starts: Tensor,
}

#[derive(Debug, Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

impl Header {
    fn read(file: &Mapped) -> Result<Self> {
        let damaged = |detail: String| IndexError::damaged(file.path(), detail);
        let bytes = file.bytes().get(..DATA_START);
        let bytes = bytes.ok_or_else(|| damaged("shorter than its header".to_owned()))?;
        let (length, text) = bytes.split_at(8);
        if length != ((DATA_START - 8) as u64).to_le_bytes() {
            return Err(damaged(format!(
                "the header is not {DATA_START} bytes long"
            )));
        }
        serde_json::from_slice(text).map_err(|error| damaged(format!("header: {error}")))
    }
}

impl Tensor {
    fn check(&self, dtype: &str, shape: &[usize], file: &Mapped) -> Result<()> {
        if self.dtype == dtype && self.shape == shape {
            return Ok(());
        }
        let (found_type, found) = (&self.dtype, &self.shape);
        let detail = format!("expected {dtype} {shape:?}, found {found_type} {found:?}");
        Err(IndexError::damaged(file.path(), detail))
    }

    /// Where its bytes are in the file.
    fn range(&self, file: &Mapped) -> Result<Range<usize>> {
        let [start, end] = self.data_offsets;
        let range = start
            .checked_add(DATA_START)
            .zip(end.checked_add(DATA_START));
        range
            .filter(|&(start, end)| start <= end && end <= file.bytes().len())
            .map(|(start, end)| start..end)
            .ok_or_else(|| IndexError::damaged(file.path(), "\"data_offsets\" outside the file"))
    }

    /// Where documents start, and the end of the last one.
    fn starts(&self, documents: usize, file: &Mapped) -> Result<Vec<usize>> {
        let damaged = |detail: &str| IndexError::damaged(file.path(), detail);
        self.check("I64", &[documents + 1], file)?;
        let bytes = &file.bytes()[self.range(file)?];
        if bytes.len() != 8 * (documents + 1) {
            return Err(damaged("starts of documents of another length"));
        }
        let number = |bytes: &[u8]| {
            let bytes = bytes.try_into().ok()?;
            usize::try_from(i64::from_le_bytes(bytes)).ok()
        };
        let starts: Option<Vec<usize>> = bytes.chunks_exact(8).map(number).collect();
        starts
            .filter(|starts| starts.is_sorted() && starts.first() == Some(&0))
            .ok_or_else(|| damaged("starts of documents that do not ascend from 0"))
    }
}

/// A file that is written from start to end, with a checksum.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: crc32fast::Hasher,
    bytes: u64,
}

impl Output {
    fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).map_err(IndexError::io(&path))?;
        Ok(Self {
            file: BufWriter::with_capacity(BUFFER, file),
            path,
            hasher: crc32fast::Hasher::new(),
            bytes: 0,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(IndexError::io(&self.path))?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Waits until the file is on the disk.
    fn sync(&mut self) -> Result<()> {
        let flushed = self.file.flush();
        flushed
            .and_then(|()| self.file.get_ref().sync_all())
            .map_err(IndexError::io(&self.path))
    }
}

/// A segment that is being written. Dropped unfinished, its files go.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    folder: PathBuf,
    name: String,
    dim: usize,
    vectors: Output,
    records: Output,
    row_starts: Vec<usize>,
    record_starts: Vec<u64>,
    deleted: Vec<usize>,
    /// The half-precision numbers of one document, and their bytes.
    halves: Vec<f16>,
    bytes: Vec<u8>,
    finished: bool,
}

impl SegmentWriter {
    pub(super) fn create(folder: &Path, name: String, dim: usize) -> Result<Self> {
        let path = |ending| folder.join(format!("{name}{ending}{TEMPORARY_ENDING}"));
        let mut vectors = Output::create(path(VECTORS_ENDING))?;
        let records = Output::create(path(RECORDS_ENDING))?;
        // The header is written last, when the sizes are known, and hashed then.
        let blank = [b' '; DATA_START];
        let written = vectors.file.write_all(&blank);
        written.map_err(IndexError::io(&vectors.path))?;
        Ok(Self {
            folder: folder.to_owned(),
            name,
            dim,
            vectors,
            records,
            row_starts: vec![0],
            record_starts: vec![0],
            deleted: Vec::new(),
            halves: Vec::new(),
            bytes: Vec::new(),
            finished: false,
        })
    }

    pub(super) fn documents(&self) -> usize {
        self.row_starts.len() - 1
    }

    /// Bytes of vectors so far.
    pub(super) fn vector_bytes(&self) -> u64 {
        self.vectors.bytes
    }

    /// Appends a document whose vectors are finite in half precision, and gives its number.
    pub(super) fn push(&mut self, document: &Document, rows: MatRef<'_, f32>) -> Result<usize> {
        let mut line = serde_json::to_vec(document)
            .map_err(|error| IndexError::io(&self.records.path)(error.into()))?;
        line.push(b'\n');
        self.records.write(&line)?;
        self.bytes.clear();
        self.halves.resize(self.dim, f16::ZERO);
        for row in 0..rows.rows() {
            self.halves.convert_from_f32_slice(rows.row(row));
            for half in &self.halves {
                self.bytes.extend_from_slice(&half.to_le_bytes());
            }
        }
        self.vectors.write(&self.bytes)?;
        let rows = self
            .row_starts
            .last()
            .map_or(0, |start| start + rows.rows());
        self.row_starts.push(rows);
        self.record_starts.push(self.records.bytes);
        Ok(self.documents() - 1)
    }

    /// Takes a document that was pushed back.
    pub(super) fn delete(&mut self, document: usize) {
        if let Err(at) = self.deleted.binary_search(&document) {
            self.deleted.insert(at, document);
        }
    }

    /// Completes both files and gives them their names.
    pub(super) fn finish(mut self) -> Result<SegmentEntry> {
        let rows = self.row_starts.last().copied().unwrap_or(0);
        let documents = self.documents();
        let vector_bytes = self.vectors.bytes;
        let table_bytes = 8 * (documents as u64 + 1);
        let row_starts = std::mem::take(&mut self.row_starts);
        for start in &row_starts {
            self.vectors.write(&(*start as u64).to_le_bytes())?;
        }
        for start in &self.record_starts {
            self.vectors.write(&start.to_le_bytes())?;
        }
        let table = |first: u64| {
            let start = vector_bytes + first * table_bytes;
            json!({"dtype": "I64", "shape": [documents + 1], "data_offsets": [start, start + table_bytes]})
        };
        let header = json!({
            "vectors": {"dtype": "F16", "shape": [rows, self.dim], "data_offsets": [0, vector_bytes]},
            "row_starts": table(0),
            "record_starts": table(1),
        });
        let vectors = self.write_header(&header.to_string())?;
        self.records.sync()?;
        let records = FileEntry {
            bytes: self.records.bytes,
            crc32: self.records.hasher.clone().finalize(),
        };
        for (output, ending) in [
            (&self.vectors, VECTORS_ENDING),
            (&self.records, RECORDS_ENDING),
        ] {
            let path = self.folder.join(format!("{}{ending}", self.name));
            std::fs::rename(&output.path, &path).map_err(IndexError::io(&path))?;
        }
        self.finished = true;
        Ok(SegmentEntry {
            name: std::mem::take(&mut self.name),
            documents,
            rows,
            vectors,
            records,
            deleted: std::mem::take(&mut self.deleted),
        })
    }

    /// Puts the header where room was left for it.
    fn write_header(&mut self, text: &str) -> Result<FileEntry> {
        let mut header = Vec::with_capacity(DATA_START);
        header.extend_from_slice(&((DATA_START - 8) as u64).to_le_bytes());
        header.extend_from_slice(text.as_bytes());
        header.resize(DATA_START.max(header.len()), b' ');
        if header.len() > DATA_START {
            return Err(IndexError::Unsupported {
                what: format!("a segment of {} bytes", self.vectors.bytes),
                hint: "commit more often".to_owned(),
            });
        }
        let output = &mut self.vectors;
        let written = output.file.seek(SeekFrom::Start(0));
        written
            .and_then(|_| output.file.write_all(&header))
            .map_err(IndexError::io(&output.path))?;
        output.sync()?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&header);
        hasher.combine(&output.hasher);
        Ok(FileEntry {
            bytes: output.bytes + DATA_START as u64,
            crc32: hasher.finalize(),
        })
    }
}

impl Drop for SegmentWriter {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed now is removed by the next writer.
            for output in [&self.vectors, &self.records] {
                let _ = std::fs::remove_file(&output.path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path) -> SegmentEntry {
        let mut writer = SegmentWriter::create(folder, "segment-1-0".to_owned(), 3).unwrap();
        let rows = [1.0, -0.5, 0.25, 2.0, 3.0, 1e-3_f32];
        let first = Document::new("a").with_field("x", 1);
        writer
            .push(&first, MatRef::new(&rows, 2, 3).unwrap())
            .unwrap();
        writer
            .push(&Document::new("b"), MatRef::new(&[], 0, 3).unwrap())
            .unwrap();
        writer
            .push(&Document::new("c"), MatRef::new(&rows[..3], 1, 3).unwrap())
            .unwrap();
        writer.delete(1);
        writer.finish().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let entry = write(folder.path());
        assert_eq!(
            (entry.documents, entry.rows, entry.deleted.clone()),
            (3, 3, vec![1])
        );
        let segment = Segment::open(folder.path(), &entry, 3, Check::Whole).unwrap();
        assert_eq!(segment.rows_of(0), 0..2);
        assert_eq!(segment.rows_of(1), 2..2);
        assert_eq!(segment.vectors_of(2).as_slice(), [1.0, -0.5, 0.25]);
        assert_eq!(segment.rows().unwrap().row(1)[2], f16::from_f32(1e-3));
        assert_eq!(segment.id(2).unwrap(), "c");
        assert_eq!(
            segment.document(0).unwrap(),
            Document::new("a").with_field("x", 1)
        );
    }

    #[test]
    fn vectors_are_an_ordinary_safetensors_file() {
        let folder = tempfile::tempdir().unwrap();
        let entry = write(folder.path());
        let bytes = std::fs::read(folder.path().join("segment-1-0.safetensors")).unwrap();
        assert_eq!(crc32fast::hash(&bytes), entry.vectors.crc32);
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let vectors = tensors.tensor("vectors").unwrap();
        assert_eq!(vectors.shape(), [3, 3]);
        assert_eq!(vectors.data()[..2], f16::ONE.to_le_bytes());
        assert_eq!(tensors.tensor("row_starts").unwrap().data()[8], 2);
    }

    #[test]
    fn an_unfinished_segment_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = SegmentWriter::create(folder.path(), "segment-1-0".to_owned(), 1).unwrap();
        writer
            .push(&Document::new("a"), MatRef::new(&[1.0], 1, 1).unwrap())
            .unwrap();
        drop(writer);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_header_that_lies_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let entry = write(folder.path());
        let path = folder.path().join("segment-1-0.safetensors");
        let good =
            String::from_utf8_lossy(&std::fs::read(&path).unwrap()[8..DATA_START]).into_owned();
        for (from, to) in [
            ("[3,3]", "[3,4]"),
            ("F16", "F32"),
            ("\"data_offsets\":[0,18]", "\"data_offsets\":[1,18]"),
            ("\"data_offsets\":[0,18]", "\"data_offsets\":[0,99999]"),
            ("\"data_offsets\":[18,50]", "\"data_offsets\":[26,58]"),
            ("\"shape\":[4]", "\"shape\":[5]"),
            ("row_starts", "row_star_s"),
            ("{", "x"),
        ] {
            let mut bytes = std::fs::read(&path).unwrap();
            let mut text = good.replacen(from, to, 1).into_bytes();
            assert_ne!(text, good.as_bytes(), "{from} is in the header");
            text.resize(DATA_START - 8, b' ');
            bytes[8..DATA_START].copy_from_slice(&text);
            std::fs::write(&path, &bytes).unwrap();
            let found = Segment::open(folder.path(), &entry, 3, Check::Lengths);
            assert!(
                found
                    .unwrap_err()
                    .to_string()
                    .contains("segment-1-0.safetensors"),
                "{to}"
            );
            bytes[8..DATA_START].copy_from_slice(good.as_bytes());
            std::fs::write(&path, &bytes).unwrap();
        }
    }
}
