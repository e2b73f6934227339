//! One pass over a file: key, label, offset and length of each image, and the records without an image.

use std::collections::BTreeMap;
use std::path::Path;

use super::RecordFile;
use super::framing::Span;
use super::header::Fixed;
use super::keys::{DAMAGED, Entries, Idx, UNREADABLE};
use super::problems::Problems;
use super::window::ReadAt;
use crate::error::grouped;
use crate::{Error, Interrupt, Result};

/// What the records of a file say about themselves.
#[derive(Debug, Default)]
pub struct Scan {
    /// Keys of the records with content, in file order.
    pub keys: Vec<i64>,
    /// Their labels. The first one if a record has several.
    pub labels: Vec<i64>,
    /// Byte offsets of the records.
    pub offsets: Vec<u64>,
    /// Bytes of the content: the encoded images.
    pub lengths: Vec<u64>,
    /// The records without content, in file order.
    pub bare: Vec<Bare>,
    /// The number of records with content for each flag.
    pub flags: BTreeMap<u32, u64>,
    /// How many records with content have labels that seem to be those of objects in an image.
    pub objects: u64,
    /// What was found wrong and worked around, one line per finding; one of each kind comes first.
    pub problems: Vec<String>,
    /// The keys come from the records, not from an `.idx` file.
    pub rebuilt: bool,
    /// All keys are the ids in their records' headers.
    pub keys_are_ids: bool,
}

/// A record without content: in `InsightFace`'s layout record 0, or the range of keys of an identity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bare {
    /// The record's key.
    pub key: i64,
    /// Byte offset of the record.
    pub offset: u64,
    /// 0, or the count of labels.
    pub flag: u32,
    /// The first two labels, NaN for those that are missing.
    pub labels: [f32; 2],
}

/// Reads all headers, in parallel.
///
/// The lines of `idx` are used if they name all records of the file, each once. That check costs nothing here,
/// because every record is touched anyway. Otherwise, and without `idx`, the records are found by going
/// through the `.rec`. An image whose label is not an integer is left out and reported; if most are, that is
/// an error.
pub fn scan(file: &RecordFile, idx: Option<&Path>, interrupt: &Interrupt) -> Result<Scan> {
    let listed = idx.map(|idx| Idx::read(idx, file.size())).transpose()?;
    if let Some(Ok(idx)) = &listed
        && let Some(entries) = idx.unambiguous()?
        && let Some(pieces) = read_listed(file, entries, interrupt)?
        && let Some(Ok(idx)) = listed
    {
        return Piece::finish(pieces, file, idx.into_entries(), false);
    }
    let (entries, rows) = Entries::rebuilt(file, listed, interrupt, Row::new)?;
    let mut piece = Piece::default();
    for (place, row) in rows.iter().enumerate() {
        if entries.replaced.binary_search(&place).is_err() {
            piece.add(entries.keys[place], entries.offsets[place], row);
        }
    }
    drop(rows);
    Piece::finish(vec![piece], file, entries, true)
}

fn read_listed(file: &RecordFile, entries: &Entries, interrupt: &Interrupt) -> Result<Option<Vec<Piece>>> {
    entries.visit(file, true, interrupt, |piece: &mut Piece, place, span, window| {
        let (key, offset) = (entries.keys[place], span.start);
        match Fixed::read(span, window)? {
            (Ok(header), bytes) => piece.add(key, offset, &Row::new(span, &header, &bytes)),
            (Err(short), _) => piece.unreadable.add(|| format!("key {key}, offset {offset}: {short}")),
        }
        Ok(())
    })
}

/// What is wanted of a record: 32 bytes, as a file without an `.idx` is gone through before its keys are known.
struct Row {
    /// Bytes of the content.
    length: u64,
    id: u64,
    flag: u32,
    /// The first label, in the header or after it.
    label: f32,
    /// The second label after the header; NaN if there is none.
    second: f32,
    /// The labels seem to be those of objects in an image.
    objects: bool,
}

