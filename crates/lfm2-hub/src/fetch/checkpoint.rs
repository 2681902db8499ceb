//! Which files of a repository make a checkpoint.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Fetch, HubCache, HubSettings, Snapshot};
use crate::checkpoint::SIDE_FILES;
use crate::files::read_capped;
use crate::safetensors::{INDEX_FILE, SINGLE_FILE, ShardIndex};
use crate::{Error, OpenOptions, RepoId, Result, Revision};

/// Why a file may not have come from the Hub.
const ABSENT: &str = "the repository has no such file, or HF_HUB_OFFLINE or --offline is set";

/// How much of a checkpoint is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// Config, tokenizer and template.
    Side,
    /// These and the safetensors weights.
    All,
}

/// Makes the files of a Hub checkpoint available: from the cache, and by download where that is
/// possible and allowed. Other files of the repository are left alone.
///
/// # Errors
/// [`Error::NotFound`] listing every file that is missing, or whatever a download gives.
pub fn fetch_checkpoint(
    id: &RepoId,
    revision: &Revision,
    parts: Parts,
    options: &OpenOptions,
) -> Result<Snapshot> {
    let fetch = chosen_fetch(options)?;
    let [config, ..] = SIDE_FILES;
    let snapshot = fetch.snapshot(id, revision, config)?;
    let mut missing = Vec::new();
    for (position, name) in SIDE_FILES.into_iter().enumerate() {
        // Only the config, which comes first, is required: the others have a use of their own.
        if fetch.file(&snapshot, name)?.is_none() && position == 0 {
            missing.push(name.to_owned());
        }
    }
    if parts == Parts::All {
        fetch_weights(&*fetch, &snapshot, options, &mut missing)?;
    }
    if missing.is_empty() {
        return Ok(snapshot);
    }
    Err(Error::NotFound {
        what: format!("{} of {id}{}", missing.join(", "), revision.suffix()),
        hint: format!(
            "not in {}, and not fetched: {ABSENT}",
            snapshot.folder.display()
        ),
    })
}

/// Makes one GGUF file of a repository available, and says where it is.
///
/// # Errors
/// As [`fetch_checkpoint`].
pub fn fetch_gguf(
    id: &RepoId,
    revision: &Revision,
    file: &str,
    options: &OpenOptions,
) -> Result<PathBuf> {
    let fetch = chosen_fetch(options)?;
    let snapshot = fetch.snapshot(id, revision, file)?;
    fetch.file(&snapshot, file)?.ok_or_else(|| Error::NotFound {
        what: format!("{file} of {id}{}", revision.suffix()),
        hint: format!("not in the cache, and not fetched: {ABSENT}"),
    })
}

fn chosen_fetch(options: &OpenOptions) -> Result<Arc<dyn Fetch>> {
    match &options.fetch {
        Some(fetch) => Ok(Arc::clone(fetch)),
        None => standard_fetch(options),
    }
}

fn fetch_weights(
    fetch: &dyn Fetch,
    snapshot: &Snapshot,
    options: &OpenOptions,
    missing: &mut Vec<String>,
) -> Result<()> {
    let Some(path) = fetch.file(snapshot, INDEX_FILE)? else {
        if fetch.file(snapshot, SINGLE_FILE)?.is_none() {
            missing.push(SINGLE_FILE.to_owned());
        }
        return Ok(());
    };
    let bytes = read_capped(&path, options.limits.index_bytes, "shard index bytes")?;
    for name in ShardIndex::parse(&path, &bytes, &options.limits)?.files() {
        if fetch.file(snapshot, name)?.is_none() {
            missing.push(name.to_owned());
        }
    }
    Ok(())
}

#[cfg(feature = "download")]
fn standard_fetch(options: &OpenOptions) -> Result<Arc<dyn Fetch>> {
    let settings = HubSettings::resolve(options)?;
    match settings.offline {
        None => Ok(Arc::new(super::HubClient::with_settings(
            settings,
            options.progress.clone(),
        )?)),
        Some(reason) => Ok(Arc::new(HubCache::because(reason, settings.cache))),
    }
}

#[cfg(not(feature = "download"))]
fn standard_fetch(options: &OpenOptions) -> Result<Arc<dyn Fetch>> {
    let cache = HubSettings::resolve(options)?.cache;
    Ok(Arc::new(HubCache::because(super::Offline::Build, cache)))
}
