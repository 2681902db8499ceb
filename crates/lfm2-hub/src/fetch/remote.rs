//! What the Hub says of a file, before anything of it is downloaded.
//!
//! hf-hub asks for this itself, but follows redirects to the storage host, where the Hub's own
//! headers are gone, or uses the answer as a path unchecked. So the question is asked here, and the
//! answer is checked before it names anything on disk.

use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, LOCATION};
use reqwest::{Client, Response, StatusCode, Url};

use super::settings::HubSettings;
use super::transfer::{Failure, with_retries};
use crate::source::is_commit;
use crate::{Error, RepoId, Result};

const MAX_REDIRECTS: usize = 5;
const TIMEOUT: Duration = Duration::from_secs(30);
const TOKEN_HINT: &str = "check the name; a private or gated repository needs a token in HF_TOKEN";

/// One file of a repository, as the Hub describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) etag: Etag,
    pub(super) commit: String,
    /// `None` when the Hub does not say.
    pub(super) size: Option<u64>,
}

/// The identity of a file's contents, and the name of its blob. Holding one means that it is a
/// plain file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Etag(String);

impl Etag {
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let valid = (1..=128).contains(&text.len()) && text.bytes().all(plain);
        valid.then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The SHA-256 of the contents; large files have it as their etag.
    pub(super) fn sha256(&self) -> Option<&str> {
        let hexadecimal = self.0.len() == 64 && self.0.bytes().all(|byte| byte.is_ascii_hexdigit());
        hexadecimal.then_some(&self.0)
    }
}

/// Asks about files. The token goes to the host of the endpoint only.
#[derive(Debug)]
pub(super) struct Inquiry {
    client: Client,
    settings: HubSettings,
}

