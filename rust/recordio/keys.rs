//! The record of each key: from the `.idx` file if that is sound, else from the records.

use std::path::Path;

use rayon::prelude::*;

use super::framing::{self, Fault, Span};
use super::reader::{RecordFile, map_file};
use super::{idx, rebuild};
use crate::{Error, Interrupt, Result};

/// Up to this many records, each is touched when the keys are loaded; in larger files, this many evenly
/// spread ones. Touching 1,000,000 records takes 0.1 s if the file is in memory, and reads most of the file
/// if it is not.
const TOUCHED: usize = 1 << 20;
/// Records in a unit of work.
const CHUNK: usize = 1 << 13;

/// Keys and offsets of a file's records, in file order.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub keys: Vec<i64>,
    pub offsets: Vec<u64>,
    /// Positions of entries that a later entry of the same key replaces.
    pub replaced: Vec<usize>,
    /// What was found wrong and worked around.
    pub problems: Vec<String>,
}

/// Why the offsets are not those of all records of the file.
#[derive(Debug)]
pub(crate) enum Break {
    /// No record starts at the offset of this entry.
    NoRecord(usize, Fault),
    /// Between the record of this entry and the next entry's offset (or the end of the file) there is
    /// something else, from the given offset on.
    Gap(usize, u64),
    /// The first entry is not at the start of the file.
    Start,
}

impl Entries {
    /// The usable entries of an `.idx` file.
    pub fn from_idx(path: &Path, rec_size: u64) -> Result<std::result::Result<Self, String>> {
        let text = map_file(path, ".idx file")?;
        let lines = idx::parse(&text, rec_size);
        let name = path.display();
        if lines.keys.is_empty() {
            let first = || lines.broken.into_lines("").into_iter().next().unwrap_or_default();
            let what = idx::instead(&text).unwrap_or_else(|| format!("no usable line; {}", first()));
            return Ok(Err(format!("{name}: {what}")));
        }
        let mut problems = Vec::new();
        let mut replaced = replaced(&lines.keys)?;
        if let Some(&entry) = replaced.first() {
            problems.push(format!(
                "{name}, line {}: key {} occurs again further down; the later line counts ({} such lines)",
                lines.line_of(entry),
                lines.keys[entry],
                replaced.len()
            ));
        }
        problems.extend(
            lines.broken.into_lines("broken lines").into_iter().map(|line| format!("{name}, {line}")),
        );
        let (mut keys, mut offsets) = (lines.keys, lines.offsets);
        if !offsets.is_sorted() {
            let mut is_replaced = vec![false; keys.len()];
            for entry in &replaced {
                is_replaced[*entry] = true;
            }
            let order = sorted_by(keys.len(), |i| offsets[i])?;
            let pick = |i: &u32| *i as usize;
            keys = order.iter().map(|i| keys[pick(i)]).collect();
            offsets = order.iter().map(|i| offsets[pick(i)]).collect();
            replaced = (0..order.len()).filter(|place| is_replaced[order[*place] as usize]).collect();
        }
        Ok(Ok(Self { keys, offsets, replaced, problems }))
    }

    /// Goes through the `.rec` itself. `problems` says why. The keys are those of `idx`, if there is one, for
    /// records whose ids cannot be keys.
    pub fn rebuilt(
        file: &RecordFile,
        idx: Option<&Self>,
        mut problems: Vec<String>,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let found = rebuild::rebuild(file, interrupt)?;
        let name = file.path().display();
        problems.extend(found.problems.into_iter().map(|what| format!("{name}, {what}")));
        let (mut keys, offsets) = (found.keys, found.offsets);
        let mut same = replaced(&keys)?;
        if let (Some(&first), Some(idx)) = (same.first(), idx) {
            problems.push(format!(
                "{name}, offset {}: several records have the id {}; keys are taken from the .idx where it names \
                 the record's offset",
                offsets[first], keys[first]
            ));
            for (key, offset) in keys.iter_mut().zip(&offsets) {
                if let Ok(place) = idx.offsets.binary_search(offset) {
                    *key = idx.keys[place];
                }
            }
            same = replaced(&keys)?;
        }
        if let Some(&first) = same.first() {
            problems.push(format!(
                "{name}, offset {}: key {} occurs again further down; the later record counts ({} such records)",
                offsets[first],
                keys[first],
                same.len()
            ));
        }
        Ok(Self { keys, offsets, replaced: same, problems })
    }

