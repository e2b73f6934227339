//! The triplets found so far, as they are gathered from all threads.

use super::points::{Place, Sets};
use super::search::{OpenAnchor, OpenPair};
use super::{Stats, Triplets};

/// A triplet of ranks: indices among all ids in ascending order.
struct Triplet {
    anchor: u32,
    positive: u32,
    negative: u32,
    d_ap: f64,
    d_an: f64,
}

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
    pub fn join(mut self, mut other: Self) -> Self {
        self.triplets.append(&mut other.triplets);
        self.open.append(&mut other.open);
        self.stats.add(other.stats);
        self
    }

    /// Adds the triplets of a pair for which nothing else is to be found.
    pub fn settle(&mut self, anchor: Place, open: &OpenPair, sets: &Sets) {
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

    /// Sorts the triplets by their ids, on the current rayon pool.
    pub fn sort(&mut self) {
        use rayon::prelude::*;
        self.triplets.par_sort_unstable_by_key(|t| (t.anchor, t.positive, t.negative));
    }

    /// The triplets with the caller's ids.
    pub fn with_ids(self, sets: &Sets, scatter: Option<f64>) -> Triplets {
        let (anchors, candidates) = (sets.anchors.ids_by_rank(), sets.candidates().ids_by_rank());
        let triplets = &self.triplets;
        Triplets {
            anchor: triplets.iter().map(|t| anchors[t.anchor as usize]).collect(),
            positive: triplets.iter().map(|t| candidates[t.positive as usize]).collect(),
            negative: triplets.iter().map(|t| candidates[t.negative as usize]).collect(),
            d_ap: triplets.iter().map(|t| t.d_ap).collect(),
            d_an: triplets.iter().map(|t| t.d_an).collect(),
            stats: self.stats,
            scatter,
        }
    }
}
