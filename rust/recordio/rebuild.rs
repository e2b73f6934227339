//! Finds the records of a file without its `.idx`, even if the file is damaged.

use rayon::prelude::*;

use super::framing::{self, Span};
use super::header::Fixed;
use super::problems::Problems;
use super::reader::RecordFile;
use super::window::{ReadAt, Window};
use crate::error::counted;
use crate::{Interrupt, Result};

/// The file is cut at the first record start after each multiple of this. The pieces are read in parallel.
const PIECE: u64 = 64 << 20;

/// The records that were found, in file order, with their ids as keys.
#[derive(Debug)]
pub(crate) struct Found<R> {
    pub keys: Vec<i64>,
    pub offsets: Vec<u64>,
    /// What the caller made of each record.
    pub rows: Vec<R>,
    /// Stretches without readable records.
    pub damaged: Problems,
    /// Records without a usable header.
    pub unreadable: Problems,
    /// A copy in text mode seems to have turned each CR LF of the file into LF.
    pub text_mode: bool,
}

/// Goes through the whole file from record to record. `row` sees the header of each one and its bytes.
pub(crate) fn rebuild<R: Send>(
    file: &RecordFile,
    interrupt: &Interrupt,
    row: impl Fn(&Span, &Fixed, &[u8]) -> R + Sync,
) -> Result<Found<R>> {
    hop_all(file, PIECE, interrupt, &row)
}

fn hop_all<R: Send>(
    file: &dyn ReadAt,
    piece: u64,
    interrupt: &Interrupt,
    row: &(impl Fn(&Span, &Fixed, &[u8]) -> R + Sync),
) -> Result<Found<R>> {
    let size = file.size();
    let mut starts: Vec<u64> = (0..size.div_ceil(piece))
        .into_par_iter()
        .map_init(Vec::new, |buffer, i| {
            interrupt.check()?;
            // A piece in which no record starts (holes, one long record) remains a piece.
            let mut window = Window::new(file, buffer);
            let start = match i {
                0 => None,
                _ => framing::resynchronise(&mut window, i * piece, (i + 1) * piece)?,
            };
            Ok(start.unwrap_or((i * piece).next_multiple_of(4).min(size)))
        })
        .collect::<Result<_>>()?;
    starts.push(size);
    starts.dedup();
    let hops = starts.par_windows(2).map(|ends| {
        interrupt.check()?;
        Hop::new(file, ends[0], ends[1], row)
    });
    let mut whole = Hop::starting_at(0);
    for (hop, stop) in hops.collect::<Result<Vec<_>>>()?.into_iter().zip(starts.iter().skip(1)) {
        interrupt.check()?;
        // A piece may start inside a record of the piece before it (damage, or an image that happens to hold
        // a record). It is then read again from the end of that record.
        let hop = if hop.start == whole.end { hop } else { Hop::new(file, whole.end, *stop, row)? };
        whole.append(hop);
    }
    whole.finish(file)
}

/// The records that start in one piece of the file.
struct Hop<R> {
    start: u64,
    /// Where the first record after the piece should start.
    end: u64,
    keys: Vec<i64>,
    offsets: Vec<u64>,
    rows: Vec<R>,
    damage: Vec<Damage>,
    unreadable: Problems,
}

/// A stretch of the file without readable records.
struct Damage {
    from: u64,
    to: u64,
    why: String,
}

impl<R> Hop<R> {
    fn starting_at(start: u64) -> Self {
        Self {
            start,
            end: start,
            keys: Vec::new(),
            offsets: Vec::new(),
            rows: Vec::new(),
            damage: Vec::new(),
            unreadable: Problems::default(),
        }
    }

    fn new(
        file: &dyn ReadAt,
        start: u64,
        stop: u64,
        row: &impl Fn(&Span, &Fixed, &[u8]) -> R,
    ) -> Result<Self> {
        let mut hop = Self::starting_at(start);
        let mut buffer = Vec::new();
        let mut window = Window::forward(file, &mut buffer);
        while hop.end < stop {
            hop.end = hop.step(&mut window, hop.end, stop, row)?;
        }
        Ok(hop)
    }