    /// Explains why these entries do not fit the file.
    pub fn describe(&self, broken: &Break, file: &RecordFile) -> String {
        match broken {
            Break::NoRecord(entry, fault) => {
                format!("key {} points to offset {}: {fault}", self.keys[*entry], self.offsets[*entry])
            }
            Break::Start => {
                format!("names nothing before offset {}, where key {} lies", self.offsets[0], self.keys[0])
            }
            Break::Gap(entry, from) => {
                let to = self.offsets.get(entry + 1).copied().unwrap_or(file.bytes().len() as u64);
                let what = if framing::starts_record(file.bytes(), *from) {
                    "records that it does not name"
                } else {
                    "bytes that are not a record"
                };
                format!(
                    "between key {} and what follows, from offset {from} to {to}, lie {what}",
                    self.keys[*entry]
                )
            }
        }
    }

    /// Visits the records in parallel, `CHUNK` of them with each `T`. Returns the `T`s in file order.
    ///
    /// With `complete`, each record must end where the next one starts.
    pub fn visit<T: Default + Send>(
        &self,
        file: &RecordFile,
        complete: bool,
        interrupt: &Interrupt,
        each: impl Fn(&mut T, usize, &Span) + Sync,
    ) -> Result<std::result::Result<Vec<T>, Break>> {
        let chunks = self.offsets.par_chunks(CHUNK).enumerate().map(|(number, chunk)| {
            interrupt.check()?;
            let mut seen = T::default();
            for place in number * CHUNK..number * CHUNK + chunk.len() {
                match self.check(place, file, complete) {
                    Ok(span) => each(&mut seen, place, &span),
                    Err(broken) => return Ok(Err(broken)),
                }
            }
            Ok(Ok(seen))
        });
        chunks.collect::<Result<Vec<_>>>().map(|chunks| chunks.into_iter().collect())
    }

    fn check(&self, place: usize, file: &RecordFile, complete: bool) -> std::result::Result<Span, Break> {
        let span = framing::span_at(file.bytes(), self.offsets[place]);
        let span = span.map_err(|fault| Break::NoRecord(place, fault))?;
        let next = self.offsets.get(place + 1).copied().unwrap_or(file.bytes().len() as u64);
        // Two keys may name the same record.
        if complete && span.end != next && next != span.start {
            return Err(match framing::span_at(file.bytes(), next) {
                Err(fault) if place + 1 < self.offsets.len() => Break::NoRecord(place + 1, fault),
                _ => Break::Gap(place, span.end),
            });
        }
        if complete && place == 0 && span.start != 0 {
            return Err(Break::Start);
        }
        Ok(span)
    }
}

/// Finds records by key.
#[derive(Debug)]
pub struct KeyTable {
    keys: Vec<i64>,
    offsets: Vec<u64>,
    /// Positions in ascending order of their keys. Empty if the keys ascend in file order.
    order: Vec<u32>,
    problems: Vec<String>,
}

impl KeyTable {
    /// Reads the `.idx` file and checks it against the `.rec`. Goes through the `.rec` itself if the `.idx`
    /// is missing (`None`) or does not fit. It fits if each entry names a record, and with `complete`, if it
    /// leaves no record out.
    pub fn load(
        file: &RecordFile,
        idx: Option<&Path>,
        complete: bool,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        Self::load_touching(TOUCHED, file, idx, complete, interrupt)
    }

    fn load_touching(
        touched: usize,
        file: &RecordFile,
        idx: Option<&Path>,
        complete: bool,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let size = file.bytes().len() as u64;
        let entries = match idx.map(|idx| Entries::from_idx(idx, size)).transpose()? {
            None => Entries::rebuilt(file, None, Vec::new(), interrupt)?,
            Some(Err(what)) => Entries::rebuilt(file, None, vec![rebuilt_because(&what)], interrupt)?,
            // Broken lines may have named the records that are left out.
            Some(Ok(mut entries)) => match entries.find_break(
                touched,
                file,
                complete || !entries.problems.is_empty(),
                interrupt,
            )? {
                None => entries,
                Some(broken) => {
                    let name = idx.unwrap_or(file.path()).display();
                    let what = format!("{name}: {}", entries.describe(&broken, file));
                    let mut problems = std::mem::take(&mut entries.problems);
                    problems.push(rebuilt_because(&what));
                    Entries::rebuilt(file, Some(&entries), problems, interrupt)?
                }
            },
        };
        Self::new(entries)
    }

