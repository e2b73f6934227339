//! Exact triplet mining.
//!
//! A triplet is an anchor, a positive (another row with the anchor's label) and a negative (a row
//! with another label). `d_ap` and `d_an` are *squared* L2 distances, defined in float64 by
//! [`exact`]. Which negatives qualify for a pair says the [`Band`], which of those are returned the
//! [`Pick`].
//!
//! Positives and negatives come from the same set as the anchors, or from a second one, the
//! references. Distances are compared and returned on the scale of the [`Metric`].
//!
//! [`mine`] goes through the anchors in two steps: [`probe`] settles most random picks without
//! looking at most rows; what is left goes through the [`screen`], a matrix product that is never
//! stored, with a proven bound. Whatever either finds is decided by [`exact`].

use crate::{Error, Result};

mod exact;
mod found;
mod hash;
#[cfg(feature = "kernels")]
pub mod kernels;
mod mine;
mod pairs;
mod picked;
mod points;
mod probe;
mod scan;
mod screen;
mod search;
mod sweep;

pub use mine::mine;

/// What to mine.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// D, at least 1.
    pub dim: usize,
    /// Where anchors come from; positives and negatives, too, unless there are references.
    pub anchors: Rows<'a>,
    /// Where positives and negatives come from. Both sets have ids, or neither; a reference with an
    /// anchor's id is that anchor, and has its label.
    pub references: Option<Rows<'a>>,
}

/// One set of rows.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// `(N, dim)`, row after row; finite.
    pub embeddings: &'a [f32],
    /// N identities.
    pub labels: &'a [i64],
    /// N unique numbers that the picks and the order of the triplets depend on, instead of on the
    /// position of the rows.
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
    /// Those with the smallest keyed hash: a uniform choice without replacement.
    Random,
    /// Those nearest to the anchor; the keyed hash decides ties.
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
    /// For each anchor its farthest positive; the smallest id decides ties.
    Hardest,
    /// For each anchor its nearest positive; the smallest id decides ties.
    Easiest,
}

/// The scale on which distances are compared and returned: a function of the squared L2 distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Squared L2 itself.
    SquaredEuclidean,
    /// Its square root, rounded once.
    Euclidean,
    /// Half of it, which is exact: of unit rows, one minus the cosine.
    Cosine,
}

/// How to mine.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Which negatives qualify.
    pub band: Band,
    /// Which of these are returned.
    pub pick: Pick,
    /// How many at most ([`Pick::Random`] and [`Pick::Hardest`]).
    pub negatives_per_pair: usize,
    /// Which pairs are used.
    pub pairs: Pairs,
    /// Scale of the distances, and of the margin and `max_ap`.
    pub metric: Metric,
    /// Not negative, may be infinite.
    pub margin: f64,
    /// Pairs with a larger `d_ap` are skipped.
    pub max_ap: Option<f64>,
    /// Divide the rows by their L2 norm first.
    pub normalize: bool,
    /// Of the keyed hash.
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

/// Triplets in ascending order of (anchor id, positive id, negative id), and what it took.
#[derive(Debug, Default)]
pub struct Triplets {
    /// Ids of the anchors, or rows where no ids were given.
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
}

/// Counts of what [`mine`] did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stats {
    /// Pairs that negatives were looked for.
    pub pairs: u64,
    /// Pairs skipped because of [`Options::max_ap`].
    pub pairs_over_max_ap: u64,
    /// Pairs that no negative qualified for.
    pub pairs_without_negative: u64,
    /// Pairs that were not settled by testing the few rows that draw lowest.
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

/// The screen's bound is proven up to here.
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
