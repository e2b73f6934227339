//! One pass over a file: key, label, offset and length of each image, and the records without an image.

use std::collections::BTreeMap;
use std::path::Path;

use super::RecordFile;
use super::header::Fixed;
use super::keys::{Break, Entries, rebuilt_because};
use super::problems::Problems;
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
    /// What was found wrong and worked around, one line per finding.
    pub problems: Vec<String>,
    /// The keys come from the records, not from an `.idx` file.
    pub rebuilt: bool,
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
/// The offsets of `idx` are used if they are those of all records of the file. That check costs nothing here,
/// because every record is touched anyway. Otherwise, and without `idx`, the records are found by going
/// through the `.rec`. An image whose label is not an integer is left out and reported; if most are, that is
/// an error.
pub fn scan(file: &RecordFile, idx: Option<&Path>, interrupt: &Interrupt) -> Result<Scan> {
    let size = file.bytes().len() as u64;
    let (idx_entries, mut problems) = match idx.map(|idx| Entries::from_idx(idx, size)).transpose()? {
        None => (None, Vec::new()),
        Some(Err(what)) => (None, vec![rebuilt_because(&what)]),
        Some(Ok(mut entries)) => {
            let mut problems = std::mem::take(&mut entries.problems);
            match rows(file, &entries, true, interrupt)? {
                Ok(pieces) => return Piece::finish(pieces, file, problems, false),
                Err(broken) => {
                    let name = idx.unwrap_or(file.path()).display();
                    problems.push(rebuilt_because(&format!("{name}: {}", entries.describe(&broken, file))));
                    (Some(entries), problems)
                }
            }
        }
    };
    let mut entries = Entries::rebuilt(file, idx_entries.as_ref(), std::mem::take(&mut problems), interrupt)?;
    drop(idx_entries);
    let problems = std::mem::take(&mut entries.problems);
    match rows(file, &entries, false, interrupt)? {
        Ok(pieces) => Piece::finish(pieces, file, problems, true),
        // The file was read a moment ago, so somebody has changed it since.
        Err(broken) => {
            let found = entries.describe(&broken, file);
            let reason = format!("{found}; does another program write to the file?");
            Err(Error::record(file.path(), None, reason))
        }
    }
}

fn rows(
    file: &RecordFile,
    entries: &Entries,
    complete: bool,
    interrupt: &Interrupt,
) -> Result<std::result::Result<Vec<Piece>, Break>> {
    entries.visit(file, complete, interrupt, |piece: &mut Piece, place, span| {
        if entries.replaced.binary_search(&place).is_ok() {
            return;
        }
        let (key, offset) = (entries.keys[place], span.start);
        match Fixed::parse(&span.payload(file.bytes())) {
            Ok(header) => piece.add(key, offset, span.length - header.size as u64, &header),
            Err(short) => piece.unreadable.add(|| format!("key {key}, offset {offset}: {short}")),
        }
    })
}

/// Consecutive records that one thread read.
#[derive(Default)]
struct Piece {
    scan: Scan,
    unreadable: Problems,
    /// Images whose label is not an integer.
    unlabelled: Problems,
    first_unlabelled: Option<(i64, u64, f32)>,
    unlabelled_count: usize,
}

impl Piece {
    fn add(&mut self, key: i64, offset: u64, length: u64, header: &Fixed) {
        if length == 0 {
            let labels = header.labels.map(|label| label.unwrap_or(f32::NAN));
            self.scan.bare.push(Bare { key, offset, flag: header.flag, labels });
            return;
        }
        let label = header.first_label();
        // NaN and infinity have the fraction NaN. From 2^63 on, a label is not an i64.
        if label.fract() != 0.0 || label.abs() >= 9.2e18 {
            self.first_unlabelled.get_or_insert((key, offset, label));
            self.unlabelled_count += 1;
            self.unlabelled.add(|| format!("key {key}, offset {offset}: {}", no_identity(label)));
            return;
        }
        self.scan.keys.push(key);
        self.scan.labels.push(label as i64);
        self.scan.offsets.push(offset);
        self.scan.lengths.push(length);
        *self.scan.flags.entry(header.flag).or_default() += 1;
    }

