//! Reading and writing files without surprises: size caps, checked names, no half-written results.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};

use crate::{Error, Result};

/// What to do when the file to write is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Leave it alone and fail.
    #[default]
    Refuse,
    /// Replace it once the new file is complete.
    Replace,
}

/// Whether symbolic links inside a checkpoint may lead out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Links {
    /// Only to files of the same checkpoint folder, or of the same repository of a Hub cache.
    #[default]
    Inside,
    /// Anywhere: the folder is trusted.
    Trusted,
}

/// Writes a file by way of a temporary one next to it, so that at any moment `path` holds either
/// the old contents or the complete new ones.
///
/// # Errors
/// [`Error::InvalidInput`] when `path` exists and `overwrite` refuses; [`Error::NotFound`] when its
/// folder does not exist; [`Error::Io`] otherwise; or whatever `write` returned. In every case the
/// old file stays as it was.
pub fn write_atomic(
    path: &Path,
    overwrite: Overwrite,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    let folder = write_renamed(path, overwrite, |writer| {
        write(writer)?;
        let flushed = writer.flush().and_then(|()| writer.get_ref().sync_all());
        flushed.map_err(|source| Error::io(path, source))
    })?;
    sync_folder(folder);
    Ok(())
}

/// [`write_atomic`] without waiting for the disk. The file is complete or absent for every program, but
/// after a power failure it can have holes, so its format has to notice.
pub(crate) fn write_unsynced(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    write_renamed(path, Overwrite::Replace, write).map(|_| ())
}

/// Writes a temporary file and gives it its name; says in which folder.
fn write_renamed(
    path: &Path,
    overwrite: Overwrite,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<&Path> {
    let refused = || {
        Error::InvalidInput(format!(
            "{}: file exists, not overwriting it",
            path.display()
        ))
    };
    if overwrite == Overwrite::Refuse && path.symlink_metadata().is_ok() {
        return Err(refused());
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary = temporary_in(folder)?;
    let (file, temporary_path) = temporary.into_parts();
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    write(&mut writer)?;
    let file = writer
        .into_inner()
        .map_err(|error| Error::io(path, error.into_error()))?;
    drop(file);
    match overwrite {
        Overwrite::Replace => temporary_path.persist(path),
        Overwrite::Refuse => temporary_path.persist_noclobber(path),
    }
    .map_err(|error| match error.error.kind() {
        std::io::ErrorKind::AlreadyExists => refused(),
        _ => Error::io(path, error.error),
    })?;
    Ok(folder)
}

/// A temporary file with the permissions of an ordinary one; tempfile's own are for secrets.
fn temporary_in(folder: &Path) -> Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".lfm2-").suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
        .tempfile_in(folder)
        .map_err(|source| match source.kind() {
            // The system's words would name a temporary file that nobody asked for.
            std::io::ErrorKind::NotFound => Error::NotFound {
                what: format!("folder {}", folder.display()),
                hint: "make it first".to_owned(),
            },
            _ => Error::io(folder, source),
        })
}

/// Makes a rename durable. Not every file system can sync a folder, and the data itself is safe
/// already, so a failure only costs the guarantee against power loss.
fn sync_folder(folder: &Path) {
    if let Err(error) = File::open(folder).and_then(|handle| handle.sync_all()) {
        tracing::debug!(folder = %folder.display(), %error, "could not sync the folder");
    }
}

/// Reads a whole file of at most `limit` bytes; `what` names the limit in the error.
pub(crate) fn read_capped(path: &Path, limit: u64, what: &str) -> Result<Vec<u8>> {
    let io = |source| Error::io(path, source);
    let file = open_file(path)?;
    let found = file.metadata().map_err(io)?.len();
    let over = |found| Error::Limit {
        what: format!("{}: {what}", path.display()),
        limit,
        found,
    };
    if found > limit {
        return Err(over(found));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed: the file may grow while it is read, or be a pipe of size 0.
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(io)?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= limit => Ok(bytes),
        _ => Err(over(limit.saturating_add(1))),
    }
}

