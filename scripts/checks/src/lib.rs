//! House rules of this workspace, as tests: `cargo test -p lfm2-checks`.
//!
//! Each file under `tests/` holds one group of rules: which crate may use which, how large files may
//! grow, what the documentation must not contradict. The library itself only finds the files.

use std::io;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 3] = ["target", "corpus", "artifacts"];

/// The root of the workspace.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

/// Every file under the folder `from` whose name ends in one of `extensions`, sorted.
///
/// Build outputs and hidden folders are left out.
///
/// # Errors
/// When a folder cannot be read.
pub fn files(from: &Path, extensions: &[&str]) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![from.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                if !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                    open.push(entry.path());
                }
            } else if extensions.iter().any(|extension| name.ends_with(extension)) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// `path` as seen from the root, for messages.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}
