//! The two steps from rows to triplets.

use std::ops::Range;

use rayon::prelude::*;

use super::pairs::pairs_of;
use super::points::{Place, Sets};
use super::screen::{self, Estimates, Precision, Screen};
use super::search::{Open, OpenPair, Scratch, Search};
use super::{Input, Options, Pairs, Pick, Stats, Triplets};
use crate::{Interrupt, Isa, Result};

/// Pairs that go through both steps together, or one identity's more: 25 MB are kept between the two, and
/// what was picked so far.
const ROUND: usize = 1 << 18;

/// Anchors in one unit of work of the first step, unless there are few of many pairs each.
const UNIT: usize = 16;

/// Fewer anchors than this are each a unit of their own: one identity of 20,000 keeps all cores busy.
const MANY: usize = 64 * UNIT;

/// Where no pair of so many anchors in a row could be settled, few rows qualify, and the other anchors of
/// the unit go straight to the second step.
const VAIN: usize = 2;

/// Fewest anchors in one unit of work of the second step: the rows of the largest register tile.
const LEAST_BLOCK: usize = 12;

/// Mines on the current rayon pool. Triplets come in ascending order of their ids.
pub fn mine(input: &Input<'_>, options: &Options, interrupt: &Interrupt) -> Result<Triplets> {
    input.check()?;
    options.check()?;
    let isa = Isa::choose()?;
    let sets = Sets::new(input, options, isa, interrupt)?;
    let screen = Screen::new(&sets, precision(options.pick), isa, interrupt)?;
    let search = Search::new(&sets, &screen, options, isa);
    let mut found = Found::default();
    for anchors in rounds(&sets, options.pairs) {
        let mut round = probe(&search, anchors, interrupt)?;
        let open = std::mem::take(&mut round.open);
        found = found.and(round).and(sweep(&search, open, interrupt)?);
    }
    found.triplets.par_sort_unstable_by_key(|t| (t.anchor, t.positive, t.negative));
    interrupt.check()?;
    Ok(found.with_ids(&sets))
}

/// Of the rows that may qualify, a random pick looks at the few that draw lowest, the others at all.
pub fn precision(pick: Pick) -> Precision {
    match pick {
        Pick::Random => Precision::Coarse,
        Pick::Hardest | Pick::All => Precision::Fine,
    }
}

/// Anchors in rounds of about [`ROUND`] pairs.
fn rounds(sets: &Sets, pairs: Pairs) -> Vec<Range<Place>> {
    let all = sets.anchors.len() as Place;
    let mut rounds = Vec::new();
    let (mut first, mut kept) = (0, 0);
    for place in 0..all {
        kept += match pairs {
            Pairs::Hardest | Pairs::Easiest => 1,
            Pairs::Unordered | Pairs::Ordered => sets.identity_run(place).len(),
        };
        if kept > ROUND || place + 1 == all {
            rounds.push(first..place + 1);
            (first, kept) = (place + 1, 0);
        }
    }
    rounds
}

/// First step: finds the pairs of the anchors and settles what a few tests can settle.
fn probe(search: &Search<'_>, anchors: Range<Place>, interrupt: &Interrupt) -> Result<Found> {
    let anchors: Vec<Place> = anchors.collect();
    anchors
        .par_chunks(if anchors.len() < MANY { 1 } else { UNIT })
        .map_init(Scratch::default, |scratch, unit| {
            let mut found = Found::default();
            let mut vain = 0;
            for &anchor in unit {
                interrupt.check()?;
                let pairs = pairs_of(anchor, search.sets, search.options, search.isa, &mut found.stats);
                let mut open: Vec<OpenPair> = pairs.into_iter().map(|pair| search.open(pair)).collect();
                for pair in open.extract_if(.., |pair| pair.is_hopeless()) {
                    found.settle(anchor, &pair, search.sets);
                }
                let mut settled = 0;
                if vain < VAIN || !search.screen.is_one_stretch() {
                    settled = search.probe(anchor, &mut open, scratch, &mut found.stats);
                    vain = if settled > 0 { 0 } else { vain + usize::from(!open.is_empty()) };
                }
                for pair in open.drain(..settled) {
                    found.settle(anchor, &pair, search.sets);
                }
                if !open.is_empty() {
                    found.stats.pairs_screened += open.len() as u64;
                    found.open.push(Open { anchor, pairs: open });
                }
            }
            Ok(found)
        })
        .try_reduce(Found::default, |a, b| Ok(a.and(b)))
}

/// Second step: settles the rest with the screen.
fn sweep(search: &Search<'_>, mut open: Vec<Open>, interrupt: &Interrupt) -> Result<Found> {
    let share = open.len().div_ceil(rayon::current_num_threads());
    open.par_chunks_mut(share.clamp(LEAST_BLOCK, screen::BLOCK))
        .map_init(Default::default, |(scratch, estimates): &mut (Scratch, Estimates), open| {
            let mut found = Found::default();
            let anchors: Vec<Place> = open.iter().map(|open| open.anchor).collect();
            let mut block = search.screen.block(&anchors, estimates);
            for stretch in search.screen.stretches() {
                block.measure(stretch, interrupt)?;
                search.sweep(open, &block, scratch, interrupt, &mut found.stats)?;
            }
            for open in open {
                for pair in &open.pairs {
                    found.settle(open.anchor, pair, search.sets);
                }
            }
            Ok(found)
        })
        .try_reduce(Found::default, |a, b| Ok(a.and(b)))
}

/// A triplet of ranks: positions among all ids in ascending order.
struct Triplet {
    anchor: u32,
    positive: u32,
    negative: u32,
    d_ap: f64,
    d_an: f64,
}

#[derive(Default)]
struct Found {
    triplets: Vec<Triplet>,
    open: Vec<Open>,
    stats: Stats,
}

impl Found {
    fn and(mut self, mut other: Self) -> Self {
        self.triplets.append(&mut other.triplets);
        self.open.append(&mut other.open);
        self.stats.add(other.stats);
        self
    }

    fn settle(&mut self, anchor: Place, open: &OpenPair, sets: &Sets) {
        let rank = |place: Place| sets.candidates().ranks[place as usize];
        if open.picked.negatives().is_empty() {
            self.stats.pairs_without_negative += 1;
        }
        self.triplets.extend(open.picked.negatives().iter().map(|negative| Triplet {
            anchor: sets.anchors.ranks[anchor as usize],
            positive: rank(open.pair.positive),
            negative: rank(negative.place),
            d_ap: open.pair.d_ap,
            d_an: negative.d_an,
        }));
    }

    fn with_ids(self, sets: &Sets) -> Triplets {
        let (anchors, candidates) = (sets.anchors.ids_by_rank(), sets.candidates().ids_by_rank());
        let triplets = &self.triplets;
        Triplets {
            anchor: triplets.iter().map(|t| anchors[t.anchor as usize]).collect(),
            positive: triplets.iter().map(|t| candidates[t.positive as usize]).collect(),
            negative: triplets.iter().map(|t| candidates[t.negative as usize]).collect(),
            d_ap: triplets.iter().map(|t| t.d_ap).collect(),
            d_an: triplets.iter().map(|t| t.d_an).collect(),
            stats: self.stats,
        }
    }
}
