//! Where the Hub and its cache are: options first, environment second, defaults last.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::files::read_capped;
use crate::options::{Network, Refresh, Token};
use crate::{Error, OpenOptions, Result};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const TOKEN_BYTES: u64 = 4096;

/// Why a cache is all there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offline {
    /// The caller wants it so.
    Option,
    /// The environment wants it so.
    Variable,
    /// This build has no client.
    #[cfg(not(feature = "download"))]
    Build,
}

impl fmt::Display for Offline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Option => "nothing may be downloaded with --offline (`Network::Offline`)",
            Self::Variable => "nothing may be downloaded while HF_HUB_OFFLINE is set",
            #[cfg(not(feature = "download"))]
            Self::Build => "this program was built without the feature `download`",
        })
    }
}

/// Everything that depends on the environment, resolved once.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(feature = "download"),
    expect(dead_code, reason = "the cache needs no endpoint and no token")
)]
pub(crate) struct HubSettings {
    pub(crate) cache: PathBuf,
    pub(crate) endpoint: String,
    pub(crate) token: Option<Token>,
    /// Why nothing may be fetched; `None` when it may.
    pub(crate) offline: Option<Offline>,
    pub(crate) refresh: Refresh,
}

impl HubSettings {
    /// Resolves the settings against the environment of this process.
    pub(crate) fn resolve(options: &OpenOptions) -> Result<Self> {
        Self::resolve_with(options, &|name| std::env::var_os(name))
    }

    /// Resolves the settings against `environment`, which says what a variable is.
    fn resolve_with(
        options: &OpenOptions,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let home = || match set("HF_HOME") {
            Some(home) => Some(PathBuf::from(home)),
            None => set("HOME")
                .or_else(|| set("USERPROFILE"))
                .map(|h| Path::new(&h).join(".cache/huggingface")),
        };
        let cache = options
            .cache_dir
            .clone()
            .or_else(|| set("HF_HUB_CACHE").map(PathBuf::from));
        let cache = cache
            .or_else(|| home().map(|home| home.join("hub")))
            .ok_or_else(|| Error::NotFound {
                what: "folder for the hub cache".to_owned(),
                hint: "set HF_HOME or HF_HUB_CACHE".to_owned(),
            })?;
        let endpoint = match (&options.endpoint, set("HF_ENDPOINT")) {
            (Some(endpoint), _) => endpoint.clone(),
            (None, Some(endpoint)) => endpoint.to_string_lossy().into_owned(),
            (None, None) => DEFAULT_ENDPOINT.to_owned(),
        };
        let token = match (&options.token, set("HF_TOKEN")) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(token)) => Some(Token::new(&token.to_string_lossy())),
            (None, None) => read_token(
                set("HF_TOKEN_PATH").map(PathBuf::from),
                home().map(|home| home.join("token")),
            )?,
        };
        let variable = set("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value));
        let offline = match options.network {
            Network::Offline => Some(Offline::Option),
            Network::Allowed => variable.then_some(Offline::Variable),
        };
        Ok(Self {
            cache,
            endpoint: checked_endpoint(&endpoint)?,
            token,
            offline,
            refresh: options.refresh,
        })
    }
}

/// The values that Python's client takes for "yes".
fn is_true(value: &OsString) -> bool {
    matches!(
        value.to_string_lossy().to_ascii_uppercase().as_str(),
        "1" | "ON" | "YES" | "TRUE"
    )
}

/// The token file that was asked for, or the usual one if it exists.
fn read_token(chosen: Option<PathBuf>, usual: Option<PathBuf>) -> Result<Option<Token>> {
    let path = match (chosen, usual.filter(|path| path.is_file())) {
        (Some(path), _) | (None, Some(path)) => path,
        (None, None) => return Ok(None),
    };
    let bytes = read_capped(&path, TOKEN_BYTES, "token file bytes")?;
    let token = Token::new(&String::from_utf8_lossy(&bytes));
    Ok((token != Token::new("")).then_some(token))
}

