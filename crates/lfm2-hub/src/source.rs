//! [`ModelSource`]: where a checkpoint is.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::files::is_plain_file_name;
use crate::{Error, Result};

/// Where a checkpoint is. Nothing is opened by making one, but parsing text looks at the disk to
/// tell a folder from a name.
///
/// ```
/// use lfm2_hub::ModelSource;
///
/// # fn main() -> lfm2_hub::Result<()> {
/// let hub: ModelSource = "LiquidAI/LFM2-350M@main".parse()?;
/// let file: ModelSource = "./LFM2-350M-Q4_0.gguf".parse()?;
/// assert!(matches!(hub, ModelSource::Hub { .. }));
/// assert!(matches!(file, ModelSource::Gguf(_)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModelSource {
    /// A repository of the Hugging Face Hub, or of a server that looks like it.
    Hub {
        /// Which repository.
        id: RepoId,
        /// Which version of it.
        revision: Revision,
    },
    /// One GGUF file of such a repository.
    HubGguf {
        /// Which repository.
        id: RepoId,
        /// Which version of it.
        revision: Revision,
        /// The file's name.
        file: String,
    },
    /// A folder with `config.json` and safetensors files, or a config file alone, which is enough
    /// to look at a model.
    Dir(PathBuf),
    /// One GGUF file.
    Gguf(PathBuf),
}

impl ModelSource {
    /// The source at a path: GGUF by its extension or its first bytes, else a folder.
    pub fn from_path(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        if has_gguf_extension(&path) || (path.is_file() && has_gguf_magic(&path)) {
            Self::Gguf(path)
        } else {
            Self::Dir(path)
        }
    }

    /// The default revision of a Hub repository.
    pub fn hub(id: RepoId) -> Self {
        Self::Hub {
            id,
            revision: Revision::default(),
        }
    }
}

impl FromStr for ModelSource {
    type Err = Error;

    /// An existing path, or text that looks like one, is a folder or file. Everything else is
    /// `organisation/name` with an optional `@revision` behind it. A GGUF file of a repository is
    /// `organisation/name:file.gguf`, or `organisation/name-GGUF:Q4_0` for `name-Q4_0.gguf`.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the text is neither.
    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::InvalidInput(
                "the model is empty; give a folder, a gguf file or org/name".to_owned(),
            ));
        }
        let path = Path::new(text);
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (text, None),
        };
        let parts = name
            .split_once(':')
            .map(|(id, file)| (id.parse::<RepoId>(), file));
        let is_repository_file = matches!(parts, Some((Ok(_), _)));
        if path.exists() || (looks_like_path(text) && !is_repository_file) {
            return Ok(Self::from_path(path));
        }
        let revision = revision.map(str::parse).transpose()?.unwrap_or_default();
        match parts {
            Some((id, file)) => {
                let id = id?;
                let file = gguf_file(&id, file)?;
                Ok(Self::HubGguf { id, revision, file })
            }
            None => Ok(Self::Hub {
                id: name.parse()?,
                revision,
            }),
        }
    }
}

impl TryFrom<&str> for ModelSource {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        text.parse()
    }
}

impl TryFrom<String> for ModelSource {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<PathBuf> for ModelSource {
    fn from(path: PathBuf) -> Self {
        Self::from_path(path)
    }
}

impl From<&Path> for ModelSource {
    fn from(path: &Path) -> Self {
        Self::from_path(path)
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { id, revision } => write!(f, "{id}{}", revision.suffix()),
            Self::HubGguf { id, revision, file } => write!(f, "{id}:{file}{}", revision.suffix()),
            Self::Dir(path) | Self::Gguf(path) => path.display().fmt(f),
        }
    }
}

/// The file that is meant by what stands behind the colon: its name, or only its quantisation.
fn gguf_file(id: &RepoId, text: &str) -> Result<String> {
    let file = if has_gguf_extension(Path::new(text)) || text.is_empty() {
        text.to_owned()
    } else {
        format!("{}-{text}.gguf", id.name().trim_end_matches("-GGUF"))
    };
    if is_plain_file_name(&file) {
        Ok(file)
    } else {
        Err(Error::InvalidInput(format!(
            "{text:?} is neither a gguf file name nor a quantisation like Q4_0"
        )))
    }
}

fn looks_like_path(text: &str) -> bool {
    let prefixed = ["./", "../", "/", "~", ".\\", "..\\"]
        .iter()
        .any(|prefix| text.starts_with(prefix));
    let rooted = text.get(1..3).is_some_and(|s| matches!(s, ":\\" | ":/"));
    // `file.gguf` and `folder/file.gguf` can only be meant as files, also when they are missing.
    prefixed || rooted || matches!(text, "." | "..") || has_gguf_extension(Path::new(text))
}

fn has_gguf_extension(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

fn has_gguf_magic(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut magic))
        .is_ok()
        && &magic == b"GGUF"
}

/// `organisation/name` of a repository. Holding one means it is safe in paths and addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoId {
    owner: String,
    name: String,
}

impl RepoId {
    /// The organisation or user.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The repository's own name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for RepoId {
    type Err = Error;

    /// # Errors
    /// [`Error::InvalidInput`] unless the text is two names of letters, digits, `-`, `_` and `.`
    /// with one slash between them.
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('/') {
            Some((owner, name)) if is_repo_part(owner) && is_repo_part(name) => Ok(Self {
                owner: owner.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(Error::InvalidInput(format!(
                "{text:?} is neither an existing path nor a repository id like LiquidAI/LFM2-350M"
            ))),
        }
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// The rules of the Hub. `--` separates the parts of an id in cache folders, so it may not be in one.
fn is_repo_part(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: char| matches!(c, '-' | '.');
    (1..=96).contains(&part.len())
        && part.chars().all(allowed)
        && !part.starts_with(edge)
        && !part.ends_with(edge)
        && !part.contains("..")
        && !part.contains("--")
}

/// A branch, tag or commit of a repository; `main` by default.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revision(String);

impl Revision {
    /// The text of the revision.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands behind the name of a repository: `@` and the revision, or nothing for `main`.
    pub(crate) fn suffix(&self) -> String {
        if *self == Self::default() {
            String::new()
        } else {
            format!("@{self}")
        }
    }

    /// Whether this is a full commit hash, which never changes its meaning.
    pub fn is_commit(&self) -> bool {
        is_commit(&self.0)
    }
}

impl Default for Revision {
    fn default() -> Self {
        Self("main".to_owned())
    }
}

impl FromStr for Revision {
    type Err = Error;

    /// # Errors
    /// [`Error::InvalidInput`] unless the text is a plausible git revision without spaces, `..` or
    /// empty parts.
    fn from_str(text: &str) -> Result<Self> {
        let allowed =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+');
        let part = |part: &str| {
            !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with(".lock")
        };
        let valid = text.len() <= 200
            && text.chars().all(allowed)
            && !text.contains("..")
            && text.split('/').all(part);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::InvalidInput(format!(
                "{text:?} is not a revision; give a branch, a tag or a commit hash"
            )))
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` is a full git commit hash.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
