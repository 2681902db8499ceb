//! The manifest: the one file that says which other files belong to an index.

use std::io::Write;
use std::path::{Path, PathBuf};

use lfm2_hub::{Overwrite, write_atomic};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Bits, Engine, IndexError, Result};

/// Its name.
pub(super) const FILE: &str = "index.json";
/// Changes whenever files of older versions can no longer be read.
const VERSION: u64 = 1;
const FORMAT: &str = "lfm2-index";
/// More than the manifest of any index takes.
const MAX_BYTES: u64 = 256 << 20;

/// One state of an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// Counts the commits.
    pub(super) generation: u64,
    pub(super) model: String,
    pub(super) dim: usize,
    pub(super) engine: Engine,
    pub(super) segments: Vec<SegmentEntry>,
    pub(super) plaid: Option<PlaidEntry>,
}

/// A pair of files with documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SegmentEntry {
    /// Both files' names without their endings.
    pub(super) name: String,
    pub(super) documents: usize,
    pub(super) rows: usize,
    pub(super) vectors: FileEntry,
    pub(super) records: FileEntry,
    /// Documents that are no longer there, in ascending order.
    pub(super) deleted: Vec<usize>,
}

/// What a file must be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileEntry {
    pub(super) bytes: u64,
    pub(super) crc32: u32,
}

/// A folder with the compressed form of some segments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlaidEntry {
    pub(super) directory: String,
    pub(super) bits: Bits,
    /// The segments it was made from, in order.
    pub(super) segments: Vec<String>,
    /// Their documents that have vectors.
    pub(super) documents: usize,
    pub(super) files: Vec<NamedFile>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedFile {
    pub(super) name: String,
    pub(super) file: FileEntry,
}

/// What is around the manifest in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<M> {
    format: String,
    version: u64,
    /// Of the manifest, written without white space.
    crc32: u32,
    manifest: M,
}

pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

impl Manifest {
    pub(super) fn new(model: String, dim: usize, engine: Engine) -> Self {
        Self {
            generation: 0,
            model,
            dim,
            engine,
            segments: Vec::new(),
            plaid: None,
        }
    }

    /// Reads and checks the manifest of `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = path(folder);
        let missing = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                IndexError::from(lfm2_hub::Error::NotFound {
                    what: format!("index {}", folder.display()),
                    hint: "build it first".to_owned(),
                })
            }
            _ => IndexError::io(&path)(source),
        };
        let length = std::fs::metadata(&path).map_err(missing)?.len();
        if length > MAX_BYTES {
            return Err(lfm2_hub::Error::Limit {
                what: format!("{}: bytes of a manifest", path.display()),
                limit: MAX_BYTES,
                found: length,
            }
            .into());
        }
        let text = std::fs::read(&path).map_err(IndexError::io(&path))?;
        let manifest = parse(&path, &text)?;
        manifest
            .check()
            .map_err(|detail| IndexError::damaged(&path, detail))?;
        Ok(manifest)
    }

    /// Replaces the manifest of `folder`: the moment a change happens.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = path(folder);
        let internal = |error: serde_json::Error| IndexError::io(&path)(error.into());
        let manifest = serde_json::to_value(self).map_err(internal)?;
        let envelope = Envelope {
            format: FORMAT.to_owned(),
            version: VERSION,
            crc32: crc32fast::hash(manifest.to_string().as_bytes()),
            manifest,
        };
        let mut text = serde_json::to_vec_pretty(&envelope).map_err(internal)?;
        text.push(b'\n');
        write_atomic(&path, Overwrite::Replace, |file| {
            file.write_all(&text)
                .map_err(|source| lfm2_hub::Error::io(&path, source))
        })?;
        Ok(())
    }

    /// Whether `name`, of a file or folder beside the manifest, belongs to this state.
    pub(super) fn names(&self, name: &str) -> bool {
        let stem = name
            .strip_suffix(VECTORS_ENDING)
            .or_else(|| name.strip_suffix(RECORDS_ENDING));
        let segment = self.segments.iter().any(|s| Some(s.name.as_str()) == stem);
        segment || self.plaid.as_ref().is_some_and(|p| p.directory == name)
    }

    /// What the format asks for beyond types.
    fn check(&self) -> std::result::Result<(), String> {
        let mut names = std::collections::HashSet::new();
        for segment in &self.segments {
            let name = &segment.name;
            if !is_own_name(name, SEGMENT_PREFIX) || !names.insert(name) {
                return Err(format!("{name:?} cannot be the name of a segment here"));
            }
            let ascending = segment.deleted.is_sorted_by(|a, b| a < b);
            let last = segment.deleted.last();
            if !ascending || last.is_some_and(|&last| last >= segment.documents) {
                return Err(format!(
                    "{name}: \"deleted\" is not a list of its documents"
                ));
            }
        }
        let Some(plaid) = &self.plaid else {
            return Ok(());
        };
        if !is_own_name(&plaid.directory, PLAID_PREFIX) {
            return Err(format!("{:?} cannot be a plaid folder", plaid.directory));
        }
        if let Some(file) = plaid.files.iter().find(|f| !is_plain_name(&f.name)) {
            return Err(format!("{:?} cannot be a file of plaid", file.name));
        }
        match plaid.segments.iter().find(|name| !names.contains(name)) {
            Some(name) => Err(format!("plaid was made from {name:?}, which is not there")),
            None => Ok(()),
        }
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<Manifest> {
    let damaged = |detail: String| IndexError::damaged(path, detail);
    let value: Value = serde_json::from_slice(text)
        .map_err(|error| damaged(format!("not a manifest of an index: {error}")))?;
    // Before anything else, so that other versions may look different.
    let (format, version) = (value.get("format"), value.get("version"));
    let Some(version) = version.and_then(Value::as_u64) else {
        return Err(damaged("\"version\" is not a number".to_owned()));
    };
    if format.and_then(Value::as_str) != Some(FORMAT) {
        return Err(damaged(format!("\"format\" is not {FORMAT:?}")));
    }
    if version != VERSION {
        return Err(IndexError::Version {
            path: path.to_owned(),
            expected: VERSION,
            found: version,
        });
    }
    let envelope: Envelope<Value> =
        serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
    let found = crc32fast::hash(envelope.manifest.to_string().as_bytes());
    if found != envelope.crc32 {
        return Err(damaged(format!(
            "checksum: expected {}, found {found}",
            envelope.crc32
        )));
    }
    serde_json::from_value(envelope.manifest).map_err(|error| damaged(error.to_string()))
}

pub(super) const SEGMENT_PREFIX: &str = "segment-";
pub(super) const PLAID_PREFIX: &str = "plaid-";
pub(super) const VECTORS_ENDING: &str = ".safetensors";
pub(super) const RECORDS_ENDING: &str = ".jsonl";
/// The ending of what is being written.
pub(super) const TEMPORARY_ENDING: &str = ".tmp";

/// Whether a name can only mean something directly inside a folder, on every system.
fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && name.len() < 200 && !name.starts_with('.') && name.chars().all(plain)
}

