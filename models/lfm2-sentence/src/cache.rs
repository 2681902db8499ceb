//! [`EmbeddingCache`]: vectors that were made before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use lfm2_hub::{
    Error as HubError, Limits, Mapping, Overwrite, Result as HubResult, SafetensorsSource,
    TensorSource, write_safetensors,
};
use sha2::{Digest, Sha256};

use crate::identity::{feed, hex};
use crate::site::{Site, SiteVectors};

/// Changes when the same texts and weights would give other vectors.
const VERSION: &str = "sentences 1";
const NAME: &str = "vectors";

/// A folder with the vectors of texts, one file for each list of texts and place in an encoder, named
/// after a hash of both and of everything else that vectors depend on. Files are safetensors with one
/// tensor, `vectors (texts, dims)`, and can be deleted at any time.
#[derive(Debug, Clone)]
pub struct EmbeddingCache {
    folder: PathBuf,
}

/// What the vectors of some texts depend on besides the place.
pub(crate) struct Key(Sha256);

impl Key {
    pub(crate) fn new<T: AsRef<str>>(encoder: &str, settings: &str, texts: &[T]) -> Self {
        let mut hash = Sha256::new();
        for fact in [VERSION, encoder, settings] {
            feed(&mut hash, fact.as_bytes());
        }
        for text in texts {
            feed(&mut hash, text.as_ref().as_bytes());
        }
        Self(hash)
    }

    fn at(&self, site: Site) -> String {
        let mut hash = self.0.clone();
        feed(&mut hash, site.to_string().as_bytes());
        hex(&hash.finalize())
    }
}

impl EmbeddingCache {
    /// A cache in `folder`, which is made when something is stored.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, key: &Key, site: Site) -> PathBuf {
        self.folder.join(format!("{}.safetensors", key.at(site)))
    }

    /// The vectors of `texts` texts, if they are there. A damaged file counts as none, with a word in the
    /// log: it is made again.
    pub(crate) fn load(&self, key: &Key, site: Site, texts: usize) -> Option<SiteVectors> {
        let path = self.path(key, site);
        if !path.is_file() {
            return None;
        }
        match read(&path, texts) {
            Ok((dims, values)) => Some(SiteVectors { site, dims, values }),
            Err(error) => {
                tracing::warn!(%error, "vectors that were kept cannot be read and are made again");
                None
            }
        }
    }

    /// Keeps vectors.
    ///
    /// # Errors
    /// When the folder or the file cannot be written.
    pub(crate) fn store(&self, key: &Key, vectors: &SiteVectors) -> HubResult<()> {
        let folder = &self.folder;
        std::fs::create_dir_all(folder).map_err(|source| HubError::io(folder, source))?;
        let rows = vectors.values.len() / vectors.dims.max(1);
        let tensor = Tensor::from_slice(&vectors.values, (rows, vectors.dims), &Device::Cpu)?;
        let path = self.path(key, vectors.site);
        write_safetensors(
            &path,
            [(NAME, &tensor)],
            &BTreeMap::new(),
            Overwrite::Replace,
        )
    }
}

fn read(path: &Path, texts: usize) -> HubResult<(usize, Vec<f32>)> {
    let source = SafetensorsSource::open(path, Mapping::Read, &Limits::default())?;
    let found = source.dense(NAME, DType::F32, &Device::Cpu)?;
    match found.dims() {
        &[rows, dims] if rows == texts && dims > 0 => Ok((dims, found.flatten_all()?.to_vec1()?)),
        found => {
            let detail = format!("tensor {NAME}: expected {texts} rows, found shape {found:?}");
            Err(HubError::invalid_file(path, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(site: Site) -> SiteVectors {
        SiteVectors {
            site,
            dims: 2,
            values: vec![1., 2., 3., 4., 5., 6.],
        }
    }

    #[test]
    fn what_was_kept_is_found_by_everything_it_depends_on() {
        let folder = tempfile::tempdir().unwrap();
        let cache = EmbeddingCache::new(folder.path().join("new"));
        let key = Key::new("model", "in", &["a", "b", "c"]);
        assert_eq!(cache.load(&key, Site::Final, 3), None);
        cache.store(&key, &vectors(Site::Final)).unwrap();
        assert_eq!(cache.load(&key, Site::Final, 3), Some(vectors(Site::Final)));
        assert_eq!(cache.load(&key, Site::Layer(1), 3), None);
        for other in [
            Key::new("other", "in", &["a", "b", "c"]),
            Key::new("model", "out", &["a", "b", "c"]),
            Key::new("model", "in", &["a", "bc"]),
            Key::new("model", "in", &["ab", "c"]),
        ] {
            assert_eq!(cache.load(&other, Site::Final, 3), None);
        }
    }

    #[test]
    fn damaged_files_count_as_none_and_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let cache = EmbeddingCache::new(folder.path());
        let key = Key::new("model", "", &["a", "b", "c"]);
        cache.store(&key, &vectors(Site::Final)).unwrap();
        assert_eq!(
            cache.load(&key, Site::Final, 4),
            None,
            "another number of texts"
        );
        std::fs::write(cache.path(&key, Site::Final), b"broken").unwrap();
        assert_eq!(cache.load(&key, Site::Final, 3), None);
        cache.store(&key, &vectors(Site::Final)).unwrap();
        assert!(cache.load(&key, Site::Final, 3).is_some());
    }
}
