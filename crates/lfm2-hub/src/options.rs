//! [`OpenOptions`]: how a checkpoint is opened.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::fetch::{Fetch, Progress};
use crate::{Limits, Links, Mapping};

/// Whether opening a Hub source may use the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// Use it for files that are not in the local cache, unless `HF_HUB_OFFLINE` is set.
    #[default]
    Allowed,
    /// Open no connection. What is not in the cache is an error that lists it.
    Offline,
}

/// Which files of a Hub source are downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Refresh {
    /// Those that the local cache lacks.
    #[default]
    Missing,
    /// All of them, for a cache that may be damaged.
    All,
}

/// An access token. Its text is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes the text of a token; surrounding white space is dropped.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    #[cfg_attr(
        not(feature = "download"),
        expect(dead_code, reason = "only the network needs it")
    )]
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// How a checkpoint is opened. The defaults suit a caller who knows nothing but the source.
///
/// For Hub sources, what is not set here comes from the environment: `HF_ENDPOINT`, `HF_TOKEN` or
/// the file at `HF_TOKEN_PATH`, `HF_HUB_CACHE` or `HF_HOME`, and `HF_HUB_OFFLINE`.
///
/// ```
/// use lfm2_hub::{Mapping, Network, OpenOptions};
///
/// let options = OpenOptions::default().mapping(Mapping::Read).network(Network::Offline);
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct OpenOptions {
    pub(crate) limits: Limits,
    pub(crate) mapping: Mapping,
    pub(crate) links: Links,
    pub(crate) network: Network,
    pub(crate) refresh: Refresh,
    pub(crate) cache_dir: Option<PathBuf>,
    pub(crate) endpoint: Option<String>,
    pub(crate) token: Option<Token>,
    pub(crate) progress: Option<Arc<dyn Progress>>,
    pub(crate) fetch: Option<Arc<dyn Fetch>>,
}

impl OpenOptions {
    /// Caps on what files may contain.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How weight files get into memory.
    pub fn mapping(mut self, mapping: Mapping) -> Self {
        self.mapping = mapping;
        self
    }

    /// Whether links in a checkpoint folder may lead out of it.
    pub fn links(mut self, links: Links) -> Self {
        self.links = links;
        self
    }

    /// Whether the network may be used.
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Whether files in the cache are downloaded again.
    pub fn refresh(mut self, refresh: Refresh) -> Self {
        self.refresh = refresh;
        self
    }

    /// The Hub cache: the folder with the `models--organisation--name` folders.
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(folder.into());
        self
    }

    /// The address of the Hub or of a mirror, such as `https://huggingface.co`.
    pub fn endpoint(mut self, address: impl Into<String>) -> Self {
        self.endpoint = Some(address.into());
        self
    }

    /// The access token for private repositories.
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// Who is told about downloads.
    pub fn progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// The caps on what files may contain, for models that open files of their own.
    pub fn chosen_limits(&self) -> &Limits {
        &self.limits
    }

    /// How weight files get into memory, for the same.
    pub fn chosen_mapping(&self) -> Mapping {
        self.mapping
    }

    /// Another way to get Hub files, in place of the cache and the network.
    pub fn fetch(mut self, fetch: Arc<dyn Fetch>) -> Self {
        self.fetch = Some(fetch);
        self
    }
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("limits", &self.limits)
            .field("mapping", &self.mapping)
            .field("links", &self.links)
            .field("network", &self.network)
            .field("refresh", &self.refresh)
            .field("cache_dir", &self.cache_dir)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
