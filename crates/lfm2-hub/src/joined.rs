//! [`Joined`]: the tensors of several sources under one roof.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};

use crate::{Error, Fingerprint, Result, TensorInfo, TensorSource};

/// Several sources as one: a tensor `name` of a part is called `prefix.name`, or `name` where the
/// prefix is empty. Where two parts have a name in common, the first one has it.
pub struct Joined {
    parts: Vec<(String, Arc<dyn TensorSource>)>,
}

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let prefixes = self.parts.iter().map(|(prefix, _)| prefix);
        f.debug_list().entries(prefixes).finish()
    }
}

impl Joined {
    /// The tensors of `parts`, each with its prefix.
    pub fn new(parts: Vec<(String, Arc<dyn TensorSource>)>) -> Self {
        Self { parts }
    }

    /// The part that has a tensor, and its name there.
    fn find<'n>(&self, name: &'n str) -> Option<(&Arc<dyn TensorSource>, &'n str)> {
        self.parts.iter().find_map(|(prefix, source)| {
            let own = match prefix.as_str() {
                "" => name,
                prefix => name.strip_prefix(prefix)?.strip_prefix('.')?,
            };
            source.info(own).map(|_| (source, own))
        })
    }

    fn required<'n>(&self, name: &'n str) -> Result<(&Arc<dyn TensorSource>, &'n str)> {
        self.find(name).ok_or_else(|| Error::MissingTensor {
            name: name.to_owned(),
        })
    }
}

impl TensorSource for Joined {
    fn names(&self) -> Vec<String> {
        let full = |(prefix, source): &(String, Arc<dyn TensorSource>)| {
            let names = source.names().into_iter();
            names
                .map(|name| match prefix.as_str() {
                    "" => name,
                    prefix => format!("{prefix}.{name}"),
                })
                .collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(full).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.find(name).and_then(|(source, own)| source.info(own))
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let (source, own) = self.required(name)?;
        source.dense(own, dtype, device)
    }

    fn quantized(&self, name: &str, device: &Device) -> Result<Option<Arc<QTensor>>> {
        let (source, own) = self.required(name)?;
        source.quantized(own, device)
    }

    fn blocks(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>> {
        let (source, own) = self.required(name)?;
        source.blocks(own)
    }

    fn release(&self, name: &str) {
        if let Some((source, own)) = self.find(name) {
            source.release(own);
        }
    }

    fn fingerprint(&self) -> Result<Option<Fingerprint>> {
        let mut parts = Vec::with_capacity(self.parts.len());
        for (prefix, source) in &self.parts {
            match source.fingerprint()? {
                Some(part) => parts.push(part.derived(prefix)),
                None => return Ok(None),
            }
        }
        Ok(Fingerprint::joined(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, SafetensorsSource};

    /// A source of one tensor with one value.
    fn source(name: &str, value: f32) -> Arc<dyn TensorSource> {
        let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(value.to_le_bytes());
        Arc::new(SafetensorsSource::from_bytes("t", bytes, &Limits::default()).unwrap())
    }

    fn value(joined: &Joined, name: &str) -> Result<f32> {
        let tensor = joined.dense(name, DType::F32, &Device::Cpu)?;
        Ok(tensor.to_vec1::<f32>()?[0])
    }

    #[test]
    fn tensors_are_found_by_their_prefix() {
        let parts = vec![
            (String::new(), source("norm.weight", 1.0)),
            ("1_Dense".to_owned(), source("linear.weight", 2.0)),
            ("2_Dense".to_owned(), source("linear.weight", 3.0)),
        ];
        let joined = Joined::new(parts);
        let names = [
            "norm.weight",
            "1_Dense.linear.weight",
            "2_Dense.linear.weight",
        ];
        assert_eq!(joined.names(), names);
        for (name, expected) in names.iter().zip([1.0, 2.0, 3.0]) {
            assert_eq!(value(&joined, name).unwrap(), expected);
            assert_eq!(joined.info(name).unwrap().shape, [1]);
            assert!(joined.blocks(name).unwrap().is_none());
        }
        for name in [
            "linear.weight",
            "1_Denselinear.weight",
            "3_Dense.linear.weight",
        ] {
            assert!(joined.info(name).is_none(), "{name}");
            assert!(matches!(
                value(&joined, name),
                Err(Error::MissingTensor { .. })
            ));
        }
    }

    #[test]
    fn the_first_of_two_parts_has_a_common_name() {
        let parts = [4.0, 5.0].map(|value| (String::new(), source("w", value)));
        assert_eq!(value(&Joined::new(parts.into()), "w").unwrap(), 4.0);
    }

    #[test]
    fn parts_in_memory_have_no_fingerprint() {
        let joined = Joined::new(vec![(String::new(), source("w", 1.0))]);
        assert_eq!(joined.fingerprint().unwrap(), None);
        assert_eq!(Joined::new(Vec::new()).fingerprint().unwrap(), None);
    }
}
