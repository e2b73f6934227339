//! The one error type of the crate.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, each with what was found, what was expected, and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused: missing file, no permission, full disk.
    #[error("{location}: {source}")]
    Io {
        /// The file, and where in it, if that could not be read.
        location: Location,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The bytes of a record, an index line or an image are not what the format promises.
    #[error("{location}: {reason}")]
    Record {
        /// Where the bytes are.
        location: Location,
        /// What was found and what was expected, without the location.
        reason: String,
    },
    /// An argument has a wrong shape, length or value.
    #[error("{0}")]
    Value(String),
    /// There is not enough memory for something that grows with the input.
    #[error("not enough memory: {}{advice}", shortage(*bytes, what, *available))]
    Memory {
        /// Bytes that could not be allocated at once.
        bytes: u64,
        /// What they were for.
        what: Cow<'static, str>,
        /// Bytes that are available. None if the operating system refused, and did not say why.
        available: Option<u64>,
        /// What to do, after a separator; empty if nobody knows.
        advice: String,
    },
    /// The caller raised the [`Interrupt`](crate::Interrupt).
    #[error("interrupted")]
    Interrupted,
}

/// "1 byte", "2,000 bytes": a number and its noun.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// "1,234,567": a number in groups of digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// "3.4 GB", "12 MB", "1,234 bytes".
pub(crate) fn in_bytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => counted(bytes, "byte"),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn shortage(bytes: u64, what: &str, available: Option<u64>) -> String {
    let left = available.map(|left| format!(", and {} are available", in_bytes(left)));
    format!("{} for {what}{}", in_bytes(bytes), left.unwrap_or_default())
}

/// Where a record or an image is, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Location {
    /// The `.rec` or `.idx` file; none for an image that was handed over in memory.
    pub file: Option<PathBuf>,
    /// The record's key.
    pub key: Option<i64>,
    /// Byte offset of the record in the `.rec` file.
    pub offset: Option<u64>,
    /// Index of the image in the batch that was to be decoded.
    pub position: Option<usize>,
}

impl Error {
    /// An [`Error::Io`] about `path`.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        let location = Location { file: Some(path.to_owned()), ..Location::default() };
        Self::Io { location, source }
    }

    /// An [`Error::Record`] about a whole file, or about the record at `offset`.
    pub fn record(file: &Path, offset: Option<u64>, reason: String) -> Self {
        let location = Location { file: Some(file.to_owned()), offset, ..Location::default() };
        Self::Record { location, reason }
    }

    /// The same error with a byte offset.
    #[must_use]
    pub fn with_offset(self, offset: u64) -> Self {
        self.located(|location| location.offset = Some(offset))
    }

    /// The same error with the record's key, for callers that know it.
    #[must_use]
    pub fn with_key(self, key: i64) -> Self {
        self.located(|location| location.key = Some(key))
    }

    /// The same error with the image's index in the batch, for callers that know it.
    #[must_use]
    pub fn with_position(self, position: usize) -> Self {
        self.located(|location| location.position = Some(position))
    }

    /// The same error about memory with advice, which begins with its separator.
    #[must_use]
    pub fn with_advice(mut self, more: String) -> Self {
        if let Self::Memory { advice, .. } = &mut self {
            *advice = more;
        }
        self
    }

    /// The same error about a record with another reason, for callers that know more.
    #[must_use]
    pub fn with_reason(mut self, change: impl FnOnce(String) -> String) -> Self {
        if let Self::Record { reason, .. } = &mut self {
            *reason = change(std::mem::take(reason));
        }
        self
    }

    fn located(mut self, change: impl FnOnce(&mut Location)) -> Self {
        if let Self::Record { location, .. } | Self::Io { location, .. } = &mut self {
            change(location);
        }
        self
    }

    /// The error of one image among many, if the rest can do without it: [`Error::Record`]. A block that the disk
    /// cannot read is one. Other errors of the operating system concern the whole file, and stay what they are.
    pub fn of_one_record(self) -> Result<Self> {
        const EIO: i32 = 5;
        match self {
            Self::Record { .. } => Ok(self),
            Self::Io { location, source } if source.raw_os_error() == Some(EIO) => {
                Ok(Self::Record { location, reason: format!("the disk cannot read it: {source}") })
            }
            other => Err(other),
        }
    }
}

impl Location {
    /// Where in the file, to follow its name.
    pub(crate) fn in_file(&self) -> String {
        let key = self.key.map(|key| format!(", key {key}")).unwrap_or_default();
        let offset = self.offset.map(|offset| format!(", offset {offset}")).unwrap_or_default();
        key + &offset
    }
}

impl Display for Location {
    /// A file, with key and offset; for an image in memory its position in the batch.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (&self.file, self.position) {
            (Some(file), _) => write!(f, "{}", file.display())?,
            (None, Some(position)) => write!(f, "image [{position}]")?,
            (None, None) => write!(f, "image")?,
        }
        f.write_str(&self.in_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bytes_can_be_read() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        let bytes = [1, 999_999, 1_000_000, 2_549_000_000].map(in_bytes);
        assert_eq!(bytes, ["1 byte", "999,999 bytes", "1.0 MB", "2.5 GB"]);
    }

    #[test]
    fn a_message_says_where_and_why() {
        let error = Error::record(Path::new("a.rec"), None, "the file is empty".into());
        assert_eq!(error.to_string(), "a.rec: the file is empty");
        // The position in a batch is for programs; a record is found by its file, key and offset.
        let error =
            Error::record(Path::new("a.rec"), Some(8), "cut off".into()).with_key(-1).with_position(3);
        assert_eq!(error.to_string(), "a.rec, key -1, offset 8: cut off");
        let error =
            Error::Record { location: Location::default(), reason: "cut off".into() }.with_position(3);
        assert_eq!(error.to_string(), "image [3]: cut off");
        assert_eq!(Error::Interrupted.with_key(1).with_position(3).to_string(), "interrupted");
    }
}
