//! A `.rec` file, read by offset.

use std::borrow::Cow;
use std::fs::File;
use std::path::Path;

use super::file::OpenFile;
use super::framing::{self, MAGIC_BYTES, Span};
use super::header::Fixed;
use super::window::{ReadAt, Window};
use super::{Header, sniff};
use crate::error::Location;
use crate::{Error, Result};

/// Bytes in which a first record is looked for if the start of the file is damaged.
const SEARCH: u64 = 64 << 20;
/// Bytes before the content: the framing, a header and a few labels.
pub const BEFORE_CONTENT: usize = 64;
/// The content of a record of unknown length: most images of 112 x 112 have 4 to 12 KiB. What a longer one has
/// beyond that costs a second read.
pub const USUAL_LENGTH: usize = 16 << 10;

/// A `.rec` file. It has no file position, so many threads can read from one handle, and so can the processes that
/// a fork made.
///
/// It is read with `pread`, and not through a memory map, where each error of the disk ends the process. So a file
/// may be cut short or overwritten while it is open: bytes that are gone are an error, and others are checked like
/// those of any file. If another file is renamed over it, the old one is read on.
#[derive(Debug)]
pub struct RecordFile {
    file: OpenFile,
}

/// One record: its header and its content.
#[derive(Clone, Debug)]
pub struct Record {
    /// What the record says about itself.
    pub header: Header,
    /// The content, usually an encoded image.
    pub content: Vec<u8>,
    /// Offset of the next record.
    pub end: u64,
}

impl RecordFile {
    /// Opens the file and checks that it holds records. A Git LFS pointer, an image, a text or a folder in
    /// its place is an error that says so.
    pub fn open(path: &Path) -> Result<Self> {
        let file = Self { file: OpenFile::open(path, ".rec file")? };
        let (mut buffer, size) = (Vec::new(), file.size());
        let mut window = Window::new(&file, &mut buffer);
        let head = window.get(0, 1024)?.to_owned();
        if head.starts_with(&MAGIC_BYTES) {
            return Ok(file);
        }
        let reason = if head.is_empty() {
            "the file is empty; expected records".to_owned()
        } else if let Some(kind) = sniff::kind(&head, size) {
            format!("not a RecordIO file: {kind}")
        } else if framing::resynchronise(&mut window, 0, SEARCH)?.is_some() {
            return Ok(file); // damage at the start, records after it
        } else {
            let bytes: Vec<_> = head.iter().take(4).map(|b| format!("{b:02x}")).collect();
            format!("not a RecordIO file: starts with the bytes {}; expected 0a 23 d7 ce", bytes.join(" "))
        };
        Err(Error::record(path, None, reason))
    }

    /// The file's path, as given.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The open file.
    pub fn file(&self) -> &File {
        self.file.file()
    }

    /// The record that starts at `offset`.
    pub fn record_at(&self, offset: u64) -> Result<Record> {
        // Of whichever bytes could not be read, the record is what can be looked for.
        self.read_record(offset).map_err(|error| error.with_offset(offset))
    }

    fn read_record(&self, offset: u64) -> Result<Record> {
        let mut buffer = Vec::new();
        let (window, span) = self.window_at(offset, USUAL_LENGTH, &mut buffer)?;
        let payload = span.payload(window)?;
        let (header, size) =
            Header::parse(&payload).map_err(|short| self.broken(offset, short.to_string()))?;
        let content = payload.get(size..).unwrap_or_default().to_owned();
        Ok(Record { header, content, end: span.end })
    }

    /// The content of the record that starts at `offset`, read through `buffer`: with one call to the operating
    /// system if it has at most `length` bytes. Before more is read, `check` sees the header and the real length.
    pub fn content_at<'b>(
        &'b self,
        offset: u64,
        length: usize,
        buffer: &'b mut Vec<u8>,
        check: impl FnOnce(&Fixed, u64) -> Result<(), String>,
    ) -> Result<Cow<'b, [u8]>> {
        let (mut window, span) = self.window_at(offset, length, buffer)?;
        let broken = |reason: String| self.broken(offset, reason);
        let header = Fixed::read(&span, &mut window)?.0.map_err(|short| broken(short.to_string()))?;
        check(&header, span.length.saturating_sub(header.size as u64)).map_err(broken)?;
        let mut payload = span.payload(window)?;
        match &mut payload {
            Cow::Borrowed(bytes) => *bytes = bytes.get(header.size..).unwrap_or_default(),
            Cow::Owned(bytes) => drop(bytes.drain(..header.size.min(bytes.len()))),
        }
        Ok(payload)
    }

    fn window_at<'b>(
        &'b self,
        offset: u64,
        length: usize,
        buffer: &'b mut Vec<u8>,
    ) -> Result<(Window<'b>, Span)> {
        let mut window = Window::expecting(length.saturating_add(BEFORE_CONTENT), self, buffer);
        let span = framing::span_at(&mut window, offset)?;
        let span = span.map_err(|fault| self.broken(offset, fault.to_string()))?;
        Ok((window, span))
    }

    fn broken(&self, offset: u64, reason: String) -> Error {
        Error::record(self.path(), Some(offset), reason)
    }
}

impl ReadAt for RecordFile {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn place(&self, offset: u64) -> Location {
        self.file.place(offset)
    }

    fn will_need(&self, offset: u64, length: u64) {
        self.file.will_need(offset, length);
    }
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
                    assert_eq!((one.header.id, one.content.as_slice()), (1, b"one".as_slice()));
                    let two = file.record_at(one.end).unwrap();
                    assert_eq!((two.header.id, two.content.as_slice()), (2, MAGIC_BYTES.as_slice()));
                    assert_eq!(two.end, file.size());
                });
            }
        });
        let message = file.record_at(4).unwrap_err().to_string();
        assert!(message.contains("a.rec, offset 4: no record starts here"), "{message}");
    }

    #[test]
    fn contents_are_read_whatever_length_was_expected() {
        let long = vec![7; 1000];
        let file = open(&[record(1, &long), record(2, &MAGIC_BYTES.repeat(9))].concat()).unwrap();
        let mut buffer = Vec::new();
        for expected in [0, 1, 999, 1000, 1001, 5000, usize::MAX] {
            let mut read = |offset| {
                let content = file.content_at(offset, expected, &mut buffer, |_, _| Ok(())).unwrap();
                (matches!(content, Cow::Borrowed(_)), content.into_owned())
            };
            assert_eq!(read(0), (true, long.clone()));
            assert_eq!(read(1032), (false, MAGIC_BYTES.repeat(9)));
        }
        let refuse = |header: &Fixed, length| Err(format!("{} of {length}", header.id));
        let mut buffer = Vec::new();
        let error = file.content_at(0, 5, &mut buffer, refuse).unwrap_err().to_string();
        assert!(error.ends_with("a.rec, offset 0: 1 of 1000"), "{error}");
        assert!(buffer.len() < 500, "a refused content is not read");
    }

    #[test]
    fn a_file_that_is_cut_short_while_it_is_open_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rec");
        fs::write(&path, [record(1, b"one"), record(2, b"two")].concat()).unwrap();
        let file = RecordFile::open(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(60).unwrap();
        assert_eq!(file.record_at(0).unwrap().content, b"one");
        let error = file.record_at(36).unwrap_err().to_string();
        let expected = "offset 36: the file was cut short while it was open: it had 72 bytes and has 60";
        assert!(error.ends_with(expected), "{error}");
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
        assert_eq!(file.record_at(0).unwrap().content, b"near");
        assert_eq!(file.record_at(far).unwrap().content, b"far");
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
