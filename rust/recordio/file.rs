//! A file that is read by offset.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::window::ReadAt;
use crate::error::{Location, counted, grouped};
use crate::{Error, Result};

/// A regular file, open for reading. Its size is what it was when it was opened.
#[derive(Debug)]
pub(crate) struct OpenFile {
    path: PathBuf,
    file: File,
    size: u64,
}

impl OpenFile {
    /// Opens a file. `expected` names what it should be, for errors.
    pub fn open(path: &Path, expected: &str) -> Result<Self> {
        let failed = |e| Error::io(path, e);
        // Before opening: opening a pipe would wait for somebody to write into it.
        let meta = fs::metadata(path).map_err(failed)?;
        if meta.is_dir() {
            let what = format!("is a folder; expected a {expected}");
            return Err(failed(io::Error::new(io::ErrorKind::IsADirectory, what)));
        }
        if !meta.is_file() {
            let what = format!("is a pipe or a device; expected a {expected}, a regular file");
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, what)));
        }
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Ok(Self { path: path.to_owned(), file, size })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// The error about bytes that were there when the file was opened.
    fn cut(&self, offset: u64) -> Error {
        let now = self.file.metadata().map_or(0, |meta| meta.len());
        let reason = format!(
            "the file was cut short while it was open: it had {} and has {}",
            counted(self.size, "byte"),
            grouped(now)
        );
        Error::record(&self.path, Some(offset), reason)
    }
}

impl ReadAt for OpenFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.cut(offset),
            _ => self.failed(offset, error),
        })
    }

    fn place(&self, offset: u64) -> Location {
        Location { file: Some(self.path.clone()), offset: Some(offset), ..Location::default() }
    }

    /// A hint, which only Linux is given. A file system that ignores it reads later, and reports errors then.
    #[cfg(target_os = "linux")]
    fn will_need(&self, offset: u64, length: u64) {
        let Some(length) = length.try_into().ok().filter(|_| offset < self.size) else { return };
        let _ = rustix::fs::fadvise(&self.file, offset, Some(length), rustix::fs::Advice::WillNeed);
    }
}