fn is_own_name(name: &str, prefix: &str) -> bool {
    name.starts_with(prefix) && is_plain_name(name) && !name.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let file = FileEntry { bytes: 1, crc32: 2 };
        let segment = SegmentEntry {
            name: "segment-1-0".to_owned(),
            documents: 3,
            rows: 5,
            vectors: file,
            records: file,
            deleted: vec![0, 2],
        };
        Manifest {
            segments: vec![segment],
            plaid: Some(PlaidEntry {
                directory: "plaid-1".to_owned(),
                bits: Bits::Two,
                segments: vec!["segment-1-0".to_owned()],
                documents: 3,
                files: vec![NamedFile {
                    name: "0.codes.npy".to_owned(),
                    file,
                }],
            }),
            ..Manifest::new("m".to_owned(), 4, Engine::Plaid(Bits::Two))
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        manifest().write(folder.path()).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), manifest());
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        manifest().write(folder.path()).unwrap();
        let path = path(folder.path());
        let text = std::fs::read(&path).unwrap();
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            let result = parse(&path, &changed);
            // White space between values means nothing.
            assert!(
                result.is_err()
                    || (text[at].is_ascii_whitespace() && result.unwrap() == manifest()),
                "byte {at}"
            );
        }
    }

    #[test]
    fn names_lead_nowhere_else() {
        let breaks: [fn(&mut Manifest); 8] = [
            |m| m.segments[0].name = "../segment-1".to_owned(),
            |m| m.segments[0].name = "segment-/x".to_owned(),
            |m| m.segments.push(m.segments[0].clone()),
            |m| m.segments[0].deleted = vec![2, 0],
            |m| m.segments[0].deleted = vec![3],
            |m| m.plaid.as_mut().unwrap().directory = "plaid-..".to_owned(),
            |m| m.plaid.as_mut().unwrap().files[0].name = "..".to_owned(),
            |m| m.plaid.as_mut().unwrap().segments[0] = "segment-2".to_owned(),
        ];
        assert!(manifest().check().is_ok());
        for (number, break_it) in breaks.iter().enumerate() {
            let mut broken = manifest();
            break_it(&mut broken);
            assert!(broken.check().is_err(), "case {number}");
        }
    }
}
