//! Images of a batch that lie in `.rec` files.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::Range;
use std::path::PathBuf;

use super::batch::Source;
use crate::recordio::window::ReadAt;
use crate::recordio::{BEFORE_CONTENT, Record, RecordFile, USUAL_LENGTH};
use crate::{Error, Result};

/// Images in `.rec` files.
pub struct Records<'a> {
    files: &'a [&'a RecordFile],
    rows: RecordRows<'a>,
    max_pixels: usize,
}

/// Where the records of a batch are, in columns.
#[derive(Clone, Copy)]
pub struct RecordRows<'a> {
    /// The records' keys, which only name them in errors.
    pub keys: &'a [i64],
    /// Byte offsets.
    pub offsets: &'a [i64],
    /// Bytes of the encoded images. Without them, [`USUAL_LENGTH`] is read ahead.
    pub lengths: Option<&'a [i64]>,
    /// The number of each record's file. Without them, all records are in the first file.
    pub numbers: Option<&'a [u32]>,
    /// The labels, as they are in the records.
    pub labels: Option<&'a [i64]>,
    /// For each file, whether the keys are the ids in its records.
    pub keys_are_ids: &'a [bool],
    /// For each file, the file that its index was read from, if it was.
    pub kept: &'a [Option<PathBuf>],
}

/// Images with a gap of at most this many bytes are read together: a disk reads 64 KiB in a tenth of the time
/// of a seek, and a file system on the network answers one request instead of two.
const NEAR: u64 = 64 << 10;

/// What follows from a record that is not as its row of the index says.
const CHANGED: &str = "; was the file changed after it was indexed?";

impl<'a> Records<'a> {
    /// The records of `files` at these rows, with images of at most `max_pixels`.
    pub fn new(files: &'a [&'a RecordFile], rows: RecordRows<'a>, max_pixels: usize) -> Result<Self> {
        let count = rows.keys.len();
        let others = [
            Some(rows.offsets.len()),
            rows.lengths.map(<[_]>::len),
            rows.numbers.map(<[_]>::len),
            rows.labels.map(<[_]>::len),
        ];
        if others.into_iter().flatten().any(|other| other != count) {
            return Err(Error::Value(format!(
                "expected an offset, a length, a file number and a label for each of {count} keys"
            )));
        }
        let largest = rows.numbers.map_or((count > 0).then_some(0), |numbers| numbers.iter().max().copied());
        if let Some(largest) = largest.filter(|largest| *largest as usize >= files.len()) {
            return Err(Error::Value(format!(
                "a row is in file number {largest}, counted from 0, but {} files were given",
                files.len()
            )));
        }
        Ok(Self { files, rows, max_pixels })
    }

    fn number(&self, row: usize) -> usize {
        self.rows.numbers.map_or(0, |numbers| numbers[row] as usize)
    }

    fn file(&self, row: usize) -> &'a RecordFile {
        self.files[self.number(row)]
    }

    fn length(&self, row: usize) -> i64 {
        self.rows.lengths.map_or(USUAL_LENGTH as i64, |lengths| lengths[row])
    }

    /// The record of image number `row`.
    pub fn record(&self, row: usize) -> Result<Record> {
        let record = self.file(row).record_at(self.offset(row)?).map_err(|e| self.unread(row, e))?;
        let header = &record.header;
        self.compare(row, header.id, header.first_label(), record.content.len() as u64)
            .map_err(|reason| self.unread(row, self.error(row, reason)))?;
        Ok(record)
    }

    fn offset(&self, row: usize) -> Result<u64> {
        let negative = |_| self.error(row, "a negative offset; was the index made for this file?".into());
        u64::try_from(self.rows.offsets[row]).map_err(negative)
    }

    /// Compares a record with its row of the index, as far as that is known. They differ if another dataset was
    /// written over the file, or if the index is of another file.
    fn compare(&self, row: usize, id: u64, label: f32, length: u64) -> Result<(), String> {
        let differs = |what: &str, found: &dyn Display, expected: i64| {
            Err(format!("not the record that was indexed: its {what} is {found}, not {expected}{CHANGED}"))
        };
        let rows = &self.rows;
        if let Some(expected) = rows.lengths.map(|lengths| lengths[row])
            && length as i64 != expected
        {
            return differs("length in bytes", &length, expected);
        }
        if let Some(expected) = rows.labels.map(|labels| labels[row])
            && (label.fract() != 0.0 || label as i64 != expected)
        {
            return differs("label", &label, expected);
        }
        let key = rows.keys[row];
        if rows.keys_are_ids.get(self.number(row)) == Some(&true) && id != key as u64 {
            return differs("id", &id, key);
        }
        Ok(())
    }

    /// The error about the record of image number `row`, which is not as its row of the index says. If that comes
    /// from a file, the file may be the one that is wrong: only some of its rows were compared with the records.
    fn unread(&self, row: usize, error: Error) -> Error {
        let file = self.file(row);
        let cut = file.file().metadata().is_ok_and(|now| now.len() < file.size());
        let kept = self.rows.kept.get(self.number(row)).and_then(Option::as_ref).filter(|_| !cut);
        let error = self.located(row, error);
        let Some(kept) = kept else { return error };
        error.with_reason(|reason| {
            let reason = reason.strip_suffix(CHANGED).unwrap_or(&reason);
            let kept = kept.display();
            format!(
                "{reason}{CHANGED} If not, the kept index {kept} is wrong: delete it, and it is made again"
            )
        })
    }

    /// Adds to an error about the record of image number `row` what its file does not know.
    fn located(&self, row: usize, error: Error) -> Error {
        let error = match u64::try_from(self.rows.offsets[row]) {
            Ok(offset) => error.with_offset(offset),
            Err(_) => error,
        };
        error.with_key(self.rows.keys[row]).with_position(row)
    }
}

