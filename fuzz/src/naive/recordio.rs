//! `.rec` and `.idx` files, one byte after the other.

use std::collections::BTreeMap;

const MAGIC: u32 = 0xced7_230a;

/// A record: where it is, and what is in it.
#[derive(Debug)]
pub struct Record {
    /// Its offset.
    pub start: usize,
    /// The offset after it and its padding.
    pub end: usize,
    /// Its parts, with the magic between them.
    pub payload: Vec<u8>,
}

/// What a header says.
#[derive(Debug)]
pub struct Header {
    /// The count of labels, or 0.
    pub flag: u32,
    /// The label of a record with the flag 0.
    pub label: f32,
    /// The id.
    pub id: u64,
    /// Its high bits.
    pub id2: u64,
    /// The labels of a record with another flag.
    pub labels: Vec<f32>,
    /// Bytes of all this.
    pub size: usize,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A part of a record: its cflag, its bytes, and the offset after it. The last padding of a file may be missing.
fn part(data: &[u8], at: usize) -> Option<(u32, &[u8], usize)> {
    let (magic, flag_and_length) = (word(data, at)?, word(data, at + 4)?);
    let length = (flag_and_length & 0x1fff_ffff) as usize;
    let bytes = data.get(at + 8..at + 8 + length)?;
    let end = (at + 8 + length.next_multiple_of(4)).min(data.len());
    (magic == MAGIC && at.is_multiple_of(4)).then_some((flag_and_length >> 29, bytes, end))
}

/// The record at an offset, or the offset of the part that is wrong.
pub fn record_at(data: &[u8], start: usize) -> Result<Record, usize> {
    let (flag, bytes, mut end) = part(data, start).ok_or(start)?;
    let mut payload = bytes.to_vec();
    match flag {
        0 => return Ok(Record { start, end, payload }),
        1 => {}
        _ => return Err(start),
    }
    loop {
        let (flag, bytes, next) = part(data, end).filter(|part| part.0 == 2 || part.0 == 3).ok_or(end)?;
        payload.extend(MAGIC.to_le_bytes());
        payload.extend(bytes);
        end = next;
        if flag == 3 {
            return Ok(Record { start, end, payload });
        }
    }
}

/// The header of a payload.
pub fn header(payload: &[u8]) -> Option<Header> {
    let float = |at| word(payload, at).map(f32::from_bits);
    let long = |at| Some(u64::from(word(payload, at)?) | u64::from(word(payload, at + 4)?) << 32);
    let flag = word(payload, 0)?;
    let (label, id, id2) = (float(4)?, long(8)?, long(16)?);
    let size = 24 + 4 * flag as usize;
    if payload.len() < size {
        return None;
    }
    let labels = (24..size).step_by(4).filter_map(float).collect();
    Some(Header { flag, label, id, id2, labels, size })
}

fn looks_like_a_start(data: &[u8], at: usize) -> bool {
    word(data, at) == Some(MAGIC) && word(data, at + 4).is_some_and(|word| word >> 29 <= 1)
}

/// The first offset in a range at which a record seems to start.
pub fn find_start(data: &[u8], from: usize, to: usize) -> Option<usize> {
    (from.next_multiple_of(4)..to).step_by(4).find(|at| looks_like_a_start(data, *at))
}

/// What a walk through a file finds.
#[derive(Debug)]
pub struct Walk {
    /// The records, in file order.
    pub records: Vec<Record>,
    /// Nothing was skipped.
    pub whole: bool,
}

/// Goes from record to record. After damage, the search continues for a record's start. A record that is not
/// followed by another one, and that has one inside, has a damaged length.
pub fn walk(data: &[u8]) -> Walk {
    let mut found = Walk { records: Vec::new(), whole: true };
    let mut at = 0;
    while at < data.len() {
        match record_at(data, at) {
            Ok(record) => {
                let lost = record.end < data.len() && !looks_like_a_start(data, record.end);
                let inside = find_start(data, at + 8, record.end).filter(|_| lost);
                found.whole &= inside.is_none();
                at = inside.unwrap_or(record.end);
                if inside.is_none() {
                    found.records.push(record);
                }
            }
            Err(fault) => {
                found.whole = false;
                at = find_start(data, fault.max(at + 4), data.len()).unwrap_or(data.len());
            }
        }
    }
    found
}

/// What an index says.
#[derive(Debug, Default)]
pub struct Idx {
    /// Offset and key of each usable line, in ascending order.
    pub lines: Vec<(usize, i64)>,
    /// Numbers of the lines that are neither blank nor usable.
    pub broken: Vec<usize>,
    /// Lines that repeat another one.
    pub repeated: usize,
}

/// The lines of an index of a `.rec` of `size` bytes.
pub fn idx(text: &[u8], size: usize) -> Idx {
    let mut idx = Idx::default();
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match entry(line).filter(|(offset, _)| offset.is_multiple_of(4) && offset.saturating_add(8) <= size) {
            Some(entry) => idx.lines.push(entry),
            None => idx.broken.push(number + 1),
        }
    }
    idx.lines.sort_unstable();
    let all = idx.lines.len();
    idx.lines.dedup();
    idx.repeated = all - idx.lines.len();
    idx
}

