//! The pairs of an anchor.

use super::hash::Key;
use super::points::{Place, Sets};
use super::shortage::PAIRS;
use super::{Options, Pairs, Stats, exact};
use crate::{Isa, Result, memory};

/// An anchor and one of its positives.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// Rank of the positive among the rows that positives come from.
    pub positive: u32,
    /// Distance of the two, on the metric's scale.
    pub d_ap: f64,
    /// What orders the negatives.
    pub key: Key,
}

/// The pairs of the anchor.
pub fn pairs_of(
    anchor: Place,
    sets: &Sets,
    options: &Options,
    isa: Isa,
    stats: &mut Stats,
) -> Result<Vec<Pair>> {
    let (anchors, positives) = (&sets.anchors, sets.positives());
    // With references, a pair has its anchor in the first set: there is no other way round.
    let each_once = options.pairs == Pairs::Unordered && !sets.has_references();
    let is_positive = |&positive: &Place| {
        !sets.is_itself(anchor, positive)
            && (!each_once || anchors.rows[anchor as usize] < positives.rows[positive as usize])
    };
    let places = memory::collect(sets.positive_run(anchor).filter(is_positive), PAIRS)?;
    let mut pairs = memory::empty(places.len(), PAIRS)?;
    for places in places.chunks(exact::TOGETHER) {
        let distances =
            exact::some_distances(isa, anchors.values(anchor), places.len(), |i| positives.values(places[i]));
        pairs.extend(places.iter().zip(distances).map(|(&positive, squared)| Pair {
            positive: positives.ranks[positive as usize],
            d_ap: options.metric.of_squared(squared),
            key: Key::new(anchors.hashes[anchor as usize], positives.hashes[positive as usize]),
        }));
    }
    if let Some(max_ap) = options.max_ap {
        let before = pairs.len();
        pairs.retain(|pair| pair.d_ap <= max_ap);
        stats.pairs_over_max_ap += (before - pairs.len()) as u64;
    }
    let most = options.pairs.most(options.positives_per_anchor);
    if most < pairs.len() {
        // Ranks ascend with ids, so the first of equal distances has the smallest id.
        let comes_first = |x: &Pair, y: &Pair| match options.pairs {
            Pairs::Hardest => y.d_ap.total_cmp(&x.d_ap).then(x.positive.cmp(&y.positive)),
            Pairs::Easiest => x.d_ap.total_cmp(&y.d_ap).then(x.positive.cmp(&y.positive)),
            Pairs::Unordered | Pairs::Ordered => x.key.lot().cmp(&y.key.lot()),
        };
        pairs.select_nth_unstable_by(most, comes_first);
        pairs.truncate(most);
    }
    stats.pairs += pairs.len() as u64;
    Ok(pairs)
}
