//! Exact triplet mining.
//!
//! A triplet is an anchor, a positive (another row with the anchor's label) and a negative (a row with
//! another label). The miner lists pairs of anchor and positive ([`Pairs`]), finds the negatives that qualify
//! for each ([`Band`]), and picks some of these ([`Pick`]). Positives and negatives come from the same set as
//! the anchors, or from a second set, the references.
//!
//! [`exact`] defines the distance: squared L2 in float64. Distances are compared and returned on the scale of
//! the [`Metric`].
//!
//! What is too much for one call is mined in blocks: [`collect`] finds what may be picked from one block of the
//! negatives, and [`merge()`] makes of several such parts the part of them all. [`finish`] makes of the part of
//! all blocks what [`mine()`] returns. They agree on [`picked`], which says what is kept of the negatives of a pair.
//!
//! # Words
//!
//! *The data.* A *row* is an index into the caller's arrays. Inside, rows are sorted by label and id, so that
//! an identity is a range ([`points`]): a *place* is an index into that order. A *rank* is an index among all
//! ids in ascending order. The *candidates* are the rows that negatives come from.
//!
//! *The draw* ([`hash`]). A row has a *hash*. For one anchor it has a *spread*, 16 bits. A pair has a *key*,
//! which maps each spread to a *draw*. A random pick is the qualifying negative with the smallest draw. Pairs and
//! triplets have *lots*: where an anchor may have only so many, those with the smallest are used.
//!
//! *The work.* A search has one *stage*, or two where a random pick leaves out the nearest: the first finds these, and
//! the second looks behind them ([`picked`]). A *round* is the anchors of about 1,048,576 pairs ([`mine`](mod@mine)). Its first step
//! ([`probe`]) takes them in *units* of 16, draws for each pair, and *tests* the few candidates with the
//! smallest draws: evaluates their exact distances, for several pairs side by side ([`hits`]). A pair is *settled* when its picks can no longer change,
//! else it is *open*. The second step ([`sweep`]) takes the anchors with open pairs in *blocks* of 24,
//! estimates their distances to all candidates by the [`screen`], and tests only those that may qualify. Where
//! that pays, a [`sieve`] between both takes most anchors at half the price.
//!
//! *The screen.* A pair looks for distances in its *window*, the interval that its band and metric give.
//! Candidates are coded (a *step* and whole numbers, the *codes*) and packed in *panels* of 32; a *lane* is
//! the 4 bytes of codes that one instruction multiplies. A block of anchors times a panel gives *estimates*,
//! and these are kept for a *stretch* of 320 panels. *Bounds* are what an estimate proves about a distance;
//! *edges* are a window in the form that is compared with estimates.
//!
//! # Files
//!
//! Read them in this order: [`options`] and [`band`], [`points`] and [`pairs`], [`hash`], [`exact`] and [`weight`]
//! (these three are the definition), [`search`], [`picked`] and [`hits`] (what both steps share), [`probe`] with [`scan`],
//! [`sweep`] with [`screen`], [`nearest`] and [`weighted`] with [`narrow`], [`sieve`], [`farthest`], [`found`], and
//! [`mine`](mod@mine), which joins them. [`partial`] merges what was found in blocks. [`scatter`] tells whether the
//! rows are all but equal.
#![doc = include_str!("example.md")]

use crate::{Error, Result};

mod band;
#[cfg(test)]
mod definition;
mod exact;
#[cfg(test)]
mod example;
mod farthest;
mod found;
mod hash;
mod hits;
#[cfg(feature = "kernels")]
pub mod kernels;
mod mine;
mod narrow;
mod nearest;
mod options;
mod pairs;
mod partial;
mod picked;
mod points;
mod probe;
mod scan;
mod scatter;
mod screen;
mod search;
mod shortage;
mod sieve;
mod sweep;
mod weight;
mod weighted;

pub use band::{Band, Limit, MOST_LIMITS, Side};
pub use mine::{collect, mine};
pub use options::{Metric, Options, Pairs, Pick, Ranks};
pub use partial::{finish, merge};

