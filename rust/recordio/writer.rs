//! Writing `.rec` and `.idx` files, byte for byte as `MXNet`'s `MXIndexedRecordIO` and `pack` do.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::framing::{LENGTH_LIMIT, append_record};
use super::{Header, idx};
use crate::error::{counted, grouped};
use crate::{Error, Result};

/// Bytes collected before a write.
const BUFFER: usize = 1 << 20;

/// Writes a `.rec` and its `.idx` under temporary names in the same folder.
///
/// [`finish`](Self::finish) gives both files their names. A writer that is dropped before that removes its
/// files, and a process that is killed leaves nothing under the final names.
#[derive(Debug)]
pub struct RecordWriter {
    rec: Output,
    idx: Output,
    payload: Vec<u8>,
    keys: Keys,
}

impl RecordWriter {
    /// Creates `path`, and the `.idx` of the same name beside it.
    pub fn create(path: &Path) -> Result<Self> {
        let idx = path.with_extension("idx");
        if idx == path {
            return Err(Error::Value(format!("{}: a .rec file cannot end in .idx", path.display())));
        }
        Ok(Self {
            rec: Output::create(path)?,
            idx: Output::create(&idx)?,
            payload: Vec::new(),
            keys: Keys::default(),
        })
    }

    /// Appends a record. The header is written as `recordio.pack` does, with the labels or the single label.
    pub fn write(&mut self, key: i64, header: &Header, content: &[u8]) -> Result<()> {
        self.payload.clear();
        header.append_to(&mut self.payload);
        let length = self.payload.len() + content.len();
        if length >= LENGTH_LIMIT {
            return Err(Error::Value(format!(
                "key {key}: a record holds less than {} (2^29), got {} with its header",
                counted(LENGTH_LIMIT as u64, "byte"),
                grouped(length as u64)
            )));
        }
        if !self.keys.insert(key) {
            return Err(Error::Value(format!(
                "key {key} was written before; a reader would find only one of the two"
            )));
        }
        self.payload.extend_from_slice(content);
        idx::append_line(&mut self.idx.buffer, key, self.rec.written());
        append_record(&mut self.rec.buffer, &self.payload);
        self.rec.drain(BUFFER)?;
        self.idx.drain(BUFFER)
    }

    /// Writes what is left in the buffers and gives the files their names, replacing older files.
    pub fn finish(mut self) -> Result<()> {
        self.rec.drain(0)?;
        self.idx.drain(0)?;
        // Between the two renames, the new .rec has no .idx or an old one, which readers notice.
        self.rec.publish()?;
        self.idx.publish()
    }
}

/// The keys written so far, as runs of consecutive keys: first key to last key.
#[derive(Debug, Default)]
struct Keys(BTreeMap<i64, i64>);

impl Keys {
    /// Returns false if the key was there already.
    fn insert(&mut self, key: i64) -> bool {
        match self.0.range_mut(..=key).next_back() {
            Some((_, last)) if *last >= key => return false,
            Some((_, last)) if *last + 1 == key => *last = key,
            _ => {
                self.0.insert(key, key);
            }
        }
        true
    }
}

/// One file under its temporary name.
///
/// It has a buffer of its own, because each process that inherits a `BufWriter` would flush it.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    temporary: Option<PathBuf>,
    file: File,
    buffer: Vec<u8>,
    drained: u64,
    process: u32,
}

impl Output {
    fn create(path: &Path) -> Result<Self> {
        let name = path.file_name().filter(|_| !path.is_dir());
        let name = name
            .ok_or_else(|| Error::Value(format!("{}: is a folder; expected a file name", path.display())))?;
        let process = std::process::id();
        for attempt in 0_u32.. {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{process}-{attempt}.tmp"));
            let temporary = path.with_file_name(hidden);
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => {
                    let (path, temporary) = (path.to_owned(), Some(temporary));
                    return Ok(Self { path, temporary, file, buffer: Vec::new(), drained: 0, process });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io(path, e)),
            }
        }
        Err(Error::Value(format!("{}: no temporary name is free beside it", path.display())))
    }

    fn written(&self) -> u64 {
        self.drained + self.buffer.len() as u64
    }

    fn drain(&mut self, keep: usize) -> Result<()> {
        if self.buffer.len() > keep {
            self.file.write_all(&self.buffer).map_err(|e| Error::io(&self.path, e))?;
            self.drained += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.path).map_err(|e| Error::io(&self.path, e))?;
            self.temporary = None;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // A process that inherited the writer over a fork must not remove its parent's files.
        if let Some(temporary) = self.temporary.take().filter(|_| self.process == std::process::id()) {
            let _ = fs::remove_file(temporary); // nothing more can be done about it here
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::Interrupt;
    use crate::recordio::{KeyTable, RecordFile};

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn written_files_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rec");
        let mut writer = RecordWriter::create(&path).unwrap();
        for key in [5, 3, 9] {
            let header = Header { label: 2.0, id: key as u64, ..Header::default() };
            writer.write(key, &header, &vec![key as u8; 1000]).unwrap();
        }
        assert!(!path.exists());
        writer.finish().unwrap();
        assert_eq!(names(folder.path()), ["a.idx", "a.rec"]);
        let file = RecordFile::open(&path).unwrap();
        let table =
            KeyTable::load(&file, Some(&folder.path().join("a.idx")), true, &Interrupt::new()).unwrap();
        assert_eq!(table.keys(), [5, 3, 9]);
        assert!(table.problems().is_empty());
        let record = file.record_at(table.offset_of(9).unwrap()).unwrap();
        assert_eq!(record.content, [9; 1000]);
        assert_eq!(table.offset_of(4), None);
    }

    #[test]
    fn a_dropped_writer_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = RecordWriter::create(&folder.path().join("a.rec")).unwrap();
        writer.write(0, &Header::default(), &vec![1; 3 << 20]).unwrap();
        drop(writer);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn records_of_2_to_the_29_bytes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = RecordWriter::create(&folder.path().join("a.rec")).unwrap();
        let content = vec![0; LENGTH_LIMIT - 24];
        let error = writer.write(7, &Header::default(), &content).unwrap_err().to_string();
        assert!(
            error.starts_with("key 7: a record holds less than 536,870,912 bytes (2^29), got 536,870,912"),
            "{error}"
        );
    }

    #[test]
    fn a_key_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = RecordWriter::create(&folder.path().join("a.rec")).unwrap();
        writer.write(7, &Header::default(), b"").unwrap();
        assert!(
            writer
                .write(7, &Header::default(), b"")
                .unwrap_err()
                .to_string()
                .starts_with("key 7 was written")
        );
    }

    proptest! {
        #[test]
        fn keys_are_a_set(keys in prop::collection::vec(prop_oneof![-9_i64..9, Just(i64::MAX), Just(i64::MIN)], 0..40)) {
            let (mut ours, mut set) = (Keys::default(), BTreeSet::new());
            for key in keys {
                prop_assert_eq!(ours.insert(key), set.insert(key));
            }
        }
    }

    #[test]
    fn folders_and_names_that_cannot_be() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(RecordWriter::create(folder.path()), Err(Error::Value(_))));
        assert!(matches!(RecordWriter::create(&folder.path().join("a.idx")), Err(Error::Value(_))));
        assert!(matches!(RecordWriter::create(&folder.path().join("no/a.rec")), Err(Error::Io { .. })));
    }
}
