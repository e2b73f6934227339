//! How to mine.

use super::band::Band;
use crate::{Error, Result};

/// Which of the qualifying negatives are returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Those with the smallest draws: a uniform choice without replacement.
    Random,
    /// Those nearest to the anchor; the draw decides ties.
    Hardest,
    /// A choice without replacement, in which near ones are as likely as far ones: the probability of each is
    /// the inverse of the density of its distance ([`weight`](super::weight)).
    Distance,
    /// All.
    All,
}

/// The qualifying negatives that [`Pick`] chooses from, by their ranks among all of these: the nearest has rank
/// 0. The draw decides ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranks {
    /// As many of the nearest are left out.
    pub first: usize,
    /// Ranks from here on are left out.
    pub end: usize,
}

/// Which pairs of one identity are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// Each pair once: the anchor's row comes before the positive's.
    Unordered,
    /// Each pair both ways round.
    Ordered,
    /// Each anchor with its farthest positives, of equally far ones with those of the smallest ids.
    Hardest,
    /// Each anchor with its nearest positives, of equally near ones with those of the smallest ids.
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
    /// Which of these are chosen from.
    pub ranks: Ranks,
    /// Which of these are returned.
    pub pick: Pick,
    /// The most that are returned for a pair, unless all are.
    pub negatives_per_pair: usize,
    /// Whether a pair without a negative gets the farthest of all, of equally far ones the one with the smallest
    /// id.
    pub fallback: bool,
    /// Which pairs are used.
    pub pairs: Pairs,
    /// The most of an anchor: without a number, one for [`Pairs::Hardest`] and [`Pairs::Easiest`], else all. The
    /// lots of the pairs decide where distances do not.
    pub positives_per_anchor: Option<usize>,
    /// The most triplets of an anchor: those with the smallest lots.
    pub triplets_per_anchor: Option<usize>,
    /// The scale of distances, of the band and of `max_ap`.
    pub metric: Metric,
    /// Pairs with a larger `d_ap` are skipped.
    pub max_ap: Option<f64>,
    /// Divide the rows by their L2 norm first.
    pub normalize: bool,
    /// Seed of the draws.
    pub seed: u64,
}

impl Options {
    /// One random semi-hard negative for each pair, as FaceNet has it.
    pub const DEFAULT: Self = Self {
        band: Band::semihard(0.3),
        ranks: Ranks::ALL,
        pick: Pick::Random,
        negatives_per_pair: 1,
        fallback: false,
        pairs: Pairs::Unordered,
        positives_per_anchor: None,
        triplets_per_anchor: None,
        metric: Metric::SquaredEuclidean,
        max_ap: None,
        normalize: true,
        seed: 0,
    };
}

impl Ranks {
    /// Every qualifying negative.
    pub const ALL: Self = Self { first: 0, end: usize::MAX };
}

impl Pairs {
    /// The most pairs of an anchor.
    pub(super) fn most(self, per_anchor: Option<usize>) -> usize {
        per_anchor.unwrap_or(match self {
            Self::Unordered | Self::Ordered => usize::MAX,
            Self::Hardest | Self::Easiest => 1,
        })
    }
}

impl Metric {
    /// The distance on this scale.
    pub(super) fn of_squared(self, squared: f64) -> f64 {
        match self {
            Self::SquaredEuclidean => squared,
            Self::Euclidean => squared.sqrt(),
            Self::Cosine => 0.5 * squared,
        }
    }

    /// The squared L2 distance, up to a rounding, of a distance on this scale. Infinities stay.
    pub(super) fn squared(self, distance: f64) -> f64 {
        match self {
            Self::SquaredEuclidean => distance,
            Self::Euclidean => distance * distance.abs(),
            Self::Cosine => 2.0 * distance,
        }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<()> {
        let counts = [
            ("negatives_per_pair", Some(self.negatives_per_pair)),
            ("positives_per_anchor", self.positives_per_anchor),
            ("triplets_per_anchor", self.triplets_per_anchor),
        ];
        if let Some((name, _)) = counts.into_iter().find(|&(_, count)| count == Some(0)) {
            return Err(Error::Value(format!("{name} is 0, but must be at least 1")));
        }
        let Ranks { first, end } = self.ranks;
        if first >= end {
            return Err(Error::Value(format!("ranks from {first} to {end} hold no negative")));
        }
        if let Some(max_ap) = self.max_ap.filter(|max_ap| max_ap.is_nan() || *max_ap < 0.0) {
            return Err(Error::Value(format!("max_ap is {max_ap}, but must not be negative")));
        }
        for limit in self.band.limits() {
            if !limit.slope.is_finite() || limit.offset.is_nan() {
                return Err(Error::Value(format!(
                    "a limit of {} * d_ap + {} is no number",
                    limit.slope, limit.offset
                )));
            }
        }
        Ok(())
    }
}
