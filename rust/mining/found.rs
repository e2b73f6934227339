//! The triplets found so far, as they are gathered from all threads.

use rayon::prelude::*;

use super::farthest::{Farthest, farthest};
use super::pairs::Pair;
use super::picked::Negative;
use super::points::{Place, Sets};
use super::search::{OpenAnchor, OpenPair, Part, Search};
use super::shortage::{COLUMNS, FOUND, PAIRS, RETURNED, TRIPLETS};
use super::{Ranks, Stats, Triplets};
use crate::{Interrupt, Result, memory};

/// A triplet: ranks of anchor and positive among the rows that they come from, and the id of the negative.
struct Triplet {
    anchor: u32,
    positive: u32,
    negative: i64,
    d_ap: f64,
    d_an: f64,
}

impl Triplet {
    fn key(&self) -> (u32, u32, i64) {
        (self.anchor, self.positive, self.negative)
    }
}

const _: () = assert!(size_of::<Triplet>() as u64 == FOUND);

/// A pair for which no negative is chosen.
pub struct Without {
    pub anchor: Place,
    /// Rank of the positive.
    pub positive: u32,
    pub d_ap: f64,
}

/// What a part of the work found. Parts are joined in any order.
#[derive(Default)]
pub struct Found {
    triplets: Vec<Triplet>,
    /// What is left for the next step.
    pub open: Vec<OpenAnchor>,
    /// What is left for the next stage.
    pub beyond: Vec<OpenAnchor>,
    /// What is left for the fallback.
    pub without: Vec<Without>,
    pub stats: Stats,
}

impl Found {
    /// Joins two parts.
    pub fn join(mut self, mut other: Self) -> Result<Self> {
        memory::append(&mut self.triplets, &mut other.triplets, TRIPLETS)?;
        memory::append(&mut self.open, &mut other.open, PAIRS)?;
        memory::append(&mut self.beyond, &mut other.beyond, PAIRS)?;
        memory::append(&mut self.without, &mut other.without, PAIRS)?;
        self.stats.add(other.stats);
        Ok(self)
    }

    /// How many triplets it has.
    pub fn triplets(&self) -> usize {
        self.triplets.len()
    }

    /// Adds the triplets of a pair for which its stage has nothing else to find.
    pub fn settle(&mut self, anchor: Place, open: &mut OpenPair, search: &Search<'_>) -> Result<()> {
        let (pair, ranks) = (open.pair, search.options.ranks);
        let kept = open.picked.negatives();
        let chosen = match search.part {
            Part::First { then } => {
                if search.in_part {
                    self.add(anchor, &pair, kept, search)?;
                }
                if let Some(last) = open.picked.last() {
                    return self.go_on(anchor, search.open_behind(pair, last, then));
                }
                0
            }
            Part::Only if search.in_part => {
                self.add(anchor, &pair, kept, search)?;
                kept.len().saturating_sub(ranks.first)
            }
            Part::Only if ranks != Ranks::ALL => {
                let mut kept = memory::collect(kept.iter().copied(), TRIPLETS)?;
                search.choice.choose(&mut kept);
                self.add(anchor, &pair, &kept, search)?;
                kept.len()
            }
            Part::Only | Part::Second => {
                self.add(anchor, &pair, kept, search)?;
                kept.len()
            }
        };
        self.stats.pairs_without_negative += u64::from(chosen == 0);
        if chosen == 0 && search.options.fallback {
            let Pair { positive, d_ap, .. } = pair;
            memory::push(&mut self.without, Without { anchor, positive, d_ap }, PAIRS)?;
        }
        Ok(())
    }