impl Inquiry {
    pub(super) fn new(settings: HubSettings) -> Result<Self> {
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .user_agent(concat!("lfm2/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|source| network(&settings.endpoint, None, &source.without_url()))?;
        Ok(Self { client, settings })
    }

    /// What the Hub says of `file`; `None` when the repository is there and the file is not.
    pub(super) async fn ask(
        &self,
        id: &RepoId,
        revision: &str,
        file: &str,
    ) -> Result<Option<Remote>> {
        let start = self.address(id, revision, file)?;
        with_retries(async || {
            let mut url = start.clone();
            for _ in 0..=MAX_REDIRECTS {
                let response = self.send(&url).await?;
                match redirect(&url, &response) {
                    Some(next) if next.origin() == url.origin() => url = next,
                    // Another host only stores the contents; this answer is the Hub's.
                    _ => return read_answer(&self.settings.endpoint, id, revision, &response),
                }
            }
            Err(Failure::Final(network(
                start.as_str(),
                None,
                &"too many redirects",
            )))
        })
        .await
    }

    fn address(&self, id: &RepoId, revision: &str, file: &str) -> Result<Url> {
        let invalid = || Error::InvalidInput("the hub endpoint is not a valid address".to_owned());
        let mut url = Url::parse(&self.settings.endpoint).map_err(|_| invalid())?;
        url.path_segments_mut()
            .map_err(|()| invalid())?
            .pop_if_empty()
            .extend([id.owner(), id.name(), "resolve", revision])
            .extend(file.split('/'));
        Ok(url)
    }

    async fn send(&self, url: &Url) -> Result<Response, Failure> {
        let mut request = self
            .client
            .head(url.clone())
            .header(ACCEPT_ENCODING, "identity");
        if let Some(token) = &self.settings.token {
            request = request.bearer_auth(token.secret());
        }
        request.send().await.map_err(|source| Failure::Transient {
            error: unanswered(url.as_str(), source),
            wait: None,
        })
    }
}

fn redirect(url: &Url, response: &Response) -> Option<Url> {
    let location = response
        .status()
        .is_redirection()
        .then(|| response.headers().get(LOCATION))??;
    url.join(location.to_str().ok()?).ok()
}

fn read_answer(
    endpoint: &str,
    id: &RepoId,
    revision: &str,
    response: &Response,
) -> Result<Option<Remote>, Failure> {
    let status = response.status();
    let headers = response.headers();
    if status.is_success() || status.is_redirection() {
        return read_headers(&format!("{endpoint}/{id}"), status, headers)
            .map(Some)
            .map_err(Failure::Final);
    }
    let not_found = |what: String, hint: &str| {
        Failure::Final(Error::NotFound {
            what,
            hint: hint.to_owned(),
        })
    };
    match (status, text(headers, "x-error-code")) {
        (_, Some("RevisionNotFound")) => Err(not_found(
            format!("revision {revision} of {id}"),
            "give a branch, a tag or a commit hash",
        )),
        (_, Some("RepoNotFound")) => Err(not_found(format!("repository {id}"), TOKEN_HINT)),
        (StatusCode::NOT_FOUND, _) => Ok(None),
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
            let hint =
                "accept the terms of the repository and put a token into HF_TOKEN".to_owned();
            Err(Failure::Final(Error::Denied {
                what: id.to_string(),
                hint,
            }))
        }
        _ => Err(Failure::of_status(
            network(
                &format!("{endpoint}/{id}"),
                Some(status.as_u16()),
                &format!("the server answers {status}"),
            ),
            headers
                .get("retry-after")
                .and_then(|value| value.to_str().ok()?.trim().parse().ok()),
        )),
    }
}

fn read_headers(address: &str, status: StatusCode, headers: &HeaderMap) -> Result<Remote> {
    let missing = |what: &str| {
        network(
            address,
            None,
            &format!("the answer has no usable {what}; is this a hub?"),
        )
    };
    let etag = text(headers, "x-linked-etag").or_else(|| text(headers, ETAG.as_str()));
    let etag = etag.and_then(Etag::parse).ok_or_else(|| missing("etag"))?;
    let commit = text(headers, "x-repo-commit").filter(|commit| is_commit(commit));
    let commit = commit.ok_or_else(|| missing("commit hash"))?.to_owned();
    // The length of a redirect is that of its own body.
    let own_length = || text(headers, CONTENT_LENGTH.as_str()).filter(|_| status.is_success());
    let size = text(headers, "x-linked-size").or_else(own_length);
    let size = size
        .map(|size| size.parse().map_err(|_| missing("size")))
        .transpose()?;
    Ok(Remote { etag, commit, size })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// An [`Error::Network`] about `address`, of which the query is left out.
pub(super) fn network(address: &str, status: Option<u16>, detail: &dyn std::fmt::Display) -> Error {
    let address = address
        .split(['?', '#'])
        .next()
        .unwrap_or_default()
        .to_owned();
    Error::Network {
        address,
        status,
        detail: detail.to_string(),
    }
}

/// An [`Error::Network`] about a request that got no answer: with its causes, of which the last one
/// says what happened, and what to do about it.
pub(super) fn unanswered(address: &str, error: reqwest::Error) -> Error {
    let is_apart = error.is_connect() || error.is_timeout();
    // Addresses may be signed; the causes know none.
    let error = error.without_url();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    let mut detail = causes.join(": ");
    if is_apart {
        let host = Url::parse(address).ok();
        let host = host.as_ref().and_then(Url::host_str).unwrap_or("the hub");
        detail.push_str(&format!(
            "; no connection to {host}? check the network or HF_ENDPOINT, or open a local folder"
        ));
    }
    network(address, None, &detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_that_are_paths_are_refused() {
        for text in [
            "",
            "\"\"",
            "../../x",
            "/etc/passwd",
            "a/b",
            "a\\b",
            "a:b",
            ".",
            "..",
            "a.lock",
            "\0",
        ] {
            assert_eq!(Etag::parse(text), None, "{text:?}");
        }
        assert_eq!(Etag::parse("W/\"abc-2\"").unwrap().as_str(), "abc-2");
    }

    #[test]
    fn only_64_hexadecimal_digits_are_a_hash() {
        assert!(Etag::parse(&"a1".repeat(32)).unwrap().sha256().is_some());
        assert!(Etag::parse(&"a1".repeat(20)).unwrap().sha256().is_none());
        assert!(Etag::parse(&"g1".repeat(32)).unwrap().sha256().is_none());
    }
}
