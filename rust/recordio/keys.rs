//! The record of each key: from the `.idx` file if that is sound, else from the records.

use std::path::Path;

use rayon::prelude::*;

use super::file::OpenFile;
use super::framing::{self, MAGIC_BYTES, Span};
use super::header::Fixed;
use super::problems::{Problems, Report, first_of};
use super::reader::RecordFile;
use super::sniff::COPY_IN_BINARY;
use super::window::{ReadAt, Window};
use super::{idx, rebuild};
use crate::error::grouped;
use crate::{Error, Interrupt, Result};

/// Up to this many records, each is touched when the keys are loaded; in larger files, this many evenly
/// spread ones. Touching 1,000,000 records takes 0.1 s if the file is in memory, and reads most of the file
/// if it is not.
const TOUCHED: usize = 1 << 20;
/// Records in a unit of work.
const CHUNK: usize = 1 << 13;
/// What follows from whatever is wrong with an `.idx`.
const REBUILT: &str = "; the index was rebuilt from the .rec";
/// What the findings in `Entries` are, in reports.
pub(crate) const DAMAGED: &str = "damaged stretches";
pub(crate) const UNREADABLE: &str = "records without a usable header";

/// Keys and offsets of a file's records, in file order.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub keys: Vec<i64>,
    pub offsets: Vec<u64>,
    /// Positions of entries that a later entry of the same key replaces.
    pub replaced: Vec<usize>,
    /// Stretches of the file without records.
    pub damaged: Problems,
    /// Records that are not among the entries, because their headers cannot be read.
    pub unreadable: Problems,
    /// What else was found wrong and worked around.
    pub report: Report,
}

/// What an `.idx` file says.
#[derive(Debug)]
pub(crate) struct Idx {
    name: String,
    /// The usable lines in the order of their offsets, without those that repeat another.
    entries: Entries,
    broken: Problems,
    repeated: u64,
}

impl Idx {
    /// Reads an `.idx` file; the inner error says what a file without a usable line is.
    pub fn read(path: &Path, rec_size: u64) -> Result<std::result::Result<Self, String>> {
        let (file, mut buffer) = (OpenFile::open(path, ".idx file")?, Vec::new());
        let mut text = Window::forward(&file, &mut buffer);
        let lines = idx::parse(&mut text, rec_size)?;
        let name = path.display().to_string();
        if lines.keys.is_empty() {
            let first = || lines.broken.first().unwrap_or_default();
            let what = idx::instead(&mut text)?.unwrap_or_else(|| format!("no usable line; {}", first()));
            return Ok(Err(format!("{name}: {what}")));
        }
        let (mut keys, mut offsets) = (lines.keys, lines.offsets);
        let mut repeated = 0;
        if !offsets.is_sorted_by(|a, b| a < b) {
            let line = |i: u32| (offsets[i as usize], keys[i as usize]);
            let mut order = sorted_by(keys.len(), |i| (offsets[i], keys[i]))?;
            order.dedup_by_key(|i| line(*i));
            repeated = (keys.len() - order.len()) as u64;
            (offsets, keys) = order.into_iter().map(line).unzip();
        }
        let entries = Entries { keys, offsets, ..Entries::default() };
        Ok(Ok(Self { name, entries, broken: lines.broken, repeated }))
    }

    /// The entries, if each key has one record, and each record one key. They are not yet compared with the
    /// `.rec`.
    pub fn unambiguous(&self) -> Result<Option<&Entries>> {
        let unique = self.entries.offsets.is_sorted_by(|a, b| a < b) && same(&self.entries.keys)?.is_empty();
        Ok(unique.then_some(&self.entries))
    }

    /// The entries, for a caller who has found that they fit the `.rec`. What is odd about the other lines is
    /// in their report.
    pub fn into_entries(mut self) -> Entries {
        let broken = std::mem::take(&mut self.broken);
        let mut report = Report::default();
        report.list(&self.name, broken, "broken lines");
        self.say_repeated(&mut report);
        Entries { report, ..self.entries }
    }

    fn say_repeated(&self, report: &mut Report) {
        if self.repeated > 0 {
            let (name, lines) = (&self.name, grouped(self.repeated));
            report.say(format!("{name}: lines that repeat another count once ({lines} of them)"));
        }
    }