impl Row {
    /// `bytes` are those of the header.
    fn new(span: &Span, header: &Fixed, bytes: &[u8]) -> Self {
        Self {
            length: span.length - header.size as u64,
            id: header.id,
            flag: header.flag,
            label: header.first_label(),
            second: header.labels[1].unwrap_or(f32::NAN),
            objects: header.names_objects(bytes),
        }
    }
}

/// Consecutive records that one thread read.
#[derive(Default)]
struct Piece {
    scan: Scan,
    unreadable: Problems,
    /// Images whose label is not an integer.
    unlabelled: Problems,
    first_unlabelled: Option<(i64, u64, f32)>,
    /// Some keys are not the ids of their records.
    other_ids: bool,
}

impl Piece {
    fn add(&mut self, key: i64, offset: u64, row: &Row) {
        let Row { length, flag, label, .. } = *row;
        if length == 0 {
            let first = if flag == 0 { f32::NAN } else { label };
            self.scan.bare.push(Bare { key, offset, flag, labels: [first, row.second] });
            return;
        }
        // NaN and infinity have the fraction NaN. From 2^63 on, a label is not an i64.
        if label.fract() != 0.0 || label.abs() >= 9.2e18 {
            self.first_unlabelled.get_or_insert((key, offset, label));
            self.unlabelled.add(|| format!("key {key}, offset {offset}: {}", no_identity(label)));
            return;
        }
        self.other_ids |= i64::try_from(row.id) != Ok(key);
        self.scan.keys.push(key);
        self.scan.labels.push(label as i64);
        self.scan.offsets.push(offset);
        self.scan.lengths.push(length);
        *self.scan.flags.entry(flag).or_default() += 1;
        self.scan.objects += u64::from(row.objects);
    }

    fn finish(pieces: Vec<Self>, file: &RecordFile, entries: Entries, rebuilt: bool) -> Result<Scan> {
        let Entries { damaged, mut unreadable, mut report, .. } = entries;
        let images = pieces.iter().map(|piece| piece.scan.keys.len()).sum();
        let mut scan = Scan {
            keys: Vec::with_capacity(images),
            labels: Vec::with_capacity(images),
            offsets: Vec::with_capacity(images),
            lengths: Vec::with_capacity(images),
            rebuilt,
            keys_are_ids: !pieces.iter().any(|piece| piece.other_ids),
            ..Scan::default()
        };
        let mut unlabelled = Problems::default();
        // A few such labels are damage. If most labels are fractions, they do not name identities.
        let fractions: u64 = pieces.iter().map(|piece| piece.unlabelled.count()).sum();
        let first = pieces.iter().find_map(|piece| piece.first_unlabelled);
        if let Some((key, offset, label)) = first.filter(|_| fractions >= images as u64) {
            return Err(Error::record(file.path(), Some(offset), no_identity(label)).with_key(key));
        }
        for piece in pieces {
            scan.keys.extend(piece.scan.keys);
            scan.labels.extend(piece.scan.labels);
            scan.offsets.extend(piece.scan.offsets);
            scan.lengths.extend(piece.scan.lengths);
            scan.bare.extend(piece.scan.bare);
            scan.objects += piece.scan.objects;
            for (flag, count) in piece.scan.flags {
                *scan.flags.entry(flag).or_default() += count;
            }
            unreadable.append(piece.unreadable);
            unlabelled.append(piece.unlabelled);
        }
        if images == 0 {
            let reason = without_images(scan.bare.len() as u64, &damaged, &unreadable);
            return Err(Error::record(file.path(), None, reason));
        }
        report.list(file.path().display(), damaged, DAMAGED);
        report.list(file.path().display(), unreadable, UNREADABLE);
        report.list(file.path().display(), unlabelled, "images without a usable label, which are left out");
        scan.problems = report.into_lines();
        Ok(scan)
    }
}

/// Says why a file holds no image: one cause, with the first record that shows it.
fn without_images(empty: u64, damaged: &Problems, unreadable: &Problems) -> String {
    match (unreadable.first(), damaged.first()) {
        (Some(first), _) => {
            let count = unreadable.count();
            let (count, all) = (grouped(count), grouped(count + empty));
            format!("holds no image: {count} of its {all} records cannot be read; {first}")
        }
        (None, Some(damage)) if empty == 0 => damage.to_owned(),
        _ => format!("holds no image: all of its records are empty ({})", grouped(empty)),
    }
}

