//! A `.rec` file, read by offset.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::framing::{self, MAGIC_BYTES};
use super::{Header, sniff};
use crate::{Error, Result};

/// Bytes in which a first record is looked for if the start of the file is damaged.
const SEARCH: usize = 64 << 20;

/// A `.rec` file as a memory map. It has no file position, so many threads can read from one handle, and so can
/// the processes that a fork made.
///
/// The file must not be cut short while it is open: touching a page of the map that the file no longer has
/// raises
/// `SIGBUS`, which ends the process. Replacing the file by renaming another one over it, as the writer here
/// does, is safe, because the map keeps the old one.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    file: File,
    map: Mmap,
}

/// One record: its header and its content.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// What the record says about itself.
    pub header: Header,
    /// The content, usually an encoded image; borrowed from the file unless stored in several parts.
    pub payload: Cow<'a, [u8]>,
    /// Offset of the next record.
    pub end: u64,
}

impl RecordFile {
    /// Opens the file and checks that it holds records. A Git LFS pointer, an image, a text or a folder in
    /// its place is an error that says so.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, map) = map_file(path, ".rec file")?;
        let file = Self { path: path.to_owned(), file, map };
        let data = file.bytes();
        if data.starts_with(&MAGIC_BYTES) {
            return Ok(file);
        }
        let head = &data[..data.len().min(1024)];
        let reason = if data.is_empty() {
            "the file is empty; expected records".to_owned()
        } else if let Some(kind) = sniff::kind(head, data.len() as u64) {
            format!("not a RecordIO file: {kind}")
        } else if framing::resynchronise(&data[..data.len().min(SEARCH)], 0).is_some() {
            return Ok(file); // damage at the start, records after it
        } else {
            let bytes: Vec<_> = head.iter().take(4).map(|b| format!("{b:02x}")).collect();
            format!("not a RecordIO file: starts with the bytes {}; expected 0a 23 d7 ce", bytes.join(" "))
        };
        Err(Error::record(path, None, reason))
    }

    /// The file's path, as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, whatever has its name by now.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The bytes of the whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The record that starts at `offset`.
    pub fn record_at(&self, offset: u64) -> Result<Record<'_>> {
        let span =
            framing::span_at(self.bytes(), offset).map_err(|fault| self.broken(offset, fault.to_string()))?;
        let mut payload = span.payload(self.bytes());
        let (header, size) =
            Header::parse(&payload).map_err(|short| self.broken(offset, short.to_string()))?;
        match &mut payload {
            Cow::Borrowed(bytes) => *bytes = bytes.get(size..).unwrap_or_default(),
            Cow::Owned(bytes) => drop(bytes.drain(..size)),
        }
        Ok(Record { header, payload, end: span.end })
    }

    /// Asks the operating system to read these bytes into memory soon, so that many records are read at once.
    /// Bytes after the end of the file are ignored.
    pub fn will_need(&self, bytes: Range<u64>) {
        let size = self.map.len() as u64;
        let (start, end) = (bytes.start.min(size) as usize, bytes.end.min(size) as usize);
        #[cfg(unix)]
        if start < end {
            // Only a hint: a file system that ignores it reads later, and reports errors then.
            let _ = self.map.advise_range(memmap2::Advice::WillNeed, start, end - start);
        }
        #[cfg(not(unix))]
        let _ = (start, end);
    }

    fn broken(&self, offset: u64, reason: String) -> Error {
        Error::record(&self.path, Some(offset), reason)
    }
}

/// Maps a file for reading. `expected` names what it should be, for errors.
pub(crate) fn map_file(path: &Path, expected: &str) -> Result<(File, Mmap)> {
    // Before opening: opening a pipe would wait for somebody to write into it.
    let meta = fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if meta.is_dir() {
        let what = format!("is a folder; expected a {expected}");
        return Err(Error::io(path, io::Error::new(io::ErrorKind::IsADirectory, what)));
    }
    if !meta.is_file() {
        let what = format!("is a pipe or a device; expected a {expected}, a regular file");
        return Err(Error::io(path, io::Error::new(io::ErrorKind::InvalidInput, what)));
    }
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the map is only read. It cannot be proven that nobody changes the file meanwhile. Readers treat
    // its bytes as untrusted and check each index, so a change can cause wrong bytes or SIGBUS (see
    // `RecordFile`), but never a read outside the map.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    Ok((file, map))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Seek, SeekFrom, Write};

    use super::*;

    fn record(key: u64, content: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        Header { label: key as f32, id: key, ..Header::default() }.append_to(&mut payload);
        payload.extend_from_slice(content);
        let mut out = Vec::new();
        framing::append_record(&mut out, &payload);
        out
    }

    fn open(bytes: &[u8]) -> Result<RecordFile> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rec");
        fs::write(&path, bytes).unwrap();
        RecordFile::open(&path)
    }

    #[test]
    fn reads_by_position_from_threads() {
        let first = record(1, b"one");
        let file = open(&[first.clone(), record(2, &MAGIC_BYTES)].concat()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let one = file.record_at(0).unwrap();
                    assert_eq!((one.header.id, one.payload.as_ref()), (1, b"one".as_slice()));
                    assert!(matches!(one.payload, Cow::Borrowed(_)));
                    let two = file.record_at(one.end).unwrap();
                    assert_eq!((two.header.id, two.payload.as_ref()), (2, MAGIC_BYTES.as_slice()));
                    assert_eq!(two.end, file.bytes().len() as u64);
                });
            }
        });
        let message = file.record_at(4).unwrap_err().to_string();
        assert!(message.contains("a.rec, offset 4: no record starts here"), "{message}");
    }

    #[test]
    fn records_beyond_4_gib() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse.rec");
        let far = (5_u64 << 30) + 12;
        let mut file = File::create(&path).unwrap();
        file.write_all(&record(1, b"near")).unwrap();
        file.seek(SeekFrom::Start(far)).unwrap();
        file.write_all(&record(2, b"far")).unwrap();
        drop(file);
        let file = RecordFile::open(&path).unwrap();
        assert_eq!(file.record_at(0).unwrap().payload.as_ref(), b"near");
        assert_eq!(file.record_at(far).unwrap().payload.as_ref(), b"far");
    }

    #[test]
    fn what_is_not_a_rec_is_named() {
        let message = |bytes: &[u8]| open(bytes).unwrap_err().to_string();
        assert!(message(b"").contains("the file is empty"));
        assert!(message(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
        assert!(message(&[1, 2, 3, 4, 5]).contains("starts with the bytes 01 02 03 04"));
        let folder = tempfile::tempdir().unwrap();
        assert!(RecordFile::open(folder.path()).unwrap_err().to_string().contains("is a folder"));
        assert!(matches!(RecordFile::open(&folder.path().join("no.rec")), Err(Error::Io { .. })));
    }

    #[test]
    fn a_damaged_first_record_does_not_close_the_file() {
        let bytes = [vec![1; 8], record(2, b"two")].concat();
        assert_eq!(open(&bytes).unwrap().record_at(8).unwrap().header.id, 2);
    }
}