    /// Reads the record at `at`, or skips damage up to `stop`. Returns where the next record should start.
    fn step(
        &mut self,
        window: &mut Window,
        at: u64,
        stop: u64,
        row: &impl Fn(&Span, &Fixed, &[u8]) -> R,
    ) -> Result<u64> {
        let size = window.size();
        match framing::span_at(window, at)? {
            Ok(span) => {
                // Before the next record is looked at, as the window moves on to that.
                let (header, bytes) = Fixed::read(&span, window)?;
                let header = header.map(|header| (i64::try_from(header.id), row(&span, &header, &bytes)));
                // In an intact file no payload holds an aligned magic. So if no record follows, and another
                // one starts inside this one, then the length of this one is damaged.
                if span.end < size
                    && !framing::starts_record(window, span.end)?
                    && let Some(next) = framing::resynchronise(window, at + 8, span.end)?
                {
                    self.damaged(at, next, || "the record's length is damaged".into());
                    return Ok(next);
                }
                match header {
                    Ok((Ok(key), row)) => {
                        self.keys.push(key);
                        self.offsets.push(at);
                        self.rows.push(row);
                    }
                    Ok((Err(_), _)) => {
                        self.unreadable.add(|| format!("offset {at}: the record's id is above 2^63 - 1"));
                    }
                    Err(short) => self.unreadable.add(|| format!("offset {at}: {short}")),
                }
                Ok(span.end)
            }
            Err(fault) => {
                // Parts that were followed by another part of the same record are certain: the search
                // continues after them, and so never reads a byte twice.
                let after = fault.at.max(at + 4);
                let next = framing::resynchronise(window, after, stop)?;
                let next = next.unwrap_or(stop.max(after).min(size));
                self.damaged(at, next, || fault.to_string());
                Ok(next)
            }
        }
    }

    fn damaged(&mut self, from: u64, to: u64, why: impl FnOnce() -> String) {
        match self.damage.last_mut() {
            Some(last) if last.to == from => last.to = to,
            _ => self.damage.push(Damage { from, to, why: why() }),
        }
    }

    fn append(&mut self, next: Self) {
        self.end = next.end;
        self.keys.extend(next.keys);
        self.offsets.extend(next.offsets);
        self.rows.extend(next.rows);
        for damage in next.damage {
            self.damaged(damage.from, damage.to, || damage.why);
        }
        self.unreadable.append(next.unreadable);
    }

    fn finish(self, file: &dyn ReadAt) -> Result<Found<R>> {
        let mut damaged = Problems::default();
        for Damage { from, to, why } in &self.damage {
            let last = *to == file.size();
            let end = if last { "the end of the file".to_owned() } else { format!("offset {to}") };
            damaged.add(|| {
                let bytes = counted(to - from, "byte");
                format!("no readable record from offset {from} to {end} ({bytes}): {why}")
            });
        }
        let text_mode = match self.damage.first() {
            Some(damage) => lost_carriage_returns(file, damage)?,
            None => false,
        };
        let Self { keys, offsets, rows, unreadable, .. } = self;
        Ok(Found { keys, offsets, rows, damaged, unreadable, text_mode })
    }
}

