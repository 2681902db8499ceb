//! Models cut into several files, `NAME-00001-of-00003.gguf` and so on.

use std::path::{Path, PathBuf};

use super::header::Header;
use super::metadata::Metadata;
use crate::mapped::{FileBytes, Mapping};
use crate::{Error, Limits, Result};

const COUNT_KEY: &str = "split.count";
const NUMBER_KEY: &str = "split.no";
const TENSORS_KEY: &str = "split.tensors.count";

/// The digits of a number in a file name.
const DIGITS: usize = 5;

/// One file of a model.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) bytes: FileBytes,
    pub(super) header: Header,
}

impl Part {
    pub(super) fn read(bytes: FileBytes, limits: &Limits) -> Result<Self> {
        let header = Header::read(&bytes, limits)?;
        Ok(Self { bytes, header })
    }
}

/// Opens all files of the model that the file at `path` belongs to, the first one first.
///
/// # Errors
/// [`Error::NotFound`] naming a file that is missing, [`Error::InvalidFile`] when the files do not
/// belong together, or as [`Header::read`].
pub(super) fn open_all(path: &Path, limits: &Limits, mapping: Mapping) -> Result<Vec<Part>> {
    let opened = Part::read(FileBytes::open(path, mapping)?, limits)?;
    let count = match opened.header.metadata.usize_opt(COUNT_KEY)? {
        None | Some(0 | 1) => return Ok(vec![opened]),
        Some(count) => count,
    };
    if count > limits.shards {
        let what = format!("{}: files of one model", path.display());
        return Err(Error::Limit {
            what,
            limit: limits.shards as u64,
            found: count as u64,
        });
    }
    let mut parts = Vec::with_capacity(count);
    for number in 0..count {
        let sibling = sibling(path, &opened.header.metadata, number, count)?;
        if !sibling.exists() {
            let hint = format!("all {count} files of the model have to be in one folder");
            return Err(Error::NotFound {
                what: sibling.display().to_string(),
                hint,
            });
        }
        let part = Part::read(FileBytes::open(&sibling, mapping)?, limits)?;
        check_number(&part.header.metadata, NUMBER_KEY, number)?;
        check_number(&part.header.metadata, COUNT_KEY, count)?;
        parts.push(part);
    }
    let total = parts.iter().map(|part| part.header.tensors.len()).sum();
    if opened.header.metadata.get(TENSORS_KEY).is_some() {
        check_number(&opened.header.metadata, TENSORS_KEY, total)?;
    }
    Ok(parts)
}

fn check_number(metadata: &Metadata, key: &str, expected: usize) -> Result<()> {
    let found = metadata.usize(key)?;
    if found == expected {
        return Ok(());
    }
    Err(metadata.invalid(format!(
        "metadata key \"{key}\": expected {expected}, found {found}"
    )))
}

/// The path of file `number`, counted from zero, next to the one at `path`.
fn sibling(path: &Path, metadata: &Metadata, number: usize, count: usize) -> Result<PathBuf> {
    let total = format!("-of-{count:0DIGITS$}.gguf");
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let stem = name.strip_suffix(&total).and_then(|rest| {
        let (stem, digits) = rest.split_at_checked(rest.len().checked_sub(DIGITS)?)?;
        digits
            .bytes()
            .all(|digit| digit.is_ascii_digit())
            .then_some(stem)
    });
    let stem = stem.ok_or_else(|| {
        metadata.invalid(format!(
            "is one of {count} files of a model, expected a name that ends in 00001{total}"
        ))
    })?;
    Ok(path.with_file_name(format!("{stem}{:0DIGITS$}{total}", number + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_follow_the_naming_scheme() {
        let metadata = Metadata::new("x");
        let path = Path::new("/models/a-b-00002-of-00003.gguf");
        assert_eq!(
            sibling(path, &metadata, 0, 3).unwrap(),
            Path::new("/models/a-b-00001-of-00003.gguf")
        );
        assert!(sibling(path, &metadata, 0, 4).is_err());
        assert!(sibling(Path::new("/models/of-00003.gguf"), &metadata, 0, 3).is_err());
        assert!(sibling(Path::new("ä-of-00003.gguf"), &metadata, 0, 3).is_err());
    }
}
