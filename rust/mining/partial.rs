//! Parts of what was mined, each from one block of the negatives: how they are merged, and what is chosen in the end.
//!
//! A part has of each pair what its block keeps ([`Choice::keep`]), and with [`Options::fallback`] the farthest
//! negative where too few qualify. So it needs no marks: what qualifies is known by its distance.

use rayon::prelude::*;

use super::hash::{Draw, Key, row_hash};
use super::picked::{Choice, Qualified};
use super::shortage::{COLUMNS, TRIPLETS};
use super::{Options, Stats, Triplets};
use crate::{Error, Interrupt, Result, memory};

/// A negative of a part.
#[derive(Clone, Copy)]
struct Kept {
    id: i64,
    d_an: f64,
    draw: Draw,
}

impl Qualified for Kept {
    fn draw(&self) -> Draw {
        self.draw
    }

    fn d_an(&self) -> f64 {
        self.d_an
    }
}

/// The part of several blocks, of rows with `dim` columns: of the same anchors, with the same options, and of
/// blocks that have no rows in common.
pub fn merge(parts: &[Triplets], options: &Options, dim: usize, interrupt: &Interrupt) -> Result<Triplets> {
    options.check()?;
    let Some(first) = parts.first() else { return Ok(Triplets::default()) };
    let mut rows = Vec::new();
    let mut stats = Stats::default();
    for part in parts {
        let of = part.stats;
        if (of.pairs, of.pairs_over_max_ap) != (first.stats.pairs, first.stats.pairs_over_max_ap) {
            return Err(Error::Value(format!(
                "parts of {} and {} pairs are not of the same anchors with the same options",
                first.stats.pairs, of.pairs
            )));
        }
        stats.add(of);
        memory::append(&mut rows, &mut rows_of(part)?, TRIPLETS)?;
    }
    (stats.pairs, stats.pairs_over_max_ap) = (first.stats.pairs, first.stats.pairs_over_max_ap);
    rows.par_sort_unstable_by_key(Row::key);
    if let Some([row, ..]) = rows.windows(2).find(|rows| rows[0].key() == rows[1].key()) {
        return Err(Error::Value(format!(
            "the negative {} is in two of the parts: their blocks overlap",
            row.negative
        )));
    }
    let choice = Choice::new(options, dim)?;
    reduce(&rows, options, stats, interrupt, |mut qualified, farthest| {
        choice.keep(&mut qualified);
        if options.fallback && qualified.len() <= options.ranks.first {
            let there = qualified.iter().any(|kept| kept.id == farthest.id);
            qualified.extend((!there).then_some(farthest));
        }
        qualified
    })
}

/// What [`mine`](super::mine()) returns, from the part of all blocks; without the scatter of the candidates.
pub fn finish(part: &Triplets, options: &Options, dim: usize, interrupt: &Interrupt) -> Result<Triplets> {
    options.check()?;
    let choice = Choice::new(options, dim)?;
    let rows = rows_of(part)?;
    let mut triplets = reduce(&rows, options, part.stats, interrupt, |mut qualified, farthest| {
        choice.choose(&mut qualified);
        qualified.extend((options.fallback && qualified.is_empty()).then_some(farthest));
        qualified
    })?;
    triplets.limit(options)?;
    Ok(triplets)
}

/// A triplet of a part.
struct Row {
    anchor: i64,
    positive: i64,
    negative: i64,
    d_ap: f64,
    d_an: f64,
}

impl Row {
    fn key(&self) -> (i64, i64, i64) {
        (self.anchor, self.positive, self.negative)
    }
}

fn rows_of(part: &Triplets) -> Result<Vec<Row>> {
    let row = |i: usize| Row {
        anchor: part.anchor[i],
        positive: part.positive[i],
        negative: part.negative[i],
        d_ap: part.d_ap[i],
        d_an: part.d_an[i],
    };
    memory::collect((0..part.anchor.len()).map(row), TRIPLETS)
}

