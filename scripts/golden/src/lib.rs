//! Where tests find reference cases beside the committed ones: the folder that `LFM2_GOLDEN` names.
//!
//! Tests run in the folder of their package, but people name folders from where they start them, which
//! is the workspace.

use std::path::{Path, PathBuf};

/// The folder named by `LFM2_GOLDEN`, if it is set: `text`, `vl`, `audio`, `colbert`, `training` and
/// `ldsp` are in it. A relative one begins at the root of the workspace.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os("LFM2_GOLDEN").map(from_workspace)
}

fn from_workspace(folder: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_folder_begins_at_the_workspace() {
        assert!(from_workspace("scripts/golden/Cargo.toml").is_file());
        let absolute = std::env::temp_dir();
        assert_eq!(from_workspace(&absolute), absolute);
    }
}