fn checked_endpoint(endpoint: &str) -> Result<String> {
    let trimmed = endpoint.trim_end_matches('/');
    let host = trimmed
        .strip_prefix("https://")
        .or_else(|| trimmed.strip_prefix("http://"));
    // Credentials in an address would end up in messages.
    let valid = |host: &str| {
        !host.is_empty()
            && host
                .chars()
                .all(|c| c.is_ascii_graphic() && !matches!(c, '@' | '?' | '#' | '\\'))
    };
    match host {
        Some(host) if valid(host) => Ok(trimmed.to_owned()),
        _ => Err(Error::InvalidInput(
            "the hub endpoint is not an address like https://huggingface.co without credentials"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(options: &OpenOptions, variables: &[(&str, &str)]) -> Result<HubSettings> {
        let find = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        };
        HubSettings::resolve_with(options, &find)
    }

    #[test]
    fn cache_folder_comes_from_the_most_specific_setting() {
        let all = [
            ("HOME", "/h"),
            ("HF_HOME", "/hf"),
            ("HF_HUB_CACHE", "/cache"),
        ];
        let cache = |options: &OpenOptions, variables: &[(&str, &str)]| {
            resolve(options, variables).unwrap().cache
        };
        let unset = OpenOptions::default();
        assert_eq!(
            cache(&unset.clone().cache_dir("/mine"), &all),
            Path::new("/mine")
        );
        assert_eq!(cache(&unset, &all), Path::new("/cache"));
        assert_eq!(cache(&unset, &all[..2]), Path::new("/hf/hub"));
        assert_eq!(
            cache(&unset, &all[..1]),
            Path::new("/h/.cache/huggingface/hub")
        );
        assert!(resolve(&unset, &[]).is_err());
    }

    #[test]
    fn fs_05_offline_variable_wins_over_the_option() {
        let options = OpenOptions::default().network(Network::Allowed);
        let offline = |options: &OpenOptions, value| {
            let settings = resolve(options, &[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]);
            settings.unwrap().offline
        };
        for (value, expected) in [
            ("1", Some(Offline::Variable)),
            ("true", Some(Offline::Variable)),
            ("0", None),
        ] {
            assert_eq!(offline(&options, value), expected, "{value}");
        }
        let options = options.network(Network::Offline);
        assert_eq!(offline(&options, "0"), Some(Offline::Option));
    }

    #[test]
    fn token_comes_from_option_variable_or_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "from-file\n").unwrap();
        let file = file.to_str().unwrap();
        let token = |options: &OpenOptions, variables: &[(&str, &str)]| {
            resolve(options, variables).unwrap().token
        };
        let unset = OpenOptions::default();
        let all = [
            ("HOME", "/h"),
            ("HF_TOKEN_PATH", file),
            ("HF_TOKEN", "from-variable"),
        ];
        assert_eq!(
            token(&unset.clone().token(Token::new("mine")), &all),
            Some(Token::new("mine"))
        );
        assert_eq!(token(&unset, &all), Some(Token::new("from-variable")));
        assert_eq!(token(&unset, &all[..2]), Some(Token::new("from-file")));
        assert_eq!(token(&unset, &all[..1]), None);
    }

    #[test]
    fn fs_08_token_is_not_in_debug_output() {
        let options = OpenOptions::default().token(Token::new("hf_secret"));
        let settings = resolve(&options, &[("HOME", "/h")]).unwrap();
        assert!(!format!("{options:?} {settings:?}").contains("hf_secret"));
    }

    #[test]
    fn endpoints_with_credentials_or_without_scheme_are_refused_without_echo() {
        for endpoint in [
            "huggingface.co",
            "ftp://host",
            "https://user:pass@host",
            "https://",
            "https://host?x",
        ] {
            let error = resolve(
                &OpenOptions::default().endpoint(endpoint),
                &[("HOME", "/h")],
            )
            .unwrap_err();
            assert!(!error.to_string().contains("pass@"), "{endpoint}");
        }
        let settings = resolve(
            &OpenOptions::default(),
            &[("HOME", "/h"), ("HF_ENDPOINT", "http://mirror/")],
        )
        .unwrap();
        assert_eq!(settings.endpoint, "http://mirror");
    }
}