/// Puts in the place of each pair's negatives what a choice makes of those that qualify and of the farthest of
/// all.
fn reduce(
    rows: &[Row],
    options: &Options,
    stats: Stats,
    interrupt: &Interrupt,
    choose: impl Fn(Vec<Kept>, Kept) -> Vec<Kept>,
) -> Result<Triplets> {
    let mut to = Triplets { stats, ..Triplets::default() };
    let mut with_negative = 0;
    for pair in rows.chunk_by(|x, y| (x.anchor, x.positive) == (y.anchor, y.positive)) {
        interrupt.check()?;
        let Row { anchor, positive, d_ap, .. } = pair[0];
        let key = Key::new(row_hash(options.seed, anchor), row_hash(options.seed, positive));
        let kept = |row: &Row| Kept {
            id: row.negative,
            d_an: row.d_an,
            draw: key.draw(row_hash(options.seed, row.negative)),
        };
        let farthest = pair.iter().max_by(|x, y| x.d_an.total_cmp(&y.d_an).then(y.negative.cmp(&x.negative)));
        let farthest = kept(farthest.unwrap_or(&pair[0]));
        let (above, below) = options.band.interval(d_ap);
        let qualified = pair.iter().filter(|row| above < row.d_an && row.d_an < below).map(kept);
        let mut chosen = choose(memory::collect(qualified, TRIPLETS)?, farthest);
        chosen.sort_unstable_by_key(|kept| kept.id);
        with_negative += u64::from(!chosen.is_empty());
        for kept in chosen {
            to.push(anchor, positive, kept.id, d_ap, kept.d_an)?;
        }
    }
    // Parts from between blocks do not know how many pairs there are.
    to.stats.pairs_without_negative = stats.pairs.saturating_sub(with_negative);
    Ok(to)
}

impl Triplets {
    fn push(&mut self, anchor: i64, positive: i64, negative: i64, d_ap: f64, d_an: f64) -> Result<()> {
        memory::push(&mut self.anchor, anchor, COLUMNS)?;
        memory::push(&mut self.positive, positive, COLUMNS)?;
        memory::push(&mut self.negative, negative, COLUMNS)?;
        memory::push(&mut self.d_ap, d_ap, COLUMNS)?;
        memory::push(&mut self.d_an, d_an, COLUMNS)
    }

    /// Keeps as many triplets of an anchor as are asked for: those with the smallest lots.
    pub(super) fn limit(&mut self, options: &Options) -> Result<()> {
        let Some(most) = options.triplets_per_anchor else { return Ok(()) };
        let lot = |i: usize| {
            let [anchor, positive, negative] =
                [self.anchor[i], self.positive[i], self.negative[i]].map(|id| row_hash(options.seed, id));
            Key::new(anchor, positive).draw(negative).lot()
        };
        let mut kept = memory::zeroed::<u8>(self.anchor.len(), TRIPLETS)?;
        let mut lots: Vec<(u64, usize)> = Vec::new();
        let mut first = 0;
        for of_anchor in self.anchor.chunk_by(|x, y| x == y) {
            let all = first..first + of_anchor.len();
            first = all.end;
            lots.clear();
            memory::reserve(&mut lots, all.len(), TRIPLETS)?;
            lots.extend(all.map(|i| (lot(i), i)));
            lots.sort_unstable();
            lots.iter().take(most).for_each(|&(_, i)| kept[i] = 1);
        }
        retain(&mut self.anchor, &kept);
        retain(&mut self.positive, &kept);
        retain(&mut self.negative, &kept);
        retain(&mut self.d_ap, &kept);
        retain(&mut self.d_an, &kept);
        Ok(())
    }
}

fn retain<T>(column: &mut Vec<T>, kept: &[u8]) {
    let mut kept = kept.iter();
    column.retain(|_| kept.next() == Some(&1));
}