    /// Says why the lines were not believed. `found` are the offsets of all records in the `.rec`.
    fn misfits(mut self, file: &RecordFile, found: &[u64]) -> Result<(Report, Entries)> {
        let name = &self.name;
        let Entries { keys, offsets, .. } = &self.entries;
        let mut report = Report::default();
        let several = same(keys)?;
        let twice = offsets.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
        if let Some(place) = offsets.windows(2).position(|pair| pair[0] == pair[1]) {
            report.say(format!(
                "{name}: keys {} and {} point to the same record, at offset {}{}",
                keys[place],
                keys[place + 1],
                offsets[place],
                first_of(twice, "such pairs")
            ));
        }
        if let Some((one, other)) = several.first() {
            report.say(format!(
                "{name}: key {} points to two records, at offsets {} and {}{}",
                keys[*one],
                offsets[*one],
                offsets[*other],
                first_of(several.len() as u64, "such pairs")
            ));
        }
        let lost = |offset: &u64| found.binary_search(offset).is_err();
        if let Some(place) = offsets.iter().position(lost) {
            let fault = framing::span_at(&mut Window::new(file, &mut Vec::new()), offsets[place])?.err();
            let why = fault.map_or_else(|| "no readable record starts there".to_owned(), |f| f.to_string());
            let count = offsets[place..].iter().filter(|offset| lost(offset)).count() as u64;
            let more = first_of(count, "such lines");
            report
                .say(format!("{name}: key {} points to offset {}: {why}{more}", keys[place], offsets[place]));
        }
        let unnamed = |offset: &u64| offsets.binary_search(offset).is_err();
        if let Some(place) = found.iter().position(unnamed) {
            let named = found.len() - found[place..].iter().filter(|offset| unnamed(offset)).count();
            report.say(format!(
                "{name}: names {} of the {} records in the .rec (not the one at offset {})",
                grouped(named as u64),
                grouped(found.len() as u64),
                found[place]
            ));
        }
        let mut all = Report::default();
        all.list(name, std::mem::take(&mut self.broken), "broken lines");
        all.append(report);
        if all.is_empty() {
            all.say(format!("{name}: the records that it names do not fill the .rec"));
        }
        all.conclude(REBUILT);
        self.say_repeated(&mut all);
        Ok((all, self.entries))
    }
}

impl Entries {
    /// Goes through the `.rec` itself, because there is no `.idx` (`None`), it is something else (a reason), or
    /// its lines do not fit. Their keys are taken for records whose ids cannot be keys. Also gives what `row` made
    /// of the header of each entry.
    pub fn rebuilt<R: Send>(
        file: &RecordFile,
        idx: Option<std::result::Result<Idx, String>>,
        interrupt: &Interrupt,
        row: impl Fn(&Span, &Fixed, &[u8]) -> R + Sync,
    ) -> Result<(Self, Vec<R>)> {
        let found = rebuild::rebuild(file, interrupt, row)?;
        let name = file.path().display();
        let (mut keys, offsets) = (found.keys, found.offsets);
        let mut report = Report::default();
        if found.text_mode {
            report.say(format!(
                "{name}: bytes are missing: it seems that a copy in text mode has turned each CR LF (0d 0a) into \
                 LF (0a); {COPY_IN_BINARY}"
            ));
        }
        let listed = match idx {
            None => None,
            Some(Err(what)) => {
                report.say(what + REBUILT);
                None
            }
            Some(Ok(idx)) => {
                let (misfits, listed) = idx.misfits(file, &offsets)?;
                report.append(misfits);
                Some(listed)
            }
        };
        let mut pairs = same(&keys)?;
        if let (Some(&(one, other)), Some(listed)) = (pairs.first(), listed) {
            report.say(format!(
                "{name}: the records at offsets {} and {} have the same id, {}{}; the .idx gives keys instead \
                 where it names the records",
                offsets[one],
                offsets[other],
                keys[one],
                first_of(pairs.len() as u64, "such pairs")
            ));
            for (key, offset) in keys.iter_mut().zip(&offsets) {
                // Of several lines, the one with the lowest key.
                let place = listed.offsets.partition_point(|listed| listed < offset);
                if listed.offsets.get(place) == Some(offset) {
                    *key = listed.keys[place];
                }
            }
            pairs = same(&keys)?;
        }
        if let Some(&(one, other)) = pairs.first() {
            report.say(format!(
                "{name}: records left out, because a later one has the same key: {} of {} (key {} at offsets {} \
                 and {})",
                grouped(pairs.len() as u64),
                grouped(offsets.len() as u64),
                keys[one],
                offsets[one],
                offsets[other]
            ));
        }
        let replaced = pairs.into_iter().map(|(one, _)| one).collect();
        let (damaged, unreadable) = (found.damaged, found.unreadable);
        Ok((Self { keys, offsets, replaced, damaged, unreadable, report }, found.rows))
    }

