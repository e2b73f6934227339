//! A `.rec` file with and without its `.idx`: all that reads them against the naive walk.

use std::path::Path;

use fasttriplet::recordio::{KeyTable, RecordFile, Scan, scan};
use fasttriplet::{Interrupt, Result};

use crate::naive::recordio as naive;
use crate::scratch::Scratch;

thread_local! {
    static FILES: [Scratch; 2] = [Scratch::new(), Scratch::new()];
}

/// `data` is the text of an `.idx` file, a zero byte, and a `.rec` file.
pub fn check(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == 0) else { return };
    let (idx, rec) = (&data[..end], &data[end + 1..]);
    FILES.with(|[rec_file, idx_file]| {
        let Some(file) = open(rec_file.hold(rec), rec) else { return };
        check_offsets(&file, rec);
        check_scan(&file, rec, None);
        check_table(&file, rec, None, true);
        let idx = Some((idx_file.hold(idx), idx));
        check_scan(&file, rec, idx);
        check_table(&file, rec, idx, true);
        check_table(&file, rec, idx, false);
    });
}

/// A file that starts with the magic opens; one in which no record starts does not. Of any other kind, it may be
/// said that it is not a `.rec` file.
fn open(path: &Path, rec: &[u8]) -> Option<RecordFile> {
    let file = RecordFile::open(path);
    if rec.starts_with(&[0x0a, 0x23, 0xd7, 0xce]) {
        assert!(file.is_ok(), "{:?}", file.err());
    } else if naive::find_start(rec, 0, rec.len()).is_none() {
        assert!(file.is_err(), "a file without records");
    }
    file.ok()
}

/// Reads at the first offsets of a file, aligned or not, and at some after its end.
fn check_offsets(file: &RecordFile, rec: &[u8]) {
    let after = [0, 1, 2, 3, 4, 8].map(|more| rec.len().next_multiple_of(4) + more);
    for offset in (0..rec.len().min(48)).chain(after) {
        let expected = naive::record_at(rec, offset).ok();
        let expected = expected.filter(|record| naive::header(&record.payload).is_some());
        assert_eq!(file.record_at(offset as u64).is_ok(), expected.is_some(), "offset {offset}");
    }
    assert!(file.record_at(u64::MAX).is_err() && file.record_at(u64::MAX - 3).is_err());
}

type Index<'a> = Option<(&'a Path, &'a [u8])>;

/// Compares the table of keys, and the record of each key.
pub(crate) fn check_table(file: &RecordFile, rec: &[u8], idx: Index, complete: bool) -> Option<KeyTable> {
    let table = KeyTable::load(file, idx.map(|idx| idx.0), complete, &Interrupt::new());
    let expected = naive::keyed(rec, idx.map(|idx| idx.1), complete);
    let keys: Vec<i64> = expected.records.iter().map(|(key, _)| *key).collect();
    let Ok(table) = table else {
        assert!(keys.is_empty(), "no table of {} records", keys.len());
        return None;
    };
    assert!(!keys.is_empty(), "a table without records");
    assert_eq!(table.keys(), keys);
    assert_eq!(table.problems().is_empty(), expected.sound, "{:?}", table.problems());
    for (key, record) in &expected.records {
        assert_eq!(table.offset_of(*key), Some(record.start as u64), "key {key}");
        check_record(file, record);
    }
    Some(table)
}

fn check_record(file: &RecordFile, expected: &naive::Record) {
    let read = file.record_at(expected.start as u64);
    match naive::header(&expected.payload) {
        None => assert!(read.is_err(), "a record without a header"),
        Some(header) => {
            let read = read.expect("a record");
            assert_eq!(read.end, expected.end as u64);
            assert_eq!(&read.content[..], &expected.payload[header.size..]);
            assert_eq!((read.header.flag, read.header.id), (header.flag, header.id));
        }
    }
}

/// Compares the scan, row by row.
fn check_scan(file: &RecordFile, rec: &[u8], idx: Index) {
    let found: Result<Scan> = scan(file, idx.map(|idx| idx.0), &Interrupt::new());
    let expected = naive::keyed(rec, idx.map(|idx| idx.1), true);
    let (mut images, mut bare, mut sound, mut unlabelled) = (Vec::new(), Vec::new(), expected.sound, 0);
    for (key, record) in &expected.records {
        let Some(header) = naive::header(&record.payload) else {
            sound = false;
            continue;
        };
        let (offset, length) = (record.start as u64, (record.payload.len() - header.size) as u64);
        let label = header.labels.first().copied().unwrap_or(header.label);
        if length == 0 {
            bare.push((*key, offset, header.flag));
        } else if label.fract() != 0.0 || label.abs() >= 9.2e18 {
            unlabelled += 1; // NaN and infinities have the fraction NaN
        } else {
            images.push((*key, label as i64, offset, length));
        }
    }
    let Ok(found) = found else {
        assert!(images.len() <= unlabelled, "no scan of {} images", images.len());
        return;
    };
    assert!(images.len() > unlabelled, "a scan of {} images, {unlabelled} others", images.len());
    let rows = found.keys.iter().zip(&found.labels).zip(&found.offsets).zip(&found.lengths);
    let rows: Vec<_> =
        rows.map(|(((key, label), offset), length)| (*key, *label, *offset, *length)).collect();
    assert_eq!(rows, images);
    assert_eq!(found.bare.iter().map(|one| (one.key, one.offset, one.flag)).collect::<Vec<_>>(), bare);
    assert_eq!(found.rebuilt, expected.rebuilt);
    assert_eq!(found.problems.is_empty(), sound && unlabelled == 0, "{:?}", found.problems);
    assert_eq!(found.flags.values().sum::<u64>(), images.len() as u64);
}
