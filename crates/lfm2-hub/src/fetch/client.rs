//! [`HubClient`]: the cache, filled from the Hub.
//!
//! Transfers are hf-hub's. What is written where, and what is believed, is decided here; see
//! `docs/decisions/0001-hf-hub.md`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hf_hub::HFClient;
use tokio::runtime::Runtime;

use super::remote::{Inquiry, network};
use super::transfer::{Transfer, is_intact};
use super::{Fetch, HubCache, HubSettings, Progress, Snapshot};
use crate::options::Refresh;
use crate::{Error, OpenOptions, RepoId, Result, Revision};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Downloads files of Hub repositories into the local cache.
pub struct HubClient {
    cache: HubCache,
    settings: HubSettings,
    inquiry: Inquiry,
    hub: HFClient,
    progress: Option<Arc<dyn Progress>>,
    // Taken out when the client is dropped.
    runtime: Option<Runtime>,
}

impl HubClient {
    /// A client for the endpoint, cache and token of `options`, else of the environment.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for an endpoint that is no address, [`Error::Io`] when threads or
    /// the token file fail.
    pub fn new(options: &OpenOptions) -> Result<Self> {
        Self::with_settings(HubSettings::resolve(options)?, options.progress.clone())
    }

    pub(crate) fn with_settings(
        settings: HubSettings,
        progress: Option<Arc<dyn Progress>>,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("lfm2-hub")
            .enable_all()
            .build()
            .map_err(|source| Error::io("the download thread", source))?;
        let cache = HubCache::new(&settings.cache);
        let inquiry = Inquiry::new(settings.clone())?;
        let hub = hub(&settings)?;
        Ok(Self {
            cache,
            settings,
            inquiry,
            hub,
            progress,
            runtime: Some(runtime),
        })
    }

    /// Waits for `future`, also when the caller is inside a runtime of its own, where blocking
    /// directly would panic.
    fn wait<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> Result<T> {
        let stopped = || Error::io("the download thread", std::io::ErrorKind::BrokenPipe.into());
        let handle = self.runtime.as_ref().ok_or_else(stopped)?.handle();
        std::thread::scope(|scope| scope.spawn(|| handle.block_on(work())).join())
            .map_err(|_| stopped())
    }

    fn resolve(&self, id: &RepoId, revision: &Revision, file: &str) -> Result<Snapshot> {
        let remote = self.wait(async || self.inquiry.ask(id, revision.as_str(), file).await)??;
        let remote = remote.ok_or_else(|| Error::NotFound {
            what: format!("{file} of {id}{}", revision.suffix()),
            hint:
                "look at the files of the repository; gguf files are opened as org/name:file.gguf"
                    .to_owned(),
        })?;
        self.cache.remember(id, revision, &remote.commit)?;
        Ok(self.cache.at_commit(id, &remote.commit))
    }

    fn download(&self, snapshot: &Snapshot, name: &str) -> Result<Option<PathBuf>> {
        let id = &snapshot.id;
        let Some(remote) =
            self.wait(async || self.inquiry.ask(id, &snapshot.commit, name).await)??
        else {
            self.cache.mark_absent(snapshot, name);
            return Ok(None);
        };
        if remote.commit != snapshot.commit {
            let detail = format!(
                "asked for commit {}, got {}",
                snapshot.commit, remote.commit
            );
            return Err(network(
                &format!("{}/{id}/{name}", self.settings.endpoint),
                None,
                &detail,
            ));
        }
        let _lock = self.cache.lock(id, &remote.etag)?;
        let blob = self.cache.blob(id, &remote.etag)?;
        // Another process may have finished it while this one waited.
        if self.settings.refresh == Refresh::Missing
            && let Some(path) = self.cache.present(snapshot, name)?
        {
            return Ok(Some(path));
        }
        let reusable = self.settings.refresh == Refresh::Missing
            && blob.is_file()
            && is_intact(&blob, &remote)?;
        if !reusable {
            let progress = self.progress.as_deref();
            let transfer = Transfer {
                hub: &self.hub,
                id,
                file: name,
                remote: &remote,
                blob: &blob,
                progress,
            };
            self.wait(async || transfer.run().await)??;
        }
        self.cache.link(snapshot, name, &remote.etag).map(Some)
    }
}

impl Fetch for HubClient {
    fn snapshot(&self, id: &RepoId, revision: &Revision, file: &str) -> Result<Snapshot> {
        let known = self.cache.known_commit(id, revision)?;
        let known = known.map(|commit| self.cache.at_commit(id, &commit));
        let known = known.filter(|snapshot| snapshot.folder.join(file).is_file());
        if let Some(snapshot) = &known
            && revision.is_commit()
            && self.settings.refresh == Refresh::Missing
        {
            return Ok(snapshot.clone());
        }
        match (self.resolve(id, revision, file), known) {
            (Err(error @ Error::Network { .. }), Some(snapshot)) => {
                tracing::warn!(%error, %id, %revision, "the hub cannot be reached; using what is in the cache");
                Ok(snapshot)
            }
            (result, _) => result,
        }
    }

    fn file(&self, snapshot: &Snapshot, name: &str) -> Result<Option<PathBuf>> {
        let present = self.cache.present(snapshot, name)?;
        match self.settings.refresh {
            Refresh::Missing if present.is_some() => Ok(present),
            Refresh::Missing if self.cache.absence(snapshot, name).exists() => Ok(None),
            Refresh::Missing | Refresh::All => self.download(snapshot, name),
        }
    }
}

impl Drop for HubClient {
    fn drop(&mut self) {
        // Dropping a runtime inside another one would panic; this does not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for HubClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubClient")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

fn hub(settings: &HubSettings) -> Result<HFClient> {
    let redirects = reqwest::redirect::Policy::custom(|attempt| {
        let downgrade = attempt.url().scheme() != "https"
            && attempt
                .previous()
                .last()
                .is_some_and(|previous| previous.scheme() == "https");
        if downgrade {
            attempt.error("redirected from https to http")
        } else if attempt.previous().len() > 10 {
            attempt.error("too many redirects")
        } else {
            attempt.follow()
        }
    });
    let failed = |error: &dyn fmt::Display| network(&settings.endpoint, None, error);
    let client = reqwest::Client::builder()
        .user_agent(concat!("lfm2/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(redirects)
        .build()
        .map_err(|source| failed(&source.without_url()))?;
    let mut builder = HFClient::builder()
        .endpoint(&settings.endpoint)
        .client(client)
        .cache_dir(&settings.cache)
        .cache_enabled(false)
        // One layer of retries is enough, and ours knows how much has arrived.
        .retry_max_attempts(0);
    if let Some(token) = &settings.token {
        builder = builder.token(token.secret());
    }
    builder
        .build()
        .map_err(|_| failed(&"the hub client does not start"))
}