fn no_identity(label: f32) -> String {
    format!("label {label}; expected an integer that names the identity")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::recordio::framing::{append_record, tests::magic_rich};
    use crate::recordio::{Header, KeyTable, RecordWriter};

    struct Dataset {
        _folder: tempfile::TempDir,
        rec: std::path::PathBuf,
        idx: std::path::PathBuf,
    }

    impl Dataset {
        /// Records with these keys, which are also the ids. Labels are key / 2, and every third record is
        /// bare.
        fn new(keys: &[i64]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let rec = folder.path().join("a.rec");
            let mut writer = RecordWriter::create(&rec).unwrap();
            for (i, &key) in keys.iter().enumerate() {
                let header = Header { label: (key / 2) as f32, id: key as u64, ..Header::default() };
                writer.write(key, &header, &vec![7; if i % 3 == 2 { 0 } else { 40 + i }]).unwrap();
            }
            writer.finish().unwrap();
            let idx = folder.path().join("a.idx");
            Self { _folder: folder, rec, idx }
        }

        fn lines(&self) -> Vec<String> {
            fs::read_to_string(&self.idx).unwrap().lines().map(str::to_owned).collect()
        }

        fn scan(&self, idx: bool) -> Scan {
            let file = RecordFile::open(&self.rec).unwrap();
            scan(&file, idx.then_some(self.idx.as_path()), &Interrupt::new()).unwrap()
        }

        fn table(&self) -> KeyTable {
            let file = RecordFile::open(&self.rec).unwrap();
            KeyTable::load(&file, Some(&self.idx), true, &Interrupt::new()).unwrap()
        }
    }

    #[test]
    fn with_and_without_an_idx() {
        let data = Dataset::new(&[4, 2, 9, 3, 1]);
        for idx in [true, false] {
            let scan = data.scan(idx);
            assert_eq!((scan.keys, scan.labels), (vec![4, 2, 3, 1], vec![2, 1, 1, 0]));
            assert_eq!((scan.lengths, scan.offsets[1]), (vec![40, 41, 43, 44], 72));
            assert_eq!(scan.bare.iter().map(|b| b.key).collect::<Vec<_>>(), [9]);
            assert_eq!((scan.flags, scan.rebuilt), (BTreeMap::from([(0, 4)]), !idx));
            assert!(scan.keys_are_ids);
            assert!(scan.problems.is_empty());
        }
    }

    #[test]
    fn broken_indexes_are_noticed_named_and_rebuilt() {
        let keys = [4, 2, 9, 3, 1];
        let data = Dataset::new(&keys);
        let good = data.lines();
        let whole = data.scan(true);
        let without = |i: usize| [&good[..i], &good[i + 1..]].concat().join("\n");
        let with =
            |i: usize, line: &str| [&good[..i], &[line.to_owned()], &good[i + 1..]].concat().join("\n");
        let cases = [
            (String::new(), "the file is empty"),
            ("version https://git-lfs.github.com/spec/v1\nsize 5".into(), "Git LFS pointer"),
            ("rubbish\n".into(), "this is a text file"),
            (with(1, "2\t18446744073709551615"), "line 2: offset 18446744073709551615 lies beyond the end"),
            (with(1, "2\t100000"), "line 2: offset 100000 lies beyond the end"),
            (with(1, "2\t80"), "key 2 points to offset 80: no record starts here: expected the bytes"),
            (
                without(0),
                "a.idx: names 4 of the 5 records in the .rec (not the one at offset 0); the index was",
            ),
            (without(1), "a.idx: names 4 of the 5 records in the .rec (not the one at offset 72)"),
            (without(4), "a.idx: names 4 of the 5 records"),
            (good[..2].join("\n"), "a.idx: names 2 of the 5 records"),
            // One record is one image: two keys of one record, two records of one key, both at once.
            (
                good.join("\n") + "\n77\t0",
                "keys 4 and 77 point to the same record, at offset 0; the index was",
            ),
            (with(0, "3\t0"), "key 3 points to two records, at offsets 0 and 180; the index was"),
            (with(3, "2\t0"), "keys 2 and 4 point to the same record, at offset 0; the index was"),
            (with(3, "2\t0"), "key 2 points to two records, at offsets 0 and 72"),
            (with(3, "2\t0"), "names 4 of the 5 records in the .rec (not the one at offset 180)"),
            (
                [&good[..], &["1\t0", "3\t72", "9\t148", "2\t180", "4\t256"].map(str::to_owned)]
                    .concat()
                    .join("\n"),
                "keys 1 and 4 point to the same record, at offset 0 (the first of 4 such pairs)",
            ),
        ];
        for (text, expected) in cases {
            fs::write(&data.idx, &text).unwrap();
            let (scan, table) = (data.scan(true), data.table());
            assert_eq!((&scan.keys, &scan.offsets), (&whole.keys, &whole.offsets), "{text}");
            assert_eq!(table.keys(), keys);
            for problems in [&scan.problems[..], table.problems()] {
                let all = problems.join("\n");
                assert!(all.contains(expected) && all.contains("rebuilt from the .rec"), "{text}: {all}");
            }
        }
    }

    #[test]
    fn a_broken_line_besides_all_good_ones_is_only_named() {
        let data = Dataset::new(&[4, 2, 9]);
        let text = format!("key\toffset\n{}", fs::read_to_string(&data.idx).unwrap());
        fs::write(&data.idx, text).unwrap();
        let scan = data.scan(true);
        assert_eq!((scan.keys, scan.rebuilt), (vec![4, 2], false));
        assert!(scan.problems[0].contains("a.idx, line 1: expected a key, a tab"), "{:?}", scan.problems);
    }

    #[test]
    fn lines_in_any_order_and_twice() {
        let data = Dataset::new(&[4, 2, 9, 3, 1]);
        let mut lines = [data.lines(), data.lines()[1..3].to_vec()].concat();
        lines.reverse();
        fs::write(&data.idx, lines.join("\n")).unwrap();
        let scan = data.scan(true);
        assert_eq!((scan.keys, scan.rebuilt), (vec![4, 2, 3, 1], false));
        assert_eq!(data.table().keys(), [4, 2, 9, 3, 1]);
        for problems in [&scan.problems[..], data.table().problems()] {
            assert!(problems[0].ends_with("a.idx: lines that repeat another count once (2 of them)"));
            assert_eq!(problems.len(), 1);
        }
    }

    #[test]
    fn many_lines_of_one_record_take_linear_time() {
        let data = Dataset::new(&[4, 2]);
        let lines: Vec<_> = (0..100_000).map(|key| format!("{key}\t0")).collect();
        fs::write(&data.idx, lines.join("\n")).unwrap();
        let begin = std::time::Instant::now();
        assert_eq!(data.scan(true).keys, [4, 2]);
        assert!(begin.elapsed().as_secs() < 5);
    }

    #[test]
    fn ids_that_are_all_alike_give_way_to_the_keys_of_the_idx() {
        let folder = tempfile::tempdir().unwrap();
        let rec = folder.path().join("a.rec");
        let mut writer = RecordWriter::create(&rec).unwrap();
        for key in 1..=4 {
            writer.write(key, &Header::default(), b"content").unwrap();
        }
        writer.finish().unwrap();
        let mut bytes = fs::read(&rec).unwrap();
        bytes[80] = 0; // the magic of key 3
        fs::write(&rec, bytes).unwrap();
        let file = RecordFile::open(&rec).unwrap();
        let scan = scan(&file, Some(&folder.path().join("a.idx")), &Interrupt::new()).unwrap();
        assert_eq!((scan.keys, scan.keys_are_ids), (vec![1, 2, 4], false));
        let all = scan.problems.join("\n");
        assert!(
            all.contains("the records at offsets 0 and 40 have the same id, 0 (the first of 2 such pairs)"),
            "{all}"
        );
        // Without an .idx nothing tells them apart.
        let scan = super::scan(&file, None, &Interrupt::new()).unwrap();
        assert_eq!(scan.keys, [0]);
        let all = scan.problems.join("\n");
        assert!(all.contains("the same key: 2 of 3 (key 0"), "{all}");
    }

    #[test]
    fn files_without_images_say_so_in_one_sentence() {
        let message = |bytes: &[u8]| {
            let folder = tempfile::tempdir().unwrap();
            let rec = folder.path().join("a.rec");
            fs::write(&rec, bytes).unwrap();
            let file = RecordFile::open(&rec).unwrap();
            super::scan(&file, None, &Interrupt::new()).unwrap_err().to_string()
        };
        let mut bytes = Vec::new();
        for _ in 0..12 {
            append_record(&mut bytes, b"a sentence");
        }
        let found = message(&bytes);
        assert!(
            found.ends_with(
                "a.rec: holds no image: 12 of its 12 records cannot be read; offset 0: the record has 10 bytes, \
                 too few for the 24 bytes of an IRHeader; was it written without recordio.pack?"
            ),
            "{found}"
        );
        assert!(
            message(&bytes[..12]).contains("a.rec: no readable record from offset 0 to the end of the file")
        );
        bytes.clear();
        append_record(&mut bytes, &[0; 24]);
        assert!(message(&bytes).ends_with("a.rec: holds no image: all of its records are empty (1)"));
    }

    #[test]
    fn what_cannot_be_read_is_counted() {
        let data = Dataset::new(&[4, 2]);
        let mut bytes = fs::read(&data.rec).unwrap();
        for content in [b"one", b"two"] {
            append_record(&mut bytes, content);
        }
        fs::write(&data.rec, &bytes).unwrap();
        let scan = data.scan(true);
        assert_eq!((scan.keys.len(), scan.rebuilt), (2, true));
        let all = scan.problems.join("\n");
        assert!(
            all.contains("the records that it names do not fill the .rec; the index was rebuilt"),
            "{all}"
        );
        assert!(all.contains("(the first of 2 records without a usable header)"), "{all}");
        let text = fs::read_to_string(&data.idx).unwrap() + "7\t148\n8\t160\n";
        fs::write(&data.idx, text).unwrap();
        let scan = data.scan(true);
        assert_eq!((scan.keys.len(), scan.rebuilt, scan.problems.len()), (2, false, 2));
        let all = scan.problems.join("\n");
        assert!(all.contains("(the first of 2 records without a usable header)"), "{all}");
    }

    #[test]
    fn labels_that_are_no_integers_are_named() {
        for label in [0.5, f32::NAN, f32::INFINITY] {
            let folder = tempfile::tempdir().unwrap();
            let rec = folder.path().join("a.rec");
            let mut writer = RecordWriter::create(&rec).unwrap();
            writer.write(6, &Header { label, ..Header::default() }, b"x").unwrap();
            writer.finish().unwrap();
            let file = RecordFile::open(&rec).unwrap();
            let error =
                scan(&file, Some(&folder.path().join("a.idx")), &Interrupt::new()).unwrap_err().to_string();
            assert!(error.contains("key 6, offset 0: label "), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damaged_files_never_panic(
            contents in prop::collection::vec(magic_rich(), 1..12),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (rec, idx) = (folder.path().join("a.rec"), folder.path().join("a.idx"));
            let mut writer = RecordWriter::create(&rec).unwrap();
            for (key, content) in contents.iter().enumerate() {
                let labels = vec![1.0; key % 3];
                writer.write(key as i64, &Header { id: key as u64, labels, ..Header::default() }, content).unwrap();
            }
            writer.finish().unwrap();
            let mut bytes = fs::read(&rec).unwrap();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            fs::write(&rec, &bytes).unwrap();
            let Ok(file) = RecordFile::open(&rec) else { return Ok(()) };
            for idx in [None, Some(idx.as_path())] {
                if let Ok(scan) = scan(&file, idx, &Interrupt::new()) {
                    for offset in &scan.offsets {
                        prop_assert!(file.record_at(*offset).is_ok());
                    }
                }
                if let Ok(table) = KeyTable::load(&file, idx, true, &Interrupt::new()) {
                    prop_assert!(!table.keys().is_empty());
                    for key in table.keys() {
                        prop_assert!(table.offset_of(*key).is_some());
                    }
                }
            }
        }
    }
}
