//! The pairs of an anchor.

use super::hash::Key;
use super::points::{Place, Sets};
use super::shortage::PAIRS;
use super::{Options, Pairs, Stats, exact};
use crate::{Isa, Result, memory};

/// An anchor and one of its positives.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// Place of the positive among the candidates.
    pub positive: Place,
    /// Distance of the two, on the metric's scale.
    pub d_ap: f64,
    /// What orders the negatives.
    pub key: Key,
}

/// The pairs of the anchor, in ascending order of the positives' ids.
pub fn pairs_of(
    anchor: Place,
    sets: &Sets,
    options: &Options,
    isa: Isa,
    stats: &mut Stats,
) -> Result<Vec<Pair>> {
    let (anchors, candidates) = (&sets.anchors, sets.candidates());
    // With references, a pair has its anchor in the first set: there is no other way round.
    let each_once = options.pairs == Pairs::Unordered && !sets.are_two();
    let all = sets
        .identity_run(anchor)
        .filter(|&positive| {
            !sets.is_itself(anchor, positive)
                && (!each_once || anchors.rows[anchor as usize] < candidates.rows[positive as usize])
        })
        .map(|positive| Pair {
            positive,
            d_ap: options.metric.of_squared(exact::distance(
                isa,
                anchors.values(anchor),
                candidates.values(positive),
            )),
            key: Key::new(anchors.hashes[anchor as usize], candidates.hashes[positive as usize]),
        });
    let mut pairs = memory::collect(all, PAIRS)?;
    if let Some(max_ap) = options.max_ap {
        let before = pairs.len();
        pairs.retain(|pair| pair.d_ap <= max_ap);
        stats.pairs_over_max_ap += (before - pairs.len()) as u64;
    }
    // Places ascend with ids within an identity, so the first of equal distances has the smallest id.
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
        pairs.clear();
        pairs.push(pair);
    }
    stats.pairs += pairs.len() as u64;
    Ok(pairs)
}
