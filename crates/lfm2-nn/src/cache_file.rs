//! Saving a [`Cache`] to a file and loading it again: a long prompt is read once.
//!
//! The file is safetensors: `row.N.fed` holds the token ids, `row.N.layer.M.{k,v}` the valid keys
//! and values, `row.N.layer.M.conv` the convolution state. It fits any model of the same layout; that
//! it was made by the same weights is up to the caller.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use lfm2_hub::{Error, Overwrite, Result, write_safetensors};
use safetensors::SafeTensors;

use crate::cache::{Fed, KvSlot};
use crate::{Cache, CacheLayout, LayerCache, LayerShape, Row};

const FORMAT: &str = "lfm2-cache";
const VERSION: &str = "1";
/// Stands for a position that was fed an embedding.
const EMBEDDING: u32 = u32::MAX;

impl Cache {
    /// Writes every row to `path`, completely or not at all; an existing file is replaced.
    ///
    /// # Errors
    /// When this cache is stateless or a row [forgot](Cache::forget) tokens, or the file cannot be
    /// written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let Some(rows) = self.all_rows() else {
            return Err(Error::InvalidInput(
                "a stateless cache has nothing to save".into(),
            ));
        };
        if let Some(row) = rows.iter().position(|row| row.forgotten > 0) {
            return Err(Error::InvalidInput(format!(
                "row {row} has forgotten its first tokens, it cannot be saved"
            )));
        }
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        for (r, row) in rows.iter().enumerate().filter(|(_, row)| !row.is_empty()) {
            let fed = row.fed.iter().map(|fed| {
                if let Fed::Id(id) = fed {
                    *id
                } else {
                    EMBEDDING
                }
            });
            tensors.push((
                format!("row.{r}.fed"),
                Tensor::from_iter(fed, &Device::Cpu)?,
            ));
            for (l, layer) in row.layers.iter().enumerate() {
                let name = |part: &str| format!("row.{r}.layer.{l}.{part}");
                match layer {
                    LayerCache::Kv(slot) => {
                        let valid = |t: &Tensor| t.narrow(1, 0, row.len())?.contiguous();
                        tensors.push((name("k"), valid(&slot.k)?));
                        tensors.push((name("v"), valid(&slot.v)?));
                    }
                    LayerCache::Conv(state) => tensors.push((name("conv"), state.clone())),
                }
            }
        }
        let metadata = [
            ("format", FORMAT.to_owned()),
            ("version", VERSION.to_owned()),
            ("rows", rows.len().to_string()),
            ("layout", describe(self.layout())),
        ];
        let metadata: BTreeMap<String, String> = metadata.map(|(k, v)| (k.to_owned(), v)).into();
        let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        write_safetensors(path.as_ref(), tensors, &metadata, Overwrite::Replace)
    }

    /// Replaces every row by those saved at `path`.
    ///
    /// # Errors
    /// When the file cannot be read, is no saved cache, or was saved from a model of another layout;
    /// this cache is unchanged then.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let file = SavedCache::parse(path, &bytes)?;
        let layout = describe(self.layout());
        if file.entry("layout")? != layout {
            let detail = format!(
                "expected a cache of layout {layout}, found {}",
                file.entry("layout")?
            );
            return Err(Error::invalid_file(path, detail));
        }
        let count = file
            .entry("rows")?
            .parse::<usize>()
            .ok()
            .filter(|&n| n <= 1 << 20);
        let Some(count) = count else {
            return Err(Error::invalid_file(path, "expected a number of rows"));
        };
        let rows = (0..count)
            .map(|row| self.load_row(&file, row))
            .collect::<Result<_>>()?;
        self.set_rows(rows);
        Ok(())
    }

    fn load_row(&self, file: &SavedCache<'_>, row: usize) -> Result<Row> {
        let name = format!("row.{row}.fed");
        if !file.has(&name) {
            return Ok(Row::new(Vec::new(), Vec::new()));
        }
        let ids: Vec<u32> = file
            .tensor(&name, None, DType::U32, &Device::Cpu)?
            .to_vec1()?;
        let fed = ids.iter().map(|&id| {
            if id == EMBEDDING {
                Fed::Embedding
            } else {
                Fed::Id(id)
            }
        });
        let layers = self.layout().layers.iter().enumerate();
        let layers = layers.map(|(l, shape)| {
            let part = |part: &str, shape: &[usize], dtype| {
                let name = format!("row.{row}.layer.{l}.{part}");
                file.tensor(&name, Some(shape), dtype, self.device())
            };
            Ok(match *shape {
                LayerShape::Kv { kv_heads, head_dim } => {
                    let shape = [kv_heads, ids.len(), head_dim];
                    let (k, v) = (
                        part("k", &shape, self.kv_dtype())?,
                        part("v", &shape, self.kv_dtype())?,
                    );
                    LayerCache::Kv(KvSlot { k, v })
                }
                LayerShape::Conv { channels, width } => {
                    LayerCache::Conv(part("conv", &[width, channels], self.dtype())?)
                }
            })
        });
        Ok(Row::new(layers.collect::<Result<_>>()?, fed.collect()))
    }
}

/// A saved cache in memory, checked as safetensors.
struct SavedCache<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    metadata: std::collections::HashMap<String, String>,
}

