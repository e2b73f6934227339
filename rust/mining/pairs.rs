//! The pairs of an anchor.

use super::points::{Place, Points};
use super::{Isa, Options, Pairs, Stats, exact, hash};

/// An anchor and one of its positives.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// Place of the positive.
    pub positive: Place,
    /// Squared distance of the two.
    pub d_ap: f64,
    /// Key of the hash that orders the negatives.
    pub key: u64,
}

/// The pairs of the anchor, in ascending order of the positives' ids.
pub fn pairs_of(anchor: Place, points: &Points, options: &Options, isa: Isa, stats: &mut Stats) -> Vec<Pair> {
    let row = |place: Place| points.rows[place as usize];
    let mut pairs: Vec<Pair> = points
        .identity_run(anchor)
        .filter(|&positive| match options.pairs {
            Pairs::Unordered => row(anchor) < row(positive),
            _ => anchor != positive,
        })
        .map(|positive| Pair {
            positive,
            d_ap: exact::distance(isa, points.values(anchor), points.values(positive)),
            key: hash::pair_key(points.codes[anchor as usize], points.codes[positive as usize]),
        })
        .collect();
    if let Some(max_ap) = options.max_ap {
        let before = pairs.len();
        pairs.retain(|pair| pair.d_ap <= max_ap);
        stats.pairs_over_max_ap += (before - pairs.len()) as u64;
    }
    // Places ascend with ids within an identity, so the first of equals has the smallest id.
    let chosen = match options.pairs {
        Pairs::Hardest => {
            pairs.iter().copied().reduce(|best, pair| if pair.d_ap > best.d_ap { pair } else { best })
        }
        Pairs::Easiest => {
            pairs.iter().copied().reduce(|best, pair| if pair.d_ap < best.d_ap { pair } else { best })
        }
        Pairs::Unordered | Pairs::Ordered => None,
    };
    if let Some(pair) = chosen {
        pairs = vec![pair];
    }
    stats.pairs += pairs.len() as u64;
    pairs
}
