//! Which files of a repository make a checkpoint.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Fetch, HubCache, HubSettings, Snapshot};
use crate::checkpoint::{CONFIG, SIDE_FILES};
use crate::files::{is_plain_file_name, read_capped};
use crate::json::{Numbers, read_json};
use crate::safetensors::{INDEX_FILE, SINGLE_FILE, ShardIndex};
use crate::{Error, Limits, OpenOptions, RepoId, Result, Revision};

/// The parts of an encoder, and the files that say how it is used.
const MODULES: &str = "modules.json";
const ENCODER_FILES: [&str; 3] = [
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
];

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
    fetch_parts(
        &*chosen_fetch(options)?,
        (id, revision),
        parts,
        &options.limits,
    )
}

/// [`fetch_checkpoint`] by a way that is chosen already.
pub(crate) fn fetch_parts(
    fetch: &dyn Fetch,
    (id, revision): (&RepoId, &Revision),
    parts: Parts,
    limits: &Limits,
) -> Result<Snapshot> {
    let snapshot = fetch.snapshot(id, revision, CONFIG)?;
    let mut missing = Vec::new();
    for (position, name) in SIDE_FILES.into_iter().enumerate() {
        // Only the config, which comes first, is required: the others have a use of their own.
        if fetch.file(&snapshot, name)?.is_none() && position == 0 {
            missing.push(name.to_owned());
        }
    }
    if parts == Parts::All {
        missing.extend(fetch_weights(fetch, &snapshot, None, limits)?);
    }
    fetch_modules(fetch, &snapshot, parts, limits, &mut missing)?;
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

/// Makes available what an encoder's `modules.json` lists: folders with a config, and some with weights.
fn fetch_modules(
    fetch: &dyn Fetch,
    snapshot: &Snapshot,
    parts: Parts,
    limits: &Limits,
    missing: &mut Vec<String>,
) -> Result<()> {
    let Some(path) = fetch.file(snapshot, MODULES)? else {
        return Ok(());
    };
    for name in ENCODER_FILES {
        fetch.file(snapshot, name)?;
    }
    let modules = read_json(&path, Numbers::Exact, limits)?;
    // What the list means, and what is wrong with it, is for those who open the model.
    let folders = modules.as_array().into_iter().flatten();
    let folders = folders.filter_map(|module| module.get("path")?.as_str());
    for folder in folders.filter(|folder| is_plain_file_name(folder)) {
        fetch.file(snapshot, &format!("{folder}/{CONFIG}"))?;
        if parts == Parts::All {
            let lacking = fetch_weights(fetch, snapshot, Some(folder), limits)?;
            // Some modules have no weights; one that was cut into pieces has all of them.
            let alone = format!("{folder}/{SINGLE_FILE}");
            missing.extend(lacking.into_iter().filter(|name| *name != alone));
        }
    }
    Ok(())
}

/// The way to get Hub files that `options` ask for.
pub(crate) fn chosen_fetch(options: &OpenOptions) -> Result<Arc<dyn Fetch>> {
    match &options.fetch {
        Some(fetch) => Ok(Arc::clone(fetch)),
        None => standard_fetch(options),
    }
}

/// Makes the safetensors weights of a snapshot, or of a folder in it, available; returns the names of
/// the files that are missing.
pub(crate) fn fetch_weights(
    fetch: &dyn Fetch,
    snapshot: &Snapshot,
    folder: Option<&str>,
    limits: &Limits,
) -> Result<Vec<String>> {
    let full = |name: &str| folder.map_or(name.to_owned(), |folder| format!("{folder}/{name}"));
    let mut names = vec![full(SINGLE_FILE)];
    if let Some(path) = fetch.file(snapshot, &full(INDEX_FILE))? {
        let bytes = read_capped(&path, limits.index_bytes, "shard index bytes")?;
        let index = ShardIndex::parse(&path, &bytes, limits)?;
        names = index.files().into_iter().map(full).collect();
    }
    let mut missing = Vec::new();
    for name in names {
        if fetch.file(snapshot, &name)?.is_none() {
            missing.push(name);
        }
    }
    Ok(missing)
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