    fn add(&mut self, anchor: Place, pair: &Pair, negatives: &[Negative], search: &Search<'_>) -> Result<()> {
        let candidates = search.sets.candidates();
        let mut fewer;
        let negatives = match search.options.triplets_per_anchor {
            // What is not among the first of its pair is not among the first of its anchor.
            Some(most) if most < negatives.len() && !search.in_part => {
                fewer = memory::collect(negatives.iter().copied(), TRIPLETS)?;
                let lot =
                    |negative: &Negative| pair.key.draw(candidates.hashes[negative.place as usize]).lot();
                fewer.select_nth_unstable_by_key(most, lot);
                &fewer[..most]
            }
            _ => negatives,
        };
        // The work is in vain if the arrays of the triplets will not fit.
        let returned = RETURNED * search.progress.triplets();
        memory::reserve_ahead(&mut self.triplets, negatives.len(), returned, TRIPLETS)?;
        self.triplets.extend(negatives.iter().map(|negative| Triplet {
            anchor: search.sets.anchors.ranks[anchor as usize],
            positive: pair.positive,
            negative: candidates.ids[negative.place as usize],
            d_ap: pair.d_ap,
            d_an: negative.d_an,
        }));
        Ok(())
    }

    /// Leaves a pair to the next stage.
    fn go_on(&mut self, anchor: Place, pair: OpenPair) -> Result<()> {
        if self.beyond.last().is_none_or(|last| last.anchor != anchor) {
            memory::push(&mut self.beyond, OpenAnchor { anchor, pairs: Vec::new() }, PAIRS)?;
        }
        let last = self.beyond.last_mut().expect("it was pushed");
        memory::push(&mut last.pairs, pair, PAIRS)
    }

    /// Takes what is left for the next stage, each anchor once.
    pub fn take_beyond(&mut self) -> Result<Vec<OpenAnchor>> {
        let mut beyond = std::mem::take(&mut self.beyond);
        beyond.par_sort_unstable_by_key(|open| open.anchor);
        let mut joined: Vec<OpenAnchor> = Vec::new();
        for mut open in beyond {
            match joined.last_mut().filter(|last| last.anchor == open.anchor) {
                Some(last) => memory::append(&mut last.pairs, &mut open.pairs, PAIRS)?,
                None => memory::push(&mut joined, open, PAIRS)?,
            }
        }
        Ok(joined)
    }

    /// Gives their farthest negatives to pairs without one.
    pub fn fall_back(&mut self, search: &Search<'_>, interrupt: &Interrupt) -> Result<()> {
        let without = std::mem::take(&mut self.without);
        let mut anchors = memory::collect(without.iter().map(|without| without.anchor), PAIRS)?;
        anchors.sort_unstable();
        anchors.dedup();
        let (farthest, stats) = farthest(search, &anchors, interrupt)?;
        self.stats.add(stats);
        memory::reserve_ahead(&mut self.triplets, without.len(), 0, TRIPLETS)?;
        for Without { anchor, positive, d_ap } in without {
            // There is none among candidates of one identity.
            let Ok(at) = farthest.binary_search_by_key(&anchor, |farthest| farthest.anchor) else { continue };
            let Farthest { negative, d_an, .. } = farthest[at];
            let anchor = search.sets.anchors.ranks[anchor as usize];
            self.triplets.push(Triplet { anchor, positive, negative, d_ap, d_an });
            self.stats.pairs_without_negative -= 1;
        }
        Ok(())
    }

    /// The triplets with the caller's ids, in their order. Sorts them on the current rayon pool.
    pub fn with_ids(mut self, sets: &Sets) -> Result<Triplets> {
        self.triplets.par_sort_unstable_by_key(Triplet::key);
        // Of a part, the farthest negative may be one of those that are kept.
        self.triplets.dedup_by_key(|triplet| triplet.key());
        let (anchors, positives) = (sets.anchors.ids_by_rank()?, sets.positives().ids_by_rank()?);
        let triplets = &self.triplets;
        memory::ask(RETURNED * triplets.len() as u64, COLUMNS)?;
        Ok(Triplets {
            anchor: memory::collect(triplets.iter().map(|t| anchors[t.anchor as usize]), COLUMNS)?,
            positive: memory::collect(triplets.iter().map(|t| positives[t.positive as usize]), COLUMNS)?,
            negative: memory::collect(triplets.iter().map(|t| t.negative), COLUMNS)?,
            d_ap: memory::collect(triplets.iter().map(|t| t.d_ap), COLUMNS)?,
            d_an: memory::collect(triplets.iter().map(|t| t.d_an), COLUMNS)?,
            stats: self.stats,
            scatter: None,
        })
    }
}