/// Whether a copy in text mode seems to have turned each CR LF into LF. Each one costs a byte, so that records
/// after it start at offsets that are not multiples of 4; and no CR LF is left, where an intact file has one
/// in about 64 KiB.
fn lost_carriage_returns(file: &dyn ReadAt, damage: &Damage) -> Result<bool> {
    // The record before the damage may have swallowed the start of the next one.
    const BEFORE: u64 = 64;
    const LOOK: usize = 16 << 20;
    let from = damage.from.saturating_sub(BEFORE);
    let mut buffer = Vec::new();
    let mut window = Window::new(file, &mut buffer);
    let stretch = window.get(from, LOOK.min((damage.to - from) as usize))?;
    let shifted = stretch
        .windows(8)
        .enumerate()
        .any(|(i, bytes)| !(from + i as u64).is_multiple_of(4) && framing::is_start(bytes));
    Ok(shifted && !window.get(0, LOOK)?.windows(2).any(|pair| pair == b"\r\n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recordio::Header;
    use crate::recordio::framing::{MAGIC_BYTES, append_record};

    fn records(contents: &[Vec<u8>]) -> (Vec<u8>, Vec<u64>) {
        let (mut data, mut offsets) = (Vec::new(), Vec::new());
        for (id, content) in contents.iter().enumerate() {
            let mut payload = Vec::new();
            Header { id: id as u64, ..Header::default() }.append_to(&mut payload);
            payload.extend_from_slice(content);
            offsets.push(data.len() as u64);
            append_record(&mut data, &payload);
        }
        (data, offsets)
    }

    /// The rows are the lengths.
    fn found(data: &[u8], piece: u64) -> Found<u64> {
        hop_all(&data, piece, &Interrupt::new(), &|span: &Span, _: &Fixed, _: &[u8]| span.length).unwrap()
    }

    #[test]
    fn damage_costs_the_damaged_record_only() {
        let (data, offsets) = records(&vec![vec![7; 50]; 5]);
        let at = |record: usize| offsets[record] as usize;
        let lengthened = u32::to_le_bytes(150);
        for (place, bytes) in [(at(2), &[0_u8; 4][..]), (at(2) + 4, &lengthened), (at(2) + 7, &[0x60])] {
            let mut data = data.clone();
            data[place..place + bytes.len()].copy_from_slice(bytes);
            for piece in [16, 64, 1 << 20] {
                let found = found(&data, piece);
                assert_eq!(found.keys, [0, 1, 3, 4], "{bytes:?} {piece}");
                let problems = found.damaged.texts();
                assert_eq!((problems.len(), found.text_mode), (1, false));
                let stretch =
                    format!("no readable record from offset {} to offset {}", offsets[2], offsets[3]);
                assert!(problems[0].starts_with(&stretch), "{problems:?}");
            }
        }
    }

    #[test]
    fn lost_words_cost_their_record_only() {
        let (data, offsets) = records(&vec![vec![7; 50]; 4]);
        for lost in (4..=48).step_by(4) {
            // The record then ends inside the next one, at first before the length of that.
            let mut data = data.clone();
            data.drain(offsets[1] as usize + 32..offsets[1] as usize + 32 + lost);
            for piece in [16, 64, 1 << 20] {
                let found = found(&data, piece);
                assert_eq!((found.keys, found.damaged.count()), (vec![0, 2, 3], 1), "{lost} {piece}");
            }
        }
    }

    #[test]
    fn a_cut_file_loses_its_last_record() {
        let (data, _) = records(&vec![vec![7; 50]; 3]);
        let found = found(&data[..data.len() - 20], 1 << 20);
        assert_eq!(found.keys, [0, 1]);
        assert!(found.damaged.texts()[0].contains(
            "to the end of the file (64 bytes): the record needs 74 bytes and the file has 56 left"
        ));
    }

    #[test]
    fn unusable_headers_are_named() {
        let (mut data, _) = records(&[vec![1], vec![2]]);
        let end = data.len();
        append_record(&mut data, b"no header");
        let found = found(&data, 1 << 20);
        assert_eq!(found.keys, [0, 1]);
        assert!(found.unreadable.texts()[0].starts_with(&format!("offset {end}: the record has 9 bytes")));
    }

    #[test]
    fn lost_carriage_returns_are_recognised() {
        let content = |i: u8| [vec![i; 30], b"\r\n".repeat(usize::from(i == 1)), vec![i; 30]].concat();
        let (data, _) = records(&(0..6).map(content).collect::<Vec<_>>());
        let mut converted = Vec::new();
        for (i, byte) in data.iter().enumerate() {
            if data.get(i..i + 2) != Some(b"\r\n") {
                converted.push(*byte);
            }
        }
        assert_eq!(converted.len(), data.len() - 1);
        assert!(found(&converted, 1 << 20).text_mode);
        // The same loss at another byte is only damage.
        let mut shorter = data.clone();
        shorter.remove(8);
        assert!(!found(&shorter, 1 << 20).text_mode);
    }

    #[test]
    fn nested_first_parts_take_linear_time() {
        // By their lengths, n first parts all reach the same chain of n middle parts, which has no last one.
        let n = 200_000_u32;
        let mut data = Vec::new();
        for i in 0..n {
            data.extend_from_slice(&MAGIC_BYTES);
            data.extend_from_slice(&(1 << 29 | (8 * (n - 1 - i))).to_le_bytes());
        }
        for _ in 0..n {
            data.extend_from_slice(&MAGIC_BYTES);
            data.extend_from_slice(&(2_u32 << 29).to_le_bytes());
        }
        let begin = std::time::Instant::now();
        assert!(found(&data, 1 << 30).keys.is_empty());
        assert!(begin.elapsed().as_secs() < 5);
    }

    proptest! {
        #[test]
        fn finds_every_record_of_a_whole_file(
            contents in prop::collection::vec(framing::tests::magic_rich(), 1..30),
            piece in 1_u64..200,
        ) {
            let (data, offsets) = records(&contents);
            let found = found(&data, piece);
            prop_assert_eq!(found.offsets, offsets);
            let lengths: Vec<_> = contents.iter().map(|content| 24 + content.len() as u64).collect();
            prop_assert_eq!(found.rows, lengths);
            prop_assert_eq!(found.keys, (0..contents.len() as i64).collect::<Vec<_>>());
            prop_assert_eq!((found.damaged.count(), found.unreadable.count(), found.text_mode), (0, 0, false));
        }

        #[test]
        fn damage_ends_and_pieces_do_not_change_the_answer(
            contents in prop::collection::vec(framing::tests::magic_rich(), 1..20),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
            piece in 1_u64..200,
        ) {
            let (mut data, _) = records(&contents);
            for (place, byte) in changes {
                let place = place.index(data.len());
                data[place] = byte;
            }
            data.truncate(cut.index(data.len()) + 1);
            let (whole, pieces) = (found(&data, 1 << 20), found(&data, piece));
            prop_assert_eq!(&whole.keys, &pieces.keys);
            prop_assert_eq!(&whole.offsets, &pieces.offsets);
            prop_assert_eq!(&whole.rows, &pieces.rows);
            prop_assert_eq!(whole.damaged.texts(), pieces.damaged.texts());
            prop_assert_eq!(whole.unreadable.texts(), pieces.unreadable.texts());
            prop_assert!(whole.offsets.is_sorted());
        }
    }
}