/// Opens a file for reading, and says so when it is a folder.
pub(crate) fn open_file(path: &Path) -> Result<File> {
    let io = |source| Error::io(path, source);
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.is_dir() {
        return Err(Error::io(path, std::io::ErrorKind::IsADirectory.into()));
    }
    Ok(file)
}

/// Whether `name` can only mean one file directly inside a folder, on every system.
pub(crate) fn is_plain_file_name(name: &str) -> bool {
    let plain = |c: char| !c.is_control() && !matches!(c, '/' | '\\' | ':');
    !matches!(name, "" | "." | "..") && name.len() <= 255 && name.chars().all(plain)
}

/// Whether `name` can only mean one file in a folder or in a folder within it.
pub(crate) fn is_plain_path(name: &str) -> bool {
    match name.split_once('/') {
        None => is_plain_file_name(name),
        Some((folder, file)) => is_plain_file_name(folder) && is_plain_file_name(file),
    }
}

/// A folder whose files are only reached through [`Folder::file`].
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    /// The folder of the whole checkpoint: this one, or the one it is in.
    root: PathBuf,
    links: Links,
}

impl Folder {
    pub(crate) fn new(path: impl Into<PathBuf>, links: Links) -> Self {
        let path = path.into();
        Self {
            root: path.clone(),
            path,
            links,
        }
    }

    /// The folder `name` in this one, or `None` when there is none.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub(crate) fn inside(&self, name: &str) -> Result<Option<Self>> {
        let found = self.file(name)?.filter(|path| path.is_dir());
        Ok(found.map(|path| Self {
            path,
            root: self.root.clone(),
            links: self.links,
        }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the file `name` in this folder, or `None` when there is none.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] when the name is not a plain one or a link leads out of the folder,
    /// [`Error::NotFound`] for a link that leads nowhere.
    pub(crate) fn file(&self, name: &str) -> Result<Option<PathBuf>> {
        if !is_plain_file_name(name) {
            return Err(Error::invalid_file(
                &self.path,
                format!("{name:?} is not a plain file name"),
            ));
        }
        let path = self.path.join(name);
        let link = match path.symlink_metadata() {
            Ok(metadata) => metadata.file_type().is_symlink(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&path, error)),
        };
        if !link {
            return Ok(Some(path));
        }
        let target = path
            .canonicalize()
            .map_err(|error| dangling(&path, error))?;
        if self.links == Links::Inside && !target.starts_with(self.fence()?) {
            let detail =
                "is a link out of the checkpoint folder; allow links if you trust the folder";
            return Err(Error::invalid_file(path, detail));
        }
        Ok(Some(path))
    }

    /// The file `name`, which has to exist.
    pub(crate) fn required(&self, name: &str, hint: &str) -> Result<PathBuf> {
        self.file(name)?.ok_or_else(|| Error::NotFound {
            what: self.path.join(name).display().to_string(),
            hint: hint.to_owned(),
        })
    }

    /// The folder that links may not leave. Snapshots of a Hub cache are made of links into the
    /// `blobs` of the same repository.
    fn fence(&self) -> Result<PathBuf> {
        let own = self
            .root
            .canonicalize()
            .map_err(|source| Error::io(&self.root, source))?;
        let repository = own
            .parent()
            .filter(|p| p.ends_with("snapshots"))
            .and_then(Path::parent);
        let is_repository = |p: &&Path| match p.components().next_back() {
            Some(Component::Normal(name)) => name.to_string_lossy().starts_with("models--"),
            _ => false,
        };
        Ok(repository
            .filter(is_repository)
            .map_or(own.clone(), Path::to_path_buf))
    }
}

fn dangling(path: &Path, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        Error::NotFound {
            what: format!("the target of the link {}", path.display()),
            hint: "the cache is damaged: remove the link and download again".to_owned(),
        }
    } else {
        Error::io(path, error)
    }
}