    /// Says why there is no entry.
    fn why_none(&self, file: &RecordFile) -> Result<String> {
        if let Some(first) = self.unreadable.first() {
            return Ok(format!(
                "none of its records can be read ({}); {first}",
                grouped(self.unreadable.count())
            ));
        }
        let damage = self.damaged.first().unwrap_or("no record");
        let mut buffer = Vec::new();
        let begins = Window::new(file, &mut buffer).get(0, MAGIC_BYTES.len())? == MAGIC_BYTES;
        // Such a file would not have been opened.
        let why = if begins { "" } else { "; the file was overwritten while it was open" };
        Ok(format!("{damage}{why}"))
    }

    /// Visits the records in parallel, `CHUNK` of them with each `T`. Returns the `T`s in file order; `None` if
    /// there is an entry without a record.
    ///
    /// With `complete`, each record must also end where the next one starts, from the start of the file to its
    /// end.
    pub fn visit<T: Default + Send>(
        &self,
        file: &RecordFile,
        complete: bool,
        interrupt: &Interrupt,
        each: impl Fn(&mut T, usize, &Span, &mut Window) -> Result<()> + Sync,
    ) -> Result<Option<Vec<T>>> {
        let chunks =
            self.offsets.par_chunks(CHUNK).enumerate().map_init(Vec::new, |buffer, (number, chunk)| {
                interrupt.check()?;
                let mut seen = T::default();
                let mut window = Window::forward(file, buffer);
                for place in number * CHUNK..number * CHUNK + chunk.len() {
                    match self.span(place, &mut window, complete)? {
                        Some(span) => each(&mut seen, place, &span, &mut window)?,
                        None => return Ok(None),
                    }
                }
                Ok(Some(seen))
            });
        chunks.collect::<Result<Vec<_>>>().map(|chunks| chunks.into_iter().collect())
    }

    fn span(&self, place: usize, window: &mut Window, complete: bool) -> Result<Option<Span>> {
        let next = self.offsets.get(place + 1).copied().unwrap_or(window.size());
        let fits = |span: &Span| !complete || (span.end == next && (place > 0 || span.start == 0));
        Ok(framing::span_at(window, self.offsets[place])?.ok().filter(fits))
    }

    /// Whether `touched` evenly spread records, at least 2, or all if there are not more, are where they should
    /// be.
    fn fit(&self, touched: usize, file: &RecordFile, complete: bool, interrupt: &Interrupt) -> Result<bool> {
        let count = self.offsets.len();
        if count <= touched {
            return Ok(self.visit(file, complete, interrupt, |(): &mut (), _, _, _| Ok(()))?.is_some());
        }
        let spread = (0..touched).into_par_iter().map_init(Vec::new, |buffer, i| {
            if i.is_multiple_of(CHUNK) {
                interrupt.check()?;
            }
            let place = (i as u128 * (count - 1) as u128 / (touched - 1) as u128) as usize; // both ends included
            Ok(self.span(place, &mut Window::new(file, buffer), complete)?.is_some())
        });
        let misfit = spread.find_map_first(|fits: Result<bool>| match fits {
            Ok(true) => None,
            other => Some(other),
        });
        misfit.unwrap_or(Ok(true))
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
    /// is missing (`None`) or does not fit. It fits if each line names a record, no two lines have the same key
    /// or the same record, and with `complete`, no record is left out.
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
        let listed = idx.map(|idx| Idx::read(idx, file.size())).transpose()?;
        if let Some(Ok(idx)) = &listed
            && let Some(entries) = idx.unambiguous()?
            // Broken lines may have named the records that are left out.
            && entries.fit(touched, file, complete || idx.broken.count() > 0, interrupt)?
            && let Some(Ok(idx)) = listed
        {
            return Self::new(idx.into_entries(), file);
        }
        let (entries, _) = Entries::rebuilt(file, listed, interrupt, |_, _, _| ())?;
        if entries.keys.is_empty() {
            return Err(Error::record(file.path(), None, entries.why_none(file)?));
        }
        Self::new(entries, file)
    }