impl Source for Records<'_> {
    fn count(&self) -> usize {
        self.rows.keys.len()
    }

    fn max_pixels(&self) -> usize {
        self.max_pixels
    }

    fn bytes<'b>(&'b self, row: usize, buffer: &'b mut Vec<u8>) -> Result<Cow<'b, [u8]>> {
        let length = self.length(row).try_into().unwrap_or(USUAL_LENGTH);
        self.file(row)
            .content_at(self.offset(row)?, length, buffer, |header, length| {
                self.compare(row, header.id, header.first_label(), length)
            })
            .map_err(|e| self.unread(row, e))
    }

    fn error(&self, row: usize, reason: String) -> Error {
        self.located(row, Error::record(self.file(row).path(), None, reason))
    }

    fn place(&self, row: usize) -> (u32, i64) {
        (self.rows.numbers.map_or(0, |numbers| numbers[row]), self.rows.offsets[row])
    }

    fn announce(&self, rows: impl Iterator<Item = usize>) {
        for (file, bytes) in self.ranges(rows) {
            self.files[file as usize].will_need(bytes.start, bytes.end - bytes.start);
        }
    }
}

impl Records<'_> {
    /// The bytes of the files that hold these rows, which are sorted by their places.
    fn ranges(&self, rows: impl Iterator<Item = usize>) -> Vec<(u32, Range<u64>)> {
        let mut ranges: Vec<(u32, Range<u64>)> = Vec::new();
        for row in rows {
            let (file, offset) = self.place(row);
            let (Ok(start), Ok(length)) = (u64::try_from(offset), u64::try_from(self.length(row))) else {
                continue; // an error when it is read
            };
            let end = start.saturating_add(length).saturating_add(BEFORE_CONTENT as u64);
            match ranges.last_mut() {
                Some((last, bytes)) if *last == file && start.saturating_sub(bytes.end) <= NEAR => {
                    bytes.end = bytes.end.max(end);
                }
                _ => ranges.push((file, start..end)),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recordio::{Header, RecordWriter};

    #[test]
    fn neighbours_are_read_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rec");
        std::fs::write(&path, b"\x0a\x23\xd7\xce").unwrap();
        let (file, size) = (RecordFile::open(&path).unwrap(), 1000);
        let near = size + 64 + (64 << 10);
        let offsets = [-1, 0, 4, near, 2 * near + 1, i64::MAX, 0, 2 * near];
        let rows = RecordRows {
            keys: &[0; 8],
            offsets: &offsets,
            lengths: Some(&[size; 8]),
            numbers: Some(&[0, 0, 0, 0, 0, 0, 1, 1]),
            labels: None,
            keys_are_ids: &[],
            kept: &[],
        };
        let files = [&file, &file];
        let records = Records::new(&files, rows, 100).unwrap();
        let until = |start: i64| (start + size + 64) as u64;
        let expected = vec![
            (0, 0..until(near)),
            (0, offsets[4] as u64..until(offsets[4])),
            (0, i64::MAX as u64..i64::MAX as u64 + 1064),
            (1, 0..until(0)),
            (1, offsets[7] as u64..until(offsets[7])),
        ];
        assert_eq!(records.ranges(0..8), expected);
        records.announce(0..8); // most of it after the end of the file
    }

    #[test]
    fn rows_must_lie_in_the_files() {
        let new = |keys, offsets, numbers| {
            let rows = RecordRows {
                keys,
                offsets,
                lengths: None,
                numbers,
                labels: None,
                keys_are_ids: &[],
                kept: &[],
            };
            Records::new(&[], rows, 100).map(|_| ())
        };
        assert!(new(&[], &[], None).is_ok());
        assert!(new(&[1], &[0], None).is_err());
        assert!(new(&[1], &[], None).is_err());
        assert!(new(&[1], &[0], Some(&[3])).is_err());
    }

    #[test]
    fn records_of_several_files_are_compared_with_their_rows() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, id: u64, label: f32, content: &[u8]| {
            let path = folder.path().join(name);
            let mut writer = RecordWriter::create(&path).unwrap();
            writer.write(5, &Header { label, id, ..Header::default() }, content).unwrap();
            writer.write(6, &Header { id: 6, label, ..Header::default() }, b"the second").unwrap();
            writer.finish().unwrap();
            RecordFile::open(&path).unwrap()
        };
        let (one, other) = (write("one.rec", 5, 3.0, b"of one"), write("other.rec", 9, 4.5, b"of other"));
        let files = [&one, &other];
        let second = 40; // after 8 + 24 bytes before the content and 6 of that, padded
        let plain = RecordRows {
            keys: &[5, 5, 6],
            offsets: &[0, 0, second],
            lengths: None,
            numbers: Some(&[0, 1, 0]),
            labels: None,
            keys_are_ids: &[],
            kept: &[],
        };
        let read = |rows: RecordRows| {
            let records = Records::new(&files, rows, 77).unwrap();
            assert_eq!((records.count(), records.max_pixels()), (3, 77));
            let content = |row| {
                let mut buffer = Vec::new();
                let bytes = records.bytes(row, &mut buffer).map(Cow::into_owned);
                let record = records.record(row).map(|record| record.content);
                assert_eq!(bytes.as_ref().ok(), record.as_ref().ok());
                let text =
                    bytes.map_or_else(|error| error.to_string(), |bytes| String::from_utf8(bytes).unwrap());
                assert_eq!(text, record.map_or_else(|e| e.to_string(), |c| String::from_utf8(c).unwrap()));
                text
            };
            [content(0), content(1), content(2)]
        };
        let all = ["of one", "of other", "the second"];
        assert_eq!(read(plain), all);
        assert_eq!(read(RecordRows { lengths: Some(&[6, 8, 10]), labels: None, ..plain }), all);
        let of_label = read(RecordRows { labels: Some(&[3, 4, 2]), ..plain });
        assert_eq!(of_label[0], all[0]);
        assert!(of_label[1].contains(
            "other.rec, key 5, offset 0: not the record that was indexed: its label is 4.5, not 4"
        ));
        assert!(of_label[2].contains("key 6, offset 40") && of_label[2].contains("its label is 3, not 2"));
        let of_length = read(RecordRows { lengths: Some(&[5, 8, 11]), ..plain });
        assert!(of_length[0].contains("its length in bytes is 6, not 5") && of_length[1] == all[1]);
        assert!(of_length[2].contains("its length in bytes is 10, not 11"));
        let of_id = read(RecordRows { keys_are_ids: &[true, true], ..plain });
        assert!(of_id[0] == all[0] && of_id[2] == all[2]);
        assert!(of_id[1].contains("its id is 9, not 5"), "{}", of_id[1]);
        assert_eq!(read(RecordRows { keys_are_ids: &[true, false], ..plain }), all);
        let negative = read(RecordRows { offsets: &[-4, 0, second], ..plain });
        assert!(negative[0].contains("a negative offset") && negative[1..] == all[1..]);
        assert!(negative[0].contains("one.rec, key 5:"), "{}", negative[0]);
        let records = Records::new(&files, plain, 77).unwrap();
        assert_eq!([0, 1, 2].map(|row| records.place(row)), [(0, 0), (1, 0), (0, 40)]);
        let error = records.error(2, "because".into()).to_string();
        assert!(error.ends_with("one.rec, key 6, offset 40: because"), "{error}");
        let alone = Records::new(&files, RecordRows { numbers: None, ..plain }, 77).unwrap();
        assert_eq!([0, 1, 2].map(|row| alone.place(row)), [(0, 0), (0, 0), (0, 40)]);
        let columns: [RecordRows; 4] = [
            RecordRows { offsets: &[0; 2], ..plain },
            RecordRows { lengths: Some(&[0; 2]), ..plain },
            RecordRows { numbers: Some(&[0; 4]), ..plain },
            RecordRows { labels: Some(&[0; 4]), ..plain },
        ];
        assert!(columns.into_iter().all(|rows| Records::new(&files, rows, 77).is_err()));
        assert!(Records::new(&files, RecordRows { numbers: Some(&[0, 1, 2]), ..plain }, 77).is_err());
    }

    #[test]
    fn a_kept_index_is_suspected_where_a_record_is_not_as_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rec");
        let mut writer = RecordWriter::create(&path).unwrap();
        writer.write(1, &Header { id: 1, ..Header::default() }, b"content").unwrap();
        writer.finish().unwrap();
        let file = RecordFile::open(&path).unwrap();
        let read = |offset, label, kept: &[Option<PathBuf>]| {
            let rows = RecordRows {
                keys: &[1],
                offsets: &[offset],
                lengths: Some(&[7]),
                numbers: None,
                labels: Some(&[label]),
                keys_are_ids: &[true],
                kept,
            };
            let files = [&file];
            let records = Records::new(&files, rows, 100).unwrap();
            let read = records.record(0).map_or_else(|error| error.to_string(), |_| String::new());
            let mut buffer = Vec::new();
            let bytes = records.bytes(0, &mut buffer);
            assert_eq!(bytes.map_or_else(|error| error.to_string(), |_| String::new()), read);
            read
        };
        let kept = [Some(PathBuf::from("a.rec.index"))];
        let advice = " If not, the kept index a.rec.index is wrong: delete it, and it is made again";
        assert_eq!(read(0, 0, &kept), "");
        for (offset, label, what) in [(0, 3, "its label is 0, not 3"), (4, 0, "no record starts here")] {
            let found = read(offset, label, &kept);
            assert!(found.contains(what) && found.ends_with(&(CHANGED.to_owned() + advice)), "{found}");
            for none in [&[][..], &[None]] {
                let found = read(offset, label, none);
                assert!(found.contains(what) && !found.contains("kept"), "{found}");
            }
        }
        std::fs::File::options().write(true).open(&path).unwrap().set_len(20).unwrap();
        let found = read(0, 0, &kept);
        assert!(found.contains("cut short") && !found.contains("kept"), "{found}");
    }
}