    fn new(entries: Entries) -> Result<Self> {
        let Entries { mut keys, mut offsets, replaced, problems } = entries;
        if !replaced.is_empty() {
            let keep = |place: usize| replaced.binary_search(&place).is_err();
            let places: Vec<usize> = (0..keys.len()).filter(|place| keep(*place)).collect();
            keys = places.iter().map(|place| keys[*place]).collect();
            offsets = places.iter().map(|place| offsets[*place]).collect();
        }
        let order = if keys.is_sorted() { Vec::new() } else { sorted_by(keys.len(), |i| keys[i])? };
        Ok(Self { keys, offsets, order, problems })
    }

    /// The keys, in file order.
    pub fn keys(&self) -> &[i64] {
        &self.keys
    }

    /// What was found wrong with the `.idx` or the `.rec` and worked around, one line per finding.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Byte offset of the record with this key.
    pub fn offset_of(&self, key: i64) -> Option<u64> {
        let place = if self.order.is_empty() {
            self.keys.binary_search(&key).ok()?
        } else {
            self.order[self.order.binary_search_by_key(&key, |place| self.keys[*place as usize]).ok()?]
                as usize
        };
        Some(self.offsets[place])
    }
}

impl Entries {
    /// Checks `touched` evenly spread records, at least 2, or all if there are not more.
    fn find_break(
        &self,
        touched: usize,
        file: &RecordFile,
        complete: bool,
        interrupt: &Interrupt,
    ) -> Result<Option<Break>> {
        let count = self.offsets.len();
        if count <= touched {
            return Ok(self.visit(file, complete, interrupt, |(): &mut (), _, _| ())?.err());
        }
        let spread = (0..touched).into_par_iter().map(|i| {
            if i.is_multiple_of(CHUNK) {
                interrupt.check()?;
            }
            let place = (i as u128 * (count - 1) as u128 / (touched - 1) as u128) as usize; // both ends included
            Ok(self.check(place, file, complete).err())
        });
        spread.find_map_first(Result::transpose).transpose()
    }
}

pub(crate) fn rebuilt_because(what: &str) -> String {
    format!("{what}; the index was rebuilt from the .rec")
}

/// Positions whose key occurs again at a later position, ascending.
fn replaced(keys: &[i64]) -> Result<Vec<usize>> {
    if keys.is_sorted_by(|a, b| a < b) {
        return Ok(Vec::new());
    }
    let order = sorted_by(keys.len(), |i| keys[i])?;
    let same = order.windows(2).filter(|pair| keys[pair[0] as usize] == keys[pair[1] as usize]);
    let mut replaced: Vec<usize> = same.map(|pair| pair[0] as usize).collect();
    replaced.sort_unstable();
    Ok(replaced)
}

/// `0..count` in ascending order of `value`, equal values by position.
fn sorted_by<V: Ord>(count: usize, value: impl Fn(usize) -> V + Sync) -> Result<Vec<u32>> {
    let count =
        u32::try_from(count).map_err(|_| Error::Value(format!("{count} records are more than 2^32 - 1")))?;
    let mut order: Vec<u32> = (0..count).collect();
    order.par_sort_unstable_by_key(|i| (value(*i as usize), *i));
    Ok(order)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::recordio::{Header, RecordWriter};

    #[test]
    fn of_large_files_a_sample_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (rec, idx) = (folder.path().join("a.rec"), folder.path().join("a.idx"));
        let mut writer = RecordWriter::create(&rec).unwrap();
        for key in 0..100 {
            writer.write(key, &Header { id: key as u64, ..Header::default() }, b"content").unwrap();
        }
        writer.finish().unwrap();
        let file = RecordFile::open(&rec).unwrap();
        let good = fs::read_to_string(&idx).unwrap();
        let lines: Vec<&str> = good.lines().collect();
        let load = |lines: &[&str], touched| {
            fs::write(&idx, lines.join("\n")).unwrap();
            KeyTable::load_touching(touched, &file, Some(&idx), true, &Interrupt::new()).unwrap()
        };
        // 12 of 99 entries: 0, 8, 17, ... 98.
        assert!(load(&lines, 12).problems().is_empty());
        for noticed in [&lines[1..], &lines[..99], &[&lines[..9], &lines[10..]].concat()] {
            let table = load(noticed, 12);
            assert_eq!((table.keys().len(), table.problems().len()), (100, 1));
        }
        let unnoticed = [&lines[..5], &lines[6..]].concat();
        let table = load(&unnoticed, 12);
        assert_eq!((table.offset_of(5), table.problems().len()), (None, 0));
        assert_eq!(load(&unnoticed, 100).offset_of(5), Some(5 * 40));
    }
}
