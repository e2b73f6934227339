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
//! # Words
//!
//! *The data.* A *row* is an index into the caller's arrays. Inside, rows are sorted by label and id, so that
//! an identity is a range ([`points`]): a *place* is an index into that order. A *rank* is an index among all
//! ids in ascending order; triplets are sorted by ranks. The *candidates* are the rows that positives and
//! negatives come from.
//!
//! *The draw* ([`hash`]). A row has a *hash*. For one anchor it has a *spread*, 16 bits. A pair has a *key*,
//! which maps each spread to a *draw*. A random pick is the qualifying negative with the smallest draw.
//!
//! *The work.* A *round* is the anchors of about 1,048,576 pairs ([`mine`](mod@mine)). Its first step
//! ([`probe`]) takes them in *units* of 16, draws for each pair, and *tests* the few candidates with the
//! smallest draws: evaluates their exact distances. A pair is *settled* when its picks can no longer change,
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
//! Read them in this order: [`points`] and [`pairs`], [`hash`] and [`exact`] (these two are the definition),
//! [`search`] and [`picked`] (what both steps share), [`probe`] with [`scan`], [`sweep`] with [`screen`], [`nearest`],
//! [`sieve`], [`found`], and [`mine`](mod@mine), which joins them. [`scatter`] tells whether the rows are all but
//! equal.
#![doc = include_str!("example.md")]

use crate::{Error, Result};

mod exact;
#[cfg(test)]
mod example;
mod found;
mod hash;
#[cfg(feature = "kernels")]
pub mod kernels;
mod mine;
mod nearest;
mod pairs;
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

pub use mine::mine;

/// What to mine.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// D, at least 1.
    pub dim: usize,
    /// Where anchors come from, and without references positives and negatives, too.
    pub anchors: Rows<'a>,
    /// Where positives and negatives come from. Both sets have ids, or neither. A reference with the id of an
    /// anchor is that anchor, and has its label.
    pub references: Option<Rows<'a>>,
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

/// Which negatives qualify for a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Band {
    /// `d_ap < d_an < d_ap + margin`.
    Semihard,
    /// `d_an < d_ap + margin`.
    Violating,
    /// `d_an <= d_ap`.
    Hard,
    /// Every negative.
    Any,
}

/// Which of the qualifying negatives are returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Those with the smallest draws: a uniform choice without replacement.
    Random,
    /// Those nearest to the anchor; the draw decides ties.
    Hardest,
    /// All.
    All,
}

/// Which pairs of one identity are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// Each pair once: the anchor's row comes before the positive's.
    Unordered,
    /// Each pair both ways round.
    Ordered,
    /// Each anchor with its farthest positive, of equally far ones with the smallest id.
    Hardest,
    /// Each anchor with its nearest positive, of equally near ones with the smallest id.
    Easiest,
}

/// The scale on which distances are compared and returned: a function of the squared L2 distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Squared L2 itself.
    SquaredEuclidean,
    /// Its square root, rounded once.
    Euclidean,
    /// Half of squared L2, which is exact: for unit rows, one minus the cosine.
    Cosine,
}

/// How to mine.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Which negatives qualify.
    pub band: Band,
    /// Which of these are returned.
    pub pick: Pick,
    /// The most that are returned for a pair ([`Pick::Random`] and [`Pick::Hardest`]).
    pub negatives_per_pair: usize,
    /// Which pairs are used.
    pub pairs: Pairs,
    /// The scale of distances, margin and `max_ap`.
    pub metric: Metric,
    /// Margin of the band: not negative, may be infinite.
    pub margin: f64,
    /// Pairs with a larger `d_ap` are skipped.
    pub max_ap: Option<f64>,
    /// Divide the rows by their L2 norm first.
    pub normalize: bool,
    /// Seed of the draws.
    pub seed: u64,
}

impl Band {
    /// The open interval of distances that qualify.
    fn interval(self, d_ap: f64, margin: f64) -> (f64, f64) {
        match self {
            Self::Semihard => (d_ap, d_ap + margin),
            Self::Violating => (f64::NEG_INFINITY, d_ap + margin),
            Self::Hard => (f64::NEG_INFINITY, d_ap.next_up()),
            Self::Any => (f64::NEG_INFINITY, f64::INFINITY),
        }
    }
}

impl Metric {
    /// The distance on this scale.
    fn of_squared(self, squared: f64) -> f64 {
        match self {
            Self::SquaredEuclidean => squared,
            Self::Euclidean => squared.sqrt(),
            Self::Cosine => 0.5 * squared,
        }
    }

    /// The squared L2 distance, up to a rounding, of a distance on this scale. Infinities stay.
    fn squared(self, distance: f64) -> f64 {
        match self {
            Self::SquaredEuclidean => distance,
            Self::Euclidean => distance * distance.abs(),
            Self::Cosine => 2.0 * distance,
        }
    }
}

/// Triplets in ascending order of (anchor id, positive id, negative id), and counts of the work.
#[derive(Debug, Default)]
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

impl Options {
    fn check(&self) -> Result<()> {
        if self.negatives_per_pair == 0 {
            return Err(Error::Value("negatives_per_pair is 0: no negative would be picked".into()));
        }
        for (name, value) in [("margin", self.margin), ("max_ap", self.max_ap.unwrap_or(0.0))] {
            if value.is_nan() || value < 0.0 {
                return Err(Error::Value(format!("{name} is {value}, but must not be negative")));
            }
        }
        Ok(())
    }
}

impl Input<'_> {
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
        if let Some(references) = self.references {
            references.check("references", self.dim)?;
            if self.anchors.ids.is_some() != references.ids.is_some() {
                return Err(Error::Value("ids are needed for both sets, or for neither".into()));
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