    fn finish(pieces: Vec<Self>, file: &RecordFile, problems: Vec<String>, rebuilt: bool) -> Result<Scan> {
        let images = pieces.iter().map(|piece| piece.scan.keys.len()).sum();
        let mut scan = Scan {
            keys: Vec::with_capacity(images),
            labels: Vec::with_capacity(images),
            offsets: Vec::with_capacity(images),
            lengths: Vec::with_capacity(images),
            problems,
            rebuilt,
            ..Scan::default()
        };
        let (mut unreadable, mut unlabelled) = (Problems::default(), Problems::default());
        // A few such labels are damage. If most labels are fractions, they do not name identities.
        let fractions: usize = pieces.iter().map(|piece| piece.unlabelled_count).sum();
        let first = pieces.iter().find_map(|piece| piece.first_unlabelled);
        if let Some((key, offset, label)) = first.filter(|_| fractions >= images) {
            return Err(Error::record(file.path(), Some(offset), no_identity(label)).with_key(key));
        }
        for piece in pieces {
            scan.keys.extend(piece.scan.keys);
            scan.labels.extend(piece.scan.labels);
            scan.offsets.extend(piece.scan.offsets);
            scan.lengths.extend(piece.scan.lengths);
            scan.bare.extend(piece.scan.bare);
            for (flag, count) in piece.scan.flags {
                *scan.flags.entry(flag).or_default() += count;
            }
            unreadable.append(piece.unreadable);
            unlabelled.append(piece.unlabelled);
        }
        let name = file.path().display();
        let mut lines = unreadable.into_lines("records without a usable header");
        lines.extend(unlabelled.into_lines("images without a usable label, left out"));
        scan.problems.extend(lines.into_iter().map(|line| format!("{name}, {line}")));
        Ok(scan)
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
    use crate::recordio::framing::tests::magic_rich;
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
            (without(0), "names nothing before offset 72"),
            (
                without(1),
                "between key 4 and what follows, from offset 72 to 148, lie records that it does not name",
            ),
            (without(4), "between key 3 and what follows"),
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
    fn of_a_key_on_two_lines_the_later_counts() {
        let data = Dataset::new(&[4, 2, 9, 3, 1]);
        let text = fs::read_to_string(&data.idx).unwrap().replacen("4\t", "3\t", 1);
        fs::write(&data.idx, text).unwrap();
        let (scan, table) = (data.scan(true), data.table());
        assert_eq!((scan.keys, scan.rebuilt), (vec![2, 3, 1], false));
        assert_eq!(table.offset_of(3), Some(scan.offsets[1]));
        assert_eq!(table.keys(), [2, 9, 3, 1]);
        assert!(scan.problems[0].contains("line 1: key 3 occurs again further down"), "{:?}", scan.problems);
    }

    #[test]
    fn lines_in_any_order_and_two_keys_of_one_record() {
        let data = Dataset::new(&[4, 2, 9, 3, 1]);
        let mut lines = data.lines();
        lines.reverse();
        lines.push("77\t0".into());
        fs::write(&data.idx, lines.join("\n")).unwrap();
        let scan = data.scan(true);
        assert_eq!((scan.keys, scan.rebuilt), (vec![4, 77, 2, 3, 1], false));
        assert_eq!(data.table().offset_of(77), Some(0));
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
        assert_eq!(scan.keys, [1, 2, 4]);
        assert!(
            scan.problems.iter().any(|p| p.contains("several records have the id 0")),
            "{:?}",
            scan.problems
        );
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
                let table = KeyTable::load(&file, idx, true, &Interrupt::new()).unwrap();
                for key in table.keys() {
                    prop_assert!(table.offset_of(*key).is_some());
                }
            }
        }
    }
}