    fn new(entries: Entries, file: &RecordFile) -> Result<Self> {
        let Entries { mut keys, mut offsets, replaced, damaged, unreadable, mut report } = entries;
        report.list(file.path().display(), damaged, DAMAGED);
        report.list(file.path().display(), unreadable, UNREADABLE);
        if !replaced.is_empty() {
            let keep = |place: usize| replaced.binary_search(&place).is_err();
            let places: Vec<usize> = (0..keys.len()).filter(|place| keep(*place)).collect();
            keys = places.iter().map(|place| keys[*place]).collect();
            offsets = places.iter().map(|place| offsets[*place]).collect();
        }
        let order = if keys.is_sorted() { Vec::new() } else { sorted_by(keys.len(), |i| keys[i])? };
        Ok(Self { keys, offsets, order, problems: report.into_lines() })
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

/// Pairs of positions that have the same key, with no position between them that has it too; by the first position.
fn same(keys: &[i64]) -> Result<Vec<(usize, usize)>> {
    if keys.is_sorted_by(|a, b| a < b) {
        return Ok(Vec::new());
    }
    let order = sorted_by(keys.len(), |i| keys[i])?;
    let pairs = order.windows(2).map(|pair| (pair[0] as usize, pair[1] as usize));
    let mut same: Vec<_> = pairs.filter(|(one, other)| keys[*one] == keys[*other]).collect();
    same.sort_unstable();
    Ok(same)
}

/// `0..count` in ascending order of `value`, equal values by position.
fn sorted_by<V: Ord>(count: usize, value: impl Fn(usize) -> V + Sync) -> Result<Vec<u32>> {
    let count = u32::try_from(count)
        .map_err(|_| Error::Value(format!("{} records are more than 2^32 - 1", grouped(count as u64))))?;
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
            assert!(table.problems()[0].contains("names 99 of the 100 records"), "{:?}", table.problems());
        }
        let unnoticed = [&lines[..5], &lines[6..]].concat();
        let table = load(&unnoticed, 12);
        assert_eq!((table.offset_of(5), table.problems().len()), (None, 0));
        assert_eq!(load(&unnoticed, 100).offset_of(5), Some(5 * 40));
    }

    #[test]
    fn a_file_without_a_record_has_no_table() {
        let folder = tempfile::tempdir().unwrap();
        let rec = folder.path().join("a.rec");
        let message = |opened: &[u8], then: &[u8]| {
            fs::write(&rec, opened).unwrap();
            let file = RecordFile::open(&rec).unwrap();
            fs::write(&rec, then).unwrap();
            KeyTable::load(&file, None, true, &Interrupt::new()).unwrap_err().to_string()
        };
        let damaged = [&MAGIC_BYTES[..], &[7; 1996]].concat();
        let found = message(&damaged, &damaged);
        assert!(
            found.contains("a.rec: no readable record from offset 0 to the end of the file (2,000 bytes)"),
            "{found}"
        );
        assert!(!found.contains("overwritten"), "{found}");
        let found = message(&damaged, &[7; 2000]);
        assert!(found.ends_with("; the file was overwritten while it was open"), "{found}");
        let mut short = Vec::new();
        framing::append_record(&mut short, b"short");
        let found = message(&short, &short);
        assert!(
            found.contains("a.rec: none of its records can be read (1); offset 0: the record has 5 bytes"),
            "{found}"
        );
    }
}
