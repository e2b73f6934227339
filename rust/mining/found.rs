//! The triplets found so far, as they are gathered from all threads.

use super::points::{Place, Sets};
use super::search::{OpenAnchor, OpenPair, Search};
use super::shortage::{COLUMNS, FOUND, PAIRS, RETURNED, TRIPLETS};
use super::{Stats, Triplets};
use crate::{Result, memory};

/// A triplet of ranks: indices among all ids in ascending order.
struct Triplet {
    anchor: u32,
    positive: u32,
    negative: u32,
    d_ap: f64,
    d_an: f64,
}

const _: () = assert!(size_of::<Triplet>() as u64 == FOUND);

/// What a part of the work found. Parts are joined in any order.
#[derive(Default)]
pub struct Found {
    triplets: Vec<Triplet>,
    /// What is left for the second step.
    pub open: Vec<OpenAnchor>,
    pub stats: Stats,
}

impl Found {
    /// Joins two parts.
    pub fn join(mut self, mut other: Self) -> Result<Self> {
        memory::append(&mut self.triplets, &mut other.triplets, TRIPLETS)?;
        memory::append(&mut self.open, &mut other.open, PAIRS)?;
        self.stats.add(other.stats);
        Ok(self)
    }

    /// How many triplets it has.
    pub fn triplets(&self) -> usize {
        self.triplets.len()
    }

    /// Adds the triplets of a pair for which nothing else is to be found.
    pub fn settle(&mut self, anchor: Place, open: &OpenPair, search: &Search<'_>) -> Result<()> {
        let rank = |place: Place| search.sets.candidates().ranks[place as usize];
        let negatives = open.picked.negatives();
        self.stats.pairs_without_negative += u64::from(negatives.is_empty());
        // The work is in vain if the arrays of the triplets will not fit.
        let returned = RETURNED * search.progress.triplets();
        memory::reserve_ahead(&mut self.triplets, negatives.len(), returned, TRIPLETS)?;
        self.triplets.extend(negatives.iter().map(|negative| Triplet {
            anchor: search.sets.anchors.ranks[anchor as usize],
            positive: rank(open.pair.positive),
            negative: rank(negative.place),
            d_ap: open.pair.d_ap,
            d_an: negative.d_an,
        }));
        Ok(())
    }

    /// Sorts the triplets by their ids, on the current rayon pool.
    pub fn sort(&mut self) {
        use rayon::prelude::*;
        self.triplets.par_sort_unstable_by_key(|t| (t.anchor, t.positive, t.negative));
    }

    /// The triplets with the caller's ids.
    pub fn with_ids(self, sets: &Sets, scatter: Option<f64>) -> Result<Triplets> {
        let (anchors, candidates) = (sets.anchors.ids_by_rank()?, sets.candidates().ids_by_rank()?);
        let triplets = &self.triplets;
        memory::ask(RETURNED * triplets.len() as u64, COLUMNS)?;
        Ok(Triplets {
            anchor: memory::collect(triplets.iter().map(|t| anchors[t.anchor as usize]), COLUMNS)?,
            positive: memory::collect(triplets.iter().map(|t| candidates[t.positive as usize]), COLUMNS)?,
            negative: memory::collect(triplets.iter().map(|t| candidates[t.negative as usize]), COLUMNS)?,
            d_ap: memory::collect(triplets.iter().map(|t| t.d_ap), COLUMNS)?,
            d_an: memory::collect(triplets.iter().map(|t| t.d_an), COLUMNS)?,
            stats: self.stats,
            scatter,
        })
    }
}
