//! The one error type of the crate.

use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong, each with what was found, what was expected, and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused: missing file, no permission, full disk.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The bytes of a record, an index line or an image are not what the format promises.
    #[error("{}", at(path, *key, *offset, what))]
    Record {
        /// The `.rec` or `.idx` file.
        path: PathBuf,
        /// The record's key, where one is known.
        key: Option<i64>,
        /// Byte offset of the record in the `.rec` file, where one is known.
        offset: Option<u64>,
        /// What was found and what was expected.
        what: String,
    },
    /// An argument has a wrong shape, length or value.
    #[error("{0}")]
    Value(String),
    /// The caller raised the [`Interrupt`](crate::Interrupt).
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// An [`Error::Io`] about `path`.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// The same error with the record's key, for callers that know it.
    #[must_use]
    pub fn with_key(mut self, record: i64) -> Self {
        if let Self::Record { key, .. } = &mut self {
            *key = Some(record);
        }
        self
    }
}

fn at(path: &Path, key: Option<i64>, offset: Option<u64>, what: &str) -> String {
    use std::fmt::Write;
    let mut text = path.display().to_string();
    if let Some(key) = key {
        let _ = write!(text, ", key {key}");
    }
    if let Some(offset) = offset {
        let _ = write!(text, ", offset {offset}");
    }
    let _ = write!(text, ": {what}");
    text
}