impl<'a> SavedCache<'a> {
    fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        let invalid = |e: safetensors::SafeTensorError| Error::invalid_file(path, e.to_string());
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let file = Self {
            path,
            tensors: SafeTensors::deserialize(bytes).map_err(invalid)?,
            metadata,
        };
        for (key, expected) in [("format", FORMAT), ("version", VERSION)] {
            let found = file.entry(key)?;
            if found != expected {
                return Err(Error::invalid_file(
                    path,
                    format!("expected {key} {expected}, found {found}"),
                ));
            }
        }
        Ok(file)
    }

    fn entry(&self, key: &str) -> Result<&str> {
        let missing = || Error::invalid_file(self.path, format!("not a saved cache: no {key}"));
        self.metadata
            .get(key)
            .map(String::as_str)
            .ok_or_else(missing)
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    fn tensor(
        &self,
        name: &str,
        shape: Option<&[usize]>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let view = self.tensors.tensor(name);
        let view = view.map_err(|_| Error::MissingTensor {
            name: name.to_owned(),
        })?;
        if let Some(expected) = shape
            && view.shape() != expected
        {
            let (expected, found) = (expected.to_vec(), view.shape().to_vec());
            return Err(Error::TensorShape {
                name: name.to_owned(),
                expected,
                found,
            });
        }
        Ok(view.load(device)?.to_dtype(dtype)?)
    }
}

/// The layout as text, such as `conv 2048x2, kv 8x64`.
fn describe(layout: &CacheLayout) -> String {
    let layer = |shape: &LayerShape| match shape {
        LayerShape::Kv { kv_heads, head_dim } => format!("kv {kv_heads}x{head_dim}"),
        LayerShape::Conv { channels, width } => format!("conv {channels}x{width}"),
    };
    layout
        .layers
        .iter()
        .map(layer)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CacheSpec;

    fn cache(kv_heads: usize) -> Cache {
        let layers = vec![
            LayerShape::Kv {
                kv_heads,
                head_dim: 4,
            },
            LayerShape::Conv {
                channels: 6,
                width: 2,
            },
        ];
        Cache::new(
            CacheLayout { layers },
            CacheSpec::rows(2),
            DType::F32,
            &Device::Cpu,
        )
    }

    fn filled() -> Cache {
        let mut cache = cache(2);
        cache.prepare_row(0, 3).unwrap();
        cache.append_fed(0, [Fed::Id(5), Fed::Embedding, Fed::Id(7)]);
        let k = Tensor::rand(0f32, 1f32, (2, 3, 4), &Device::Cpu).unwrap();
        let Some(LayerCache::Kv(slot)) = cache.slot(0, 0) else {
            panic!("not a kv layer")
        };
        slot.k.slice_set(&k, 1, 0).unwrap();
        cache
    }

    #[test]
    fn what_was_saved_is_loaded() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.cache");
        let saved = filled();
        saved.save(&path)?;
        let mut loaded = cache(2);
        loaded.load(&path)?;
        assert_eq!(loaded.fed_ids(0), [Some(5), None, Some(7)]);
        assert_eq!((loaded.rows(), loaded.len(1)), (2, 0));
        let keys = |c: &Cache| -> anyhow::Result<Vec<f32>> {
            let Some(LayerCache::Kv(slot)) = c.row(0).and_then(|r| r.layer(0)) else {
                anyhow::bail!("no keys")
            };
            Ok(slot.k.narrow(1, 0, 3)?.flatten_all()?.to_vec1()?)
        };
        assert_eq!(keys(&saved)?, keys(&loaded)?);
        Ok(())
    }

    #[test]
    fn a_row_that_forgot_keeps_the_newest_and_its_position() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut cache = filled();
        let keys = |c: &Cache, start| -> anyhow::Result<Vec<f32>> {
            let Some(LayerCache::Kv(slot)) = c.row(0).and_then(|r| r.layer(0)) else {
                anyhow::bail!("no keys")
            };
            Ok(slot.k.narrow(1, start, 1)?.flatten_all()?.to_vec1()?)
        };
        let newest = keys(&cache, 2)?;
        cache.forget(0, 9)?;
        assert_eq!(cache.len(0), 3);
        cache.forget(0, 1)?;
        assert_eq!((cache.fed_ids(0), cache.position(0)), (vec![Some(7)], 3));
        assert_eq!(keys(&cache, 0)?, newest);
        assert!(cache.save(folder.path().join("a.cache")).is_err());
        assert!(cache.cut(0, 0).is_err());
        assert!(cache.forget(2, 1).is_err());
        cache.clear_row(0);
        assert_eq!(cache.position(0), 0);
        Ok(())
    }

    #[test]
    fn another_models_cache_is_refused_by_layout() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.cache");
        filled().save(&path)?;
        let error = cache(3).load(&path).unwrap_err().to_string();
        assert!(
            error.contains("kv 3x4") && error.contains("kv 2x4"),
            "{error}"
        );
        Ok(())
    }

    #[test]
    fn damaged_files_are_errors() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.cache");
        filled().save(&path)?;
        let whole = std::fs::read(&path)?;
        for cut in [0, 7, 40, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut])?;
            assert!(cache(2).load(&path).is_err(), "cut to {cut} bytes");
        }
        std::fs::write(
            &path,
            [&16u64.to_le_bytes()[..], b"{\"__metadata__\":"].concat(),
        )?;
        assert!(cache(2).load(&path).is_err());
        assert!(cache(2).load(folder.path().join("none")).is_err());
        Ok(())
    }
}