/// What to mine.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// D, at least 1.
    pub dim: usize,
    /// Where anchors come from, and without references positives and negatives, too.
    pub anchors: Rows<'a>,
    /// Which of these are anchors, by row; without it all are. The others are positives and negatives only.
    pub only: Option<&'a [bool]>,
    /// Where positives and negatives come from. Both sets have ids, or neither. A reference with the id of an
    /// anchor is that anchor, and has its label.
    pub references: Option<Rows<'a>>,
    /// Where negatives come from, if not from all rows that positives come from.
    pub block: Option<Rows<'a>>,
    /// Parts the identities in two, those with smaller labels and the others. The negatives of a row are then those of
    /// the other part.
    pub between: Option<i64>,
}

/// One set of rows.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// `(N, dim)` finite numbers, row after row.
    pub embeddings: &'a [f32],
    /// N identities.
    pub labels: &'a [i64],
    /// N unique numbers. With them, the picks and the order of the triplets depend on ids, otherwise on the
    /// positions of the rows.
    pub ids: Option<&'a [i64]>,
}

/// Triplets in ascending order of (anchor id, positive id, negative id), and counts of the work.
#[derive(Debug, Default, Clone)]
pub struct Triplets {
    /// Ids of the anchors, or their rows if no ids were given.
    pub anchor: Vec<i64>,
    /// Ids of the positives.
    pub positive: Vec<i64>,
    /// Ids of the negatives.
    pub negative: Vec<i64>,
    /// Distances of anchor and positive.
    pub d_ap: Vec<f64>,
    /// Distances of anchor and negative.
    pub d_an: Vec<f64>,
    /// Counts.
    pub stats: Stats,
    /// How far apart candidates of different identities are: the median squared distance of two, divided by
    /// the mean of their squared norms. None if all are of one identity.
    pub scatter: Option<f64>,
}

/// Counts of what [`mine`] did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stats {
    /// Pairs for which negatives were looked for.
    pub pairs: u64,
    /// Pairs skipped because of [`Options::max_ap`].
    pub pairs_over_max_ap: u64,
    /// Pairs for which no negative qualified.
    pub pairs_without_negative: u64,
    /// Pairs that the tests of the few rows with the smallest draws did not settle.
    pub pairs_screened: u64,
    /// Float64 distances evaluated for negatives.
    pub exact_distances: u64,
}

impl Stats {
    fn add(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.pairs_over_max_ap += other.pairs_over_max_ap;
        self.pairs_without_negative += other.pairs_without_negative;
        self.pairs_screened += other.pairs_screened;
        self.exact_distances += other.exact_distances;
    }
}

/// The screen's bound is proven up to this number of columns.
const MOST_DIMENSIONS: usize = 1 << 20;

impl<'a> Input<'a> {
    /// All of these are anchors, and negatives come from where positives come from.
    pub const fn new(dim: usize, anchors: Rows<'a>, references: Option<Rows<'a>>) -> Self {
        Self { dim, anchors, only: None, references, block: None, between: None }
    }

    fn check(&self) -> Result<()> {
        if self.dim == 0 {
            return Err(Error::Value("embeddings have no columns".into()));
        }
        if self.dim > MOST_DIMENSIONS {
            return Err(Error::Value(format!(
                "embeddings have {} columns; at most {MOST_DIMENSIONS} are possible",
                self.dim
            )));
        }
        self.anchors.check("embeddings", self.dim)?;
        if let Some(only) = self.only.filter(|only| only.len() != self.anchors.labels.len()) {
            let rows = self.anchors.labels.len();
            return Err(Error::Value(format!("{} rows are called anchors or not, of {rows}", only.len())));
        }
        for (name, rows) in [("references", self.references), ("rows of a block", self.block)] {
            let Some(rows) = rows else { continue };
            rows.check(name, self.dim)?;
            if self.anchors.ids.is_some() != rows.ids.is_some() {
                return Err(Error::Value("ids are needed for all sets, or for none".into()));
            }
        }
        Ok(())
    }
}

impl Rows<'_> {
    fn check(&self, name: &str, dim: usize) -> Result<()> {
        let n = self.labels.len();
        if self.embeddings.len() != n * dim {
            return Err(Error::Value(format!(
                "{} numbers are not {n} {name} of {dim} columns",
                self.embeddings.len(),
            )));
        }
        if let Some(ids) = self.ids.filter(|ids| ids.len() != n) {
            return Err(Error::Value(format!("{} ids for {n} {name}", ids.len())));
        }
        if n > i32::MAX as usize {
            return Err(Error::Value(format!("{n} {name} in one call; at most {} are possible", i32::MAX)));
        }
        Ok(())
    }
}