fn entry(line: &[u8]) -> Option<(usize, i64)> {
    let fields: Vec<&str> = str::from_utf8(line).ok()?.split_ascii_whitespace().collect();
    let [key, offset] = fields[..] else { return None };
    let digits = offset.bytes().all(|byte| byte.is_ascii_digit());
    Some((offset.parse().ok().filter(|_| digits)?, key.parse().ok()?))
}

/// The records of a file by key, and how they were found.
#[derive(Debug)]
pub struct Keyed {
    /// Keys and records, in file order. Of records with the same key the last one.
    pub records: Vec<(i64, Record)>,
    /// The keys are not those of the index.
    pub rebuilt: bool,
    /// Nothing is wrong with the file and its index.
    pub sound: bool,
}

/// Takes the keys of the index if each line names another record and another key, and with `complete` all records,
/// from the start of the file to its end. Lines that are broken may have named the records that are left out.
/// Otherwise the ids of the records are their keys; where several have the same id, the index may still have a key for
/// a record.
pub fn keyed(data: &[u8], text: Option<&[u8]>, complete: bool) -> Keyed {
    let idx = text.map(|text| idx(text, data.len())).unwrap_or_default();
    if let Some(records) = listed(data, &idx, complete || !idx.broken.is_empty()) {
        let sound = idx.broken.is_empty() && idx.repeated == 0;
        return Keyed { records, rebuilt: false, sound };
    }
    let Walk { records, whole } = walk(data);
    let all = records.len();
    let mut records: Vec<(i64, Record)> = records
        .into_iter()
        .filter_map(|record| Some((i64::try_from(header(&record.payload)?.id).ok()?, record)))
        .collect();
    let readable = records.len();
    if last_places(&records).len() < records.len() {
        for (key, record) in &mut records {
            if let Some(line) = idx.lines.iter().find(|line| line.0 == record.start) {
                *key = line.1;
            }
        }
    }
    let last = last_places(&records);
    let sound = text.is_none() && whole && readable == all && last.len() == readable;
    let records = records.into_iter().enumerate();
    let records = records.filter(|(place, (key, _))| last[key] == *place).map(|(_, record)| record).collect();
    Keyed { records, rebuilt: true, sound }
}

/// The records that the index names, if it is to be believed.
fn listed(data: &[u8], idx: &Idx, complete: bool) -> Option<Vec<(i64, Record)>> {
    let mut records: Vec<(i64, Record)> = Vec::new();
    for (offset, key) in &idx.lines {
        let before = records.last().map(|(_, record)| record);
        let next_to_it = before.map_or(*offset == 0, |before| before.end == *offset);
        let twice = before.is_some_and(|before| before.start == *offset);
        if twice || (complete && !next_to_it) {
            return None;
        }
        records.push((*key, record_at(data, *offset).ok()?));
    }
    let end = records.last()?.1.end;
    let unique = last_places(&records).len() == records.len();
    (unique && (!complete || end == data.len())).then_some(records)
}

/// The last place of each key.
fn last_places(records: &[(i64, Record)]) -> BTreeMap<i64, usize> {
    records.iter().enumerate().map(|(place, (key, _))| (*key, place)).collect()
}
