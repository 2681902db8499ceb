//! [`RowLog`]: outcomes of rows, kept as they come, so that a measurement goes on where it was stopped.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::run::first_difference;
use crate::{Error, Result};

/// The outcomes of rows in their order, in memory and, if wanted, in a file of JSON lines.
///
/// The first line of the file says what was measured, every further one is an outcome.
#[derive(Debug)]
pub struct RowLog<T> {
    rows: Vec<T>,
    file: Option<(PathBuf, File)>,
}

impl<T: Serialize + DeserializeOwned> RowLog<T> {
    /// A log that is gone with the process.
    pub fn in_memory() -> Self {
        Self {
            rows: Vec::new(),
            file: None,
        }
    }

    /// Begins the file `path`, or goes on behind the rows in it. `measured` is everything that outcomes
    /// depend on: the hash of the data, the model, the settings.
    ///
    /// A line that a kill has cut short is removed.
    ///
    /// # Errors
    /// [`Error::RunMismatch`] naming what differs when the file holds outcomes of something else;
    /// [`Error::RunFolder`] when it holds something else altogether; [`Error::Io`].
    pub fn open(path: &Path, measured: &Value) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io(path, e)),
        };
        let head = json!({"measured": measured});
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let (whole, cut) = text.split_at(whole);
        let rows = match whole.lines().next() {
            None if cut.is_empty() || is_cut_head(cut) => Vec::new(),
            None => return Err(Error::run_folder(path, NO_LOG)),
            Some(first) => {
                check_head(path, first, &head)?;
                rows(path, whole)?
            }
        };
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|e| Error::io(path, e))?;
        file.set_len(whole.len() as u64)
            .map_err(|e| Error::io(path, e))?;
        if whole.is_empty() {
            let line = format!("{head}\n");
            file.write_all(line.as_bytes())
                .map_err(|e| Error::io(path, e))?;
        }
        Ok(Self {
            rows,
            file: Some((path.to_path_buf(), file)),
        })
    }

    /// The outcomes so far.
    pub fn rows(&self) -> &[T] {
        &self.rows
    }

    /// Appends an outcome; it is in the file when this returns.
    ///
    /// # Errors
    /// [`Error::Io`]; the outcome is not kept then.
    pub fn push(&mut self, row: T) -> Result<()> {
        if let Some((path, file)) = &mut self.file {
            let text = serde_json::to_string(&row)
                .map_err(|e| Error::run_folder(path.as_path(), e.to_string()))?;
            file.write_all((text + "\n").as_bytes())
                .map_err(|e| Error::io(path, e))?;
        }
        self.rows.push(row);
        Ok(())
    }
}

const NO_LOG: &str = "expected the rows of a measurement, found something else";

/// Whether a kill may have cut the first line short, so that nothing is lost by beginning anew.
fn is_cut_head(text: &str) -> bool {
    text.starts_with("{\"measured\"")
}

fn check_head(path: &Path, first: &str, now: &Value) -> Result<()> {
    let before: Value = serde_json::from_str(first).unwrap_or_default();
    if before.get("measured").is_none() {
        return Err(Error::run_folder(path, NO_LOG));
    }
    // Both sides as read from text: reading may round the last digit of a number.
    let now: Value = serde_json::from_str(&now.to_string())
        .map_err(|e| Error::run_folder(path, e.to_string()))?;
    match first_difference("", &before, &now) {
        None => Ok(()),
        Some((key, expected, found)) => Err(Error::RunMismatch {
            path: path.to_path_buf(),
            key,
            expected,
            found,
        }),
    }
}

fn rows<T: DeserializeOwned>(path: &Path, text: &str) -> Result<Vec<T>> {
    let lines = text.lines().enumerate().skip(1);
    let rows = lines.map(|(i, line)| {
        serde_json::from_str(line).map_err(|e| Error::data(path, i + 1, e.to_string()))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path, measured: &Value) -> Result<Vec<u32>> {
        Ok(RowLog::open(path, measured)?.rows().to_vec())
    }

    #[test]
    fn outcomes_are_there_again_but_for_half_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let measured = json!({"model": "a", "beta": 0.1});
        let mut log = RowLog::open(&path, &measured).unwrap();
        for row in [3_u32, 5] {
            log.push(row).unwrap();
        }
        drop(log);
        assert_eq!(read(&path, &measured).unwrap(), [3, 5]);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, whole.clone() + "71").unwrap();
        assert_eq!(read(&path, &measured).unwrap(), [3, 5]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        // Killed while the first line was written.
        std::fs::write(&path, "{\"measured\":{\"mod").unwrap();
        assert!(read(&path, &measured).unwrap().is_empty());
    }

    #[test]
    fn the_log_of_something_else_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = RowLog::open(&path, &json!({"model": "a"})).unwrap();
        log.push(1_u32).unwrap();
        drop(log);
        let error = read(&path, &json!({"model": "b"})).unwrap_err().to_string();
        assert!(error.contains("measured.model differs"), "{error}");
        assert_eq!(read(&path, &json!({"model": "a"})).unwrap(), [1]);
        for foreign in ["once upon a time\n", "once", "[]\n1\n"] {
            std::fs::write(&path, foreign).unwrap();
            assert!(read(&path, &json!({})).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), foreign);
        }
        std::fs::write(&path, "{\"measured\":{}}\n1\nx\n2\n").unwrap();
        let error = read(&path, &json!({})).unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
    }
}
